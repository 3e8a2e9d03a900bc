"""Trials of the accuracy predictor (paper section 7.1)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from safetensors.torch import save_file
from torch import Tensor

from study.trial import CHECKPOINT, MODEL, OURS, Data, Measure, TrialConfig, timed
from vsgae.autoencoder import VSGAE
from vsgae.baselines import BASELINES, fit_baselines
from vsgae.encoder import EncoderConfig
from vsgae.latents import SHIPPED, encoder_means, model_digest, model_file
from vsgae.nasbench101.labels import OFFICIAL, SURROGATE, LabelConfig, Labels, label_digest, load_labels
from vsgae.predictor import AccuracyPredictor, PredictorConfig
from vsgae.sampling import SamplingConfig
from vsgae.splits import Split, SplitConfig, split
from vsgae.training import TrainingConfig, train_predictor

if TYPE_CHECKING:
    import pandas as pd

NONE = "none"
Drawn = tuple[SplitConfig, SamplingConfig, int]
"""What determines which of the labelled cells are trained and tested on; the seed is 0 where no sample is drawn."""

PREDICTED = "these labels come from boosted trees on cell features, which favours the baseline of that kind"


@dataclass(frozen=True, kw_only=True)
class PredictorTrial(TrialConfig):
    """Train on labelled cells, or a sample of them that the seed draws; choose the epoch on the validation cells, score
    on the test cells beside two baselines.

    Args:
        pretrained: the autoencoder whose encoder is the predictor's at first: ``none``; ``shipped``, the one that comes
            with this project; or the path of one. ``model.encoder`` must be that of the autoencoder.

    Final metrics: ``best_epoch``, ``best_validation_*`` where there are validation cells, ``test_*``,
    ``baseline_<name>_test_*``, ``training_seconds`` (of all epochs, validation included) and ``parameters``, the number
    of weights.
    """

    MEASURES: ClassVar[Mapping[str, Measure]] = {
        "test_rmse": Measure("Test RMSE"),
        "best_validation_rmse": Measure("Validation RMSE at the chosen epoch"),
        "test_kendall_tau": Measure("Test Kendall tau", higher_is_better=True, undefined=0.0),  # it ranks nothing
        "test_rmse_ratio": Measure("Test RMSE over that of the constant predictor"),
    }
    METHODS: ClassVar[Mapping[str, str]] = {
        **{f"baseline_{name}_": title for name, title in BASELINES.items()},
        "": OURS,
    }
    OBJECTIVES: ClassVar[tuple[str, ...]] = (
        *(f"best_validation_{name}" for name in ("kendall_tau", "spearman", "rmse", "mae", "r2")),
        "training_seconds",
        "parameters",
    )

    model: PredictorConfig = field(default_factory=PredictorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pretrained: str = NONE

    @property
    def epochs(self) -> int:
        return self.training.epochs

    @property
    def curve(self) -> str:
        return "train_loss" if self.training.select == "last" else "validation_rmse"

    def data(self) -> Data:
        return _data(self.labels)

    @property
    def source(self) -> str:
        return self.labels.source

    def data_digest(self) -> str:
        return label_digest(self.labels)

    @property
    def baselines_depend_on(self) -> Drawn:
        return self.split, self.sampling, self.seed if self.sampling.is_drawn else 0

    def resolved(self) -> Self:
        labels, sampling, pretrained = self.labels, self.sampling, self.pretrained
        if labels.source not in (OFFICIAL, SURROGATE):
            labels = dataclasses.replace(labels, source=str(Path(labels.source).resolve()))
        if sampling.latents != SHIPPED:
            sampling = dataclasses.replace(sampling, latents=str(Path(sampling.latents).resolve()))
        if pretrained not in (NONE, SHIPPED):
            pretrained = str(Path(pretrained).resolve())
        if pretrained != NONE:
            _encoder(pretrained, self.model.encoder)  # whose errors are wanted before the first trial starts
        return dataclasses.replace(self, labels=labels, sampling=sampling, pretrained=pretrained)

    def stands_on_the_same_as(self, other: TrialConfig) -> bool:
        return isinstance(other, PredictorTrial) and self.labels == other.labels

    def settings(self) -> dict[str, Any]:
        values = super().settings()
        del values["labels"]["source"]  # the same table elsewhere is the same trial, and the same autoencoder
        latents = self.sampling.latents
        values["sampling"]["latents"] = model_digest(latents) if self.sampling.uses_latents else NONE
        if self.pretrained != NONE:
            values["pretrained"] = model_digest(self.pretrained)
        return values

    def run(self, directory: Path, device: str = "cpu") -> Iterator[dict[str, float]]:
        directory.mkdir(parents=True, exist_ok=True)
        labels = _labels(self.labels)
        parts = _parts(self.labels, self.baselines_depend_on)
        encoder = None if self.pretrained == NONE else _encoder(self.pretrained, self.model.encoder)
        training = train_predictor(
            self.model,
            self.training,
            labels.cells,
            labels.values,
            parts,
            seed=self.seed,
            encoder=encoder,
            checkpoint=directory / CHECKPOINT,
            device=device,
        )
        result, seconds = yield from timed(training)
        final = {"best_epoch": float(result.best_epoch)}
        final |= {f"best_validation_{name}": value for name, value in result.validation.items()}
        final |= {f"test_{name}": value for name, value in result.test.items()}
        baselines = _baselines(self.labels, self.baselines_depend_on)
        constant = baselines["constant"]["rmse"]
        final["test_rmse_ratio"] = final["test_rmse"] / constant
        for baseline, scores in baselines.items():
            final |= {f"baseline_{baseline}_test_{name}": value for name, value in scores.items()}
            final[f"baseline_{baseline}_test_rmse_ratio"] = scores["rmse"] / constant
        final |= parts.counts()
        final["parameters"], final["training_seconds"] = float(self.parameters()), seconds

        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in result.model.state_dict().items()}
        save_file(weights, directory / MODEL)
        self.write_config(directory, labels={"description": labels.description, "digest": labels.digest})
        yield final

    def network(self) -> AccuracyPredictor:
        return AccuracyPredictor(self.model)

    def progress(self, metrics: Mapping[str, float]) -> str:
        text = f"epoch {metrics['epoch']:.0f}/{self.epochs}, training loss {metrics['train_loss']:.3g}"
        if "validation_rmse" in metrics:
            text += f", validation RMSE {metrics['validation_rmse']:.4f}"
        return text

    @staticmethod
    def scores(metrics: Mapping[str, float]) -> str:
        return (
            f"test RMSE {metrics['test_rmse']:.4f} ({metrics['test_rmse_ratio']:.2f} of the constant predictor's), "
            f"Kendall tau {metrics['test_kendall_tau']:.3f}, epoch {metrics['best_epoch']:.0f}"
        )

    @staticmethod
    def report(metrics: Mapping[str, float]) -> str:
        """The test scores beside those of both baselines, on the same cells."""
        methods = {"": OURS} | dict(PredictorTrial.METHODS)
        width = max(map(len, methods.values()))
        cells = f"{metrics['test_cells']:,.0f} test cells"
        lines = [f"{cells:<{width}}  RMSE    of constant  Kendall tau  Spearman      R2"]
        for prefix, title in methods.items():
            rmse, ratio, tau, spearman, r2 = (
                metrics.get(f"{prefix}test_{name}", math.nan)
                for name in ("rmse", "rmse_ratio", "kendall_tau", "spearman", "r2")
            )
            lines.append(f"{title:<{width}}  {rmse:.4f}  {ratio:11.3f}  {tau:11.3f}  {spearman:8.3f}  {r2:6.3f}")
        return "\n".join(lines)

    @staticmethod
    def remarks(scores: pd.DataFrame) -> dict[str, str]:
        ours = scores[scores["method"] == OURS]
        astray = ours[ours["test_kendall_tau"].isna()]
        if not len(astray):
            return {}
        return {
            "constant predictions": (
                f"{len(astray)} of the {len(ours)} {OURS} trials ended in the same prediction for every cell; they "
                f"count in the errors, but have no Kendall tau: {', '.join(astray['trial'])}"
            )
        }


@lru_cache(maxsize=1)
def _labels(config: LabelConfig) -> Labels:
    """Kept for the next trial in this process."""
    return load_labels(config)


@lru_cache(maxsize=1)
def _latents(config: LabelConfig, model: str) -> Tensor:
    """Of all labelled cells, kept for the next trial in this process."""
    return encoder_means(model, _labels(config).cells)


@lru_cache(maxsize=32)
def _parts(config: LabelConfig, drawn: Drawn) -> Split:
    """The split, its training cells sampled; kept for later trials in this process."""
    split_config, sampling, seed = drawn
    cells = _labels(config).cells

    def choose(candidates: Tensor) -> Tensor:
        latents = _latents(config, sampling.latents)[candidates] if sampling.uses_latents else None
        return candidates[sampling.chosen(cells[candidates], seed, latents)]

    return split(cells, split_config, choose)


@lru_cache(maxsize=32)
def _baselines(config: LabelConfig, drawn: Drawn) -> dict[str, dict[str, float]]:
    labels = _labels(config)
    return fit_baselines(labels.cells, labels.values, _parts(config, drawn))


@lru_cache(maxsize=1)
def _encoder(model: str, config: EncoderConfig) -> dict[str, Tensor]:
    """The weights of an autoencoder's encoder, kept for the next trial in this process.

    Raises:
        ValueError: ``model`` is no autoencoder, or its encoder is another than ``config``.
    """
    autoencoder = VSGAE.from_pretrained(model_file(model))
    ours, theirs = asdict(config), asdict(autoencoder.config.encoder)
    different = [f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]
    if different:
        raise ValueError(f"pretrained is {model!r}, and model.encoder is not as in it: {', '.join(different)}")
    return autoencoder.encoder.state_dict()


@cache
def _data(config: LabelConfig) -> Data:
    labels = _labels(config)
    source, is_predicted = Path(config.source).name, config.source == SURROGATE
    facts = {"source": source, "metric": config.metric, "epochs": config.epochs, "cells": len(labels)}
    return Data(labels.description, facts, PREDICTED if is_predicted else "", is_predicted)
