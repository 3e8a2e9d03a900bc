from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest

from study.predictor import PredictorTrial
from study.settings import build, merge
from study.space import load_study, plan_trials, study_files
from study.trial import PER_CENT, Measure, TrialConfig

SMALL = {
    "predictor": {"training.epochs": 1, "training.batch_size": 1024},
    "autoencoder": {
        "model.encoder.node_dim": 16,
        "training.epochs": 1,
        "training.train_share": 0.001,
        "training.batch_size": 1024,
        "evaluation.cells": 20,
        "evaluation.samples": 1,
        "evaluation.points": 20,
        "evaluation.decodings": 1,
    },
}


@pytest.mark.parametrize(
    ("name", "configuration"),
    [(name, configuration) for name in sorted(study_files()) for configuration in load_study(name).expanded],
)
def test_every_configuration_of_every_study_runs_one_epoch_of_one_step_on_the_cpu(
    name: str, configuration: str, tmp_path: Path, small_table: Path
) -> None:
    study, config = load_study(name), small_trials(name, str(small_table))[configuration]
    if isinstance(config, PredictorTrial) and config.sampling.size is not None:  # of 271 cells
        config = replace(config, sampling=replace(config.sampling, size=min(config.sampling.size, 32)))
    epoch, final = config.run(tmp_path)
    assert math.isfinite(epoch["train_loss"])
    assert all(math.isfinite(final[measure]) or measure in ("test_novel", "test_unique") for measure in study.shown)
    assert not final.keys() & epoch.keys()
    assert all((tmp_path / file).stat().st_size for file in config.FILES)
    for text in (config.progress(epoch), config.scores(final)):
        assert "\n" not in text
    assert config.report(final)


@cache
def small_trials(name: str, table: str) -> dict[str, TrialConfig]:
    """Of the study, one of each configuration."""
    study = load_study(name)
    trials = plan_trials(study, {}, table if study.trains == "predictor" else None)
    configs = {trial.configuration: trial.config for trial in trials}
    return {each: build(type(own), merge(asdict(own), SMALL[study.trains])) for each, own in configs.items()}


def test_a_measure_is_shown_with_the_deviation_that_its_unit_has() -> None:
    assert Measure("RMSE").show(0.02, 0.034, 0.019, 3) == "0.0200 ± 3.4 % (n = 3, median 0.0190)"
    assert Measure("Validity", unit=PER_CENT).show(0.5, 0.02, 0.51, 3) == "50.00 % ± 1.00 (n = 3, median 51.00 %)"
    assert Measure("RMSE").show(0.02, math.nan, math.nan, 1) == "0.0200 (n = 1)"
    assert Measure("RMSE").show(0.02, math.nan, math.nan, math.nan) == "0.0200"
