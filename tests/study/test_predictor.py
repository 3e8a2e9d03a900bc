from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from epochs import without_times
from safetensors.torch import load_file

from study.predictor import PredictorTrial
from study.settings import build, merge
from study.trial import CHECKPOINT, CONFIG, MODEL
from vsgae.evaluation import predict, regression_metrics
from vsgae.nasbench101.labels import load_labels
from vsgae.predictor import AccuracyPredictor
from vsgae.splits import split


def small_config(small_table: Path, **changes: object) -> PredictorTrial:
    return build(
        PredictorTrial,
        merge(
            {
                "model": {"encoder": {"node_dim": 6, "graph_dim": 4, "rounds": 1}, "hidden": [3]},
                "training": {"lr": 0.01, "batch_size": 32, "epochs": 3},
                "labels": {"source": str(small_table)},
            },
            changes,
        ),
    )


def test_a_trial_yields_its_epochs_and_then_its_scores_beside_both_baselines(tmp_path: Path, small_table: Path) -> None:
    *epochs, final = small_config(small_table).run(tmp_path)
    assert [metrics["epoch"] for metrics in epochs] == [1, 2, 3]
    best = min(epochs, key=lambda metrics: metrics["validation_rmse"])
    assert "epoch" not in final
    assert final["best_epoch"] == best["epoch"]
    assert final["best_validation_rmse"] == best["validation_rmse"]
    assert final["train_cells"] + final["validation_cells"] + final["test_cells"] == 271
    assert final["test_rmse_ratio"] == final["test_rmse"] / final["baseline_constant_test_rmse"]
    assert final["baseline_constant_test_rmse_ratio"] == 1
    assert 0 < final["baseline_boosted_trees_test_rmse"] < final["baseline_constant_test_rmse"]
    assert {"test_kendall_tau", "test_spearman", "test_r2", "test_mae"} <= final.keys()
    weights = load_file(tmp_path / MODEL)
    assert final["parameters"] == sum(weight.numel() for weight in weights.values())
    messages, update = 2 * (12 + 1) * 12, 18 * (12 + 6) + 2 * 18  # one round in two directions, d_n = 6
    encoder = 5 * 6 + messages + update + (6 + 1) * 4 + (6 + 1)  # embedding, round, readout and its gate
    assert final["parameters"] == encoder + (4 + 1) * 3 + (3 + 1)


def test_the_model_that_is_left_has_the_scores_that_were_reported(tmp_path: Path, small_table: Path) -> None:
    config = small_config(small_table)
    *_, final = config.run(tmp_path)
    model = AccuracyPredictor(config.model)
    model.load_state_dict(load_file(tmp_path / MODEL))
    labels = load_labels(config.labels)
    test = split(labels.cells, config.split).test
    assert regression_metrics(predict(model, labels.cells[test]), labels.values[test])["rmse"] == final["test_rmse"]
    written = json.loads((tmp_path / CONFIG).read_text())
    assert written["model"]["encoder"]["node_dim"] == 6
    assert str(small_table) not in (tmp_path / CONFIG).read_text()


def test_a_trial_that_was_cut_off_goes_on_to_the_same_numbers(tmp_path: Path, small_table: Path) -> None:
    config = small_config(small_table)
    whole = [without_times(metrics) for metrics in config.run(tmp_path / "whole")]
    for _ in itertools.islice(config.run(tmp_path / "cut"), 2):
        pass
    trained = torch.load(tmp_path / "cut" / CHECKPOINT, weights_only=True)["history"]
    assert len(trained) == 2
    resumed = list(config.run(tmp_path / "cut"))
    assert [metrics["seconds"] for metrics in resumed[:2]] == [metrics["seconds"] for metrics in trained]
    for expected, metrics in zip(whole, resumed, strict=True):
        assert without_times(metrics) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
