from __future__ import annotations

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from epochs import without_times

from study.autoencoder import LATENT, AutoencoderTrial
from study.settings import build, merge
from study.space import load_study, plan_trials
from study.trial import CONFIG, MODEL
from vsgae.autoencoder import VSGAE
from vsgae.generation import latent_use, reconstruct
from vsgae.nasbench101 import load_space
from vsgae.splits import split


def small_config(**changes: object) -> AutoencoderTrial:
    small = {
        "model": {"encoder": {"node_dim": 12, "graph_dim": 8}},
        "training": {"lr": 0.003, "schedule": "constant", "batch_size": 64, "epochs": 3, "train_share": 0.002},
        "evaluation": {"cells": 50, "samples": 2, "points": 40, "decodings": 3},
    }
    return build(AutoencoderTrial, merge(small, changes))


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoencoderTrial, Path, list[dict[str, float]]]:
    """A trial, its directory, and what it yielded."""
    config, directory = small_config(), tmp_path_factory.mktemp("trial")
    return config, directory, list(config.run(directory))


def test_a_trial_yields_its_epochs_and_then_the_two_abilities_with_their_intervals(
    trial: tuple[AutoencoderTrial, Path, list[dict[str, float]]],
) -> None:
    config, _, [*epochs, final] = trial
    assert [metrics["epoch"] for metrics in epochs] == [1, 2, 3]
    assert {"train_loss", "train_kl", "held_out_loss", "held_out_reconstruction", "prior_validity"} <= epochs[0].keys()
    assert epochs[2]["held_out_loss"] < epochs[0]["held_out_loss"]
    assert config.MEASURES.keys() <= final.keys()
    for name in ("test_reconstruction", "test_mean_reconstruction", "test_validity", "test_scaled_in_space"):
        assert 0 <= final[f"{name}_low"] <= final[name] <= final[f"{name}_high"] <= 1
    assert final["test_isomorphic_reconstruction"] >= final["test_reconstruction"]
    assert final["test_in_space"] <= final["test_validity"]
    assert [final[count] for count in config.CELLS] == [763, 42362, 50]
    assert final["test_novel"] > 0.9  # of so few training cells hardly any is drawn


def test_what_a_trial_leaves_is_the_model_that_was_evaluated_and_how_its_latent_space_is_used(
    trial: tuple[AutoencoderTrial, Path, list[dict[str, float]]],
) -> None:
    config, directory, [*_, final] = trial
    model = VSGAE.from_pretrained(directory / MODEL)
    assert model.config == config.model
    assert final["parameters"] == sum(weight.numel() for weight in model.parameters())
    cells = load_space().cells
    held_out = cells[split(cells, config.split).test]
    use = latent_use(model, held_out)
    assert float(use.kl.sum()) == pytest.approx(final["test_kl"])
    latent = pd.read_csv(directory / LATENT)
    assert latent["kl"].sum() == pytest.approx(final["test_kl"], rel=1e-4)
    assert latent["active"].sum() == final["test_active_dimensions"]
    assert json.loads((directory / CONFIG).read_text())["training"]["train_share"] == 0.002
    share = reconstruct(model, held_out, torch.Generator().manual_seed(0), from_mean=True).exact
    assert share.interval[0] <= final["test_mean_reconstruction_high"]  # 50 of the cells, and all of them
    assert share.interval[1] >= final["test_mean_reconstruction_low"]


def test_a_trial_that_was_cut_off_goes_on_to_the_same_numbers(
    trial: tuple[AutoencoderTrial, Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    config, _, whole = trial
    trained = list(itertools.islice(config.run(tmp_path), 2))
    resumed = list(config.run(tmp_path))
    assert [metrics["seconds"] for metrics in resumed[:2]] == [metrics["seconds"] for metrics in trained]
    assert [without_times(metrics) for metrics in resumed] == [without_times(metrics) for metrics in whole]


def test_another_seed_is_another_model(
    trial: tuple[AutoencoderTrial, Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    _, _, [first, *_] = trial
    other = next(iter(small_config(seed=1).run(tmp_path)))
    assert other["train_loss"] != first["train_loss"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_trial_runs_on_a_gpu_to_nearly_the_same_numbers(
    precision: str, trial: tuple[AutoencoderTrial, Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    _, _, [*_, expected_last, _] = trial
    *_, last, final = small_config(training={"precision": precision}).run(tmp_path, "cuda")
    assert last["train_loss"] == pytest.approx(expected_last["train_loss"], rel=0.05)
    assert AutoencoderTrial.MEASURES.keys() <= final.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"cells": -1}}, "evaluation: cells is -1; it must be at least 0"),
        ({"evaluation": {"samples": 0}}, "evaluation: samples is 0; it must be at least 1"),
        ({"training": {"precision": "half"}}, "training.precision is 'half'; it must be"),
        ({"labels": {"source": "surrogate"}}, "unknown setting labels"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)


def test_the_model_that_comes_with_the_project_is_that_of_its_study() -> None:
    [trial] = plan_trials(load_study("pretrained"), {})
    assert isinstance(trial.config, AutoencoderTrial)
    assert VSGAE.from_pretrained().config == trial.config.model
