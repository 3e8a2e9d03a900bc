"""What figures are drawn from: recorded runs, labels and models of finished ones, and the shipped autoencoder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from study.settings import build
from study.tracking import Recorded, Tracker
from study.trial import CONFIG, MODEL
from vsgae.evaluation import predict
from vsgae.latents import SHIPPED, encoder_means, model_digest
from vsgae.nasbench101 import load_space
from vsgae.nasbench101.labels import LabelConfig, Labels, label_digest, load_labels
from vsgae.predictor import AccuracyPredictor, PredictorConfig
from vsgae.splits import SplitConfig, split

OWN = "{}"  # the overrides of a run with its study's own settings


class UnavailableError(Exception):
    """What a figure needs is not there; the message says what to do."""


@dataclass(frozen=True)
class Curve:
    """A run and what it recorded of its epochs: one row an epoch, from 1, one column a metric."""

    study: str
    run: Recorded
    epochs: pd.DataFrame

    @property
    def name(self) -> str:
        return f"{self.study}: {self.run.tags['mlflow.runName']}"

    @property
    def label(self) -> str:
        hours = self.epochs["seconds"].sum() / 3600
        return f"{self.name}, {len(self.epochs)} epochs, {hours:.1f} h on {self.run.tags['device']}"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of a finished run for its test cells: float ``[N]``, true and predicted accuracies."""

    study: str
    run: Recorded
    true: np.ndarray
    predicted: np.ndarray


def curves_of(studies: Sequence[str], metrics: Sequence[str]) -> list[Curve]:
    """Of the studies' runs with their own settings, finished or not, that have recorded an epoch.

    Raises:
        UnavailableError: there is none.
    """
    curves = [
        Curve(study, run, Tracker(study).epochs(run, [*metrics, "seconds"]))
        for study in studies
        for run in _of_one_data_set(run for run in Tracker(study).runs().values() if run.epoch)
        if run.tags["overrides"] == OWN
    ]
    if not curves:
        raise UnavailableError(f"no recorded epoch; {_commands(studies)}")
    return sorted(curves, key=lambda curve: (studies.index(curve.study), curve.run.tags["mlflow.runName"]))


def curves_by_setting(study: str, configurations: Sequence[str], metrics: Sequence[str]) -> dict[str, list[Curve]]:
    """Of the study's own setting, and of that other one with the lowest validation error, in the median over its runs.

    Raises:
        UnavailableError: no run of these configurations has recorded an epoch.
    """
    tracker, by_setting = Tracker(study), dict[str, list[Curve]]()
    for run in _of_one_data_set(run for run in tracker.runs().values() if run.epoch):
        if run.tags["configuration"] in configurations:
            curve = Curve(study, run, tracker.epochs(run, [*metrics, "seconds"]))
            by_setting.setdefault(run.tags["setting"], []).append(curve)
    if not by_setting:
        raise UnavailableError(f"no recorded epoch; {_commands([study])}")
    own = [name for name, curves in by_setting.items() if curves[0].run.tags["overrides"] == OWN]
    others = sorted(by_setting.keys() - set(own), key=lambda name: _error(by_setting[name]))
    return {name: by_setting[name] for name in [*own, *others[:1]]}


def finished_runs(study: str) -> list[Recorded]:
    """Those with the study's own settings, by name."""
    runs = [run for run in Tracker(study).runs().values() if run.finished and run.tags["overrides"] == OWN]
    return sorted(_of_one_data_set(runs), key=lambda run: run.tags["mlflow.runName"])


def fullest(studies: Sequence[str]) -> tuple[str, list[Recorded]]:
    """The study that has the most finished runs with its own settings, and these.

    Raises:
        UnavailableError: none has any.
    """
    found = {study: finished_runs(study) for study in studies}
    study = max(found, key=lambda name: len(found[name]))
    if not found[study]:
        raise UnavailableError(f"no finished run; {_commands(studies)}")
    return study, found[study]


@lru_cache(maxsize=1)
def best_predictions(study: str, configuration: str) -> Predictions:
    """Of the run that validation chooses among the finished ones of a configuration, whatever their settings.

    Raises:
        UnavailableError: there is none, or its labels are no longer where they were.
    """
    tracker = Tracker(study)
    runs = [
        run
        for run in _of_one_data_set(run for run in tracker.runs().values() if run.finished)
        if run.tags["configuration"] == configuration
    ]
    if not runs:
        raise UnavailableError(f"no finished run; {_commands([study])}")
    run = min(runs, key=lambda run: run.metrics["best_validation_rmse"])
    labels, folder = labels_of(run), tracker.model_files(run)
    config = json.loads((folder / CONFIG).read_text())
    model = AccuracyPredictor(build(PredictorConfig, config["model"]))
    model.load_state_dict(load_file(folder / MODEL))
    test = split(labels.cells, build(SplitConfig, config["split"])).test
    return Predictions(study, run, labels.values[test].numpy(), predict(model, labels.cells[test]).numpy())


def labels_of(run: Recorded) -> Labels:
    """Those that a predictor was trained on.

    Raises:
        UnavailableError: they are no longer where they were, or others are there.
    """
    source = run.tags.get("label_path", run.tags["label_source"])  # older runs have the name alone
    try:
        config = LabelConfig(
            source=source,
            metric=run.params["labels.metric"],
            epochs=int(run.params["labels.epochs"]),
            repeat=run.params["labels.repeat"],
        )
        found = label_digest(config)
    except ValueError as error:
        raise UnavailableError(f"the labels of its runs are gone: {error}") from error
    if found != run.tags["label_digest"]:
        raise UnavailableError(f"the labels of its runs are gone: {source} holds others now")
    return _labels(config)


@lru_cache(maxsize=1)
def _labels(config: LabelConfig) -> Labels:
    return load_labels(config)


@lru_cache(maxsize=1)
def shipped_latents() -> tuple[np.ndarray, str]:
    """Encoder means of the whole space, float32 ``[423624, d_g]``, and which model they are of.

    Raises:
        UnavailableError: the model is not there.
    """
    try:
        name = f"the autoencoder of this project (SHA-256 {model_digest(SHIPPED)[:10]})"
    except ValueError as error:
        raise UnavailableError(str(error)) from error
    return encoder_means(SHIPPED, load_space().cells).numpy(), name


def stands_on(runs: Iterable[Recorded]) -> str:
    """Labels, cells and commit, for the foot of a figure."""
    runs = list(runs)
    labels = "; ".join(sorted({run.tags["labels"] for run in runs}))
    commits = ", ".join(sorted({run.tags["git_commit"][:10] for run in runs}))
    return f"labels: {labels}. commit: {commits}"


def _of_one_data_set(runs: Iterable[Recorded]) -> list[Recorded]:
    """Those on the labels that most of them stand on."""
    runs = list(runs)
    if not runs:
        return []
    [(digest, _)] = Counter(run.tags["label_digest"] for run in runs).most_common(1)
    return [run for run in runs if run.tags["label_digest"] == digest]


def _error(curves: Sequence[Curve]) -> float:
    return median(curve.epochs["validation_rmse"].min() for curve in curves)


def _commands(studies: Sequence[str]) -> str:
    return " or ".join(f"python -m study.run {study}" for study in studies)
