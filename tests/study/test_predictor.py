from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from epochs import without_times
from safetensors.torch import load_file

from study.predictor import PredictorTrial
from study.settings import build, merge
from study.trial import CHECKPOINT, CONFIG, MODEL, trial_key
from vsgae.autoencoder import VSGAE
from vsgae.evaluation import predict, regression_metrics
from vsgae.latents import encoder_means
from vsgae.nasbench101.labels import load_labels
from vsgae.predictor import AccuracyPredictor
from vsgae.sampling import SAMPLING_METHODS, sample
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
    assert resumed[-1]["training_seconds"] == sum(metrics["seconds"] for metrics in resumed[:-1])
    for expected, metrics in zip(whole, resumed, strict=True):
        assert without_times(metrics) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("method", SAMPLING_METHODS)
def test_a_sample_of_the_training_cells_is_drawn_by_the_seed_and_the_other_sets_stay(
    method: str, tmp_path: Path, small_table: Path, small_autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on = []

    def train_nothing(model: object, training: object, cells: object, values: object, parts: object, **more: object):
        trained_on.append(parts)
        raise InterruptedError
        yield

    monkeypatch.setattr("study.predictor.train_predictor", train_nothing)
    sampling = {"method": method, "share": 0.2, "latents": str(small_autoencoder)}
    config = small_config(small_table, sampling=sampling)
    labels = load_labels(config.labels)
    whole = split(labels.cells, config.split)
    latents = encoder_means(str(small_autoencoder), labels.cells[whole.train])
    for seed in (0, 1):
        with pytest.raises(InterruptedError):
            next(small_config(small_table, sampling=sampling, seed=seed).run(tmp_path))
        expected = sample(labels.cells[whole.train], round(0.2 * len(whole.train)), method, seed, latents)
        assert trained_on[seed].train.equal(whole.train[expected])
        assert trained_on[seed].validation.equal(whole.validation)
        assert trained_on[seed].test.equal(whole.test)
    assert not trained_on[0].train.equal(trained_on[1].train)


def test_the_baselines_of_a_sample_are_fitted_to_it(tmp_path: Path, small_table: Path) -> None:
    finals = [
        list(small_config(small_table, sampling={"share": share}).run(tmp_path / str(share)))[-1]
        for share in (0.1, 1.0)
    ]
    assert [final["train_cells"] for final in finals] == [19, 190]
    assert [final["test_cells"] for final in finals] == [54, 54]
    assert finals[0]["baseline_constant_test_rmse"] != finals[1]["baseline_constant_test_rmse"]
    whole, part, again = (
        small_config(small_table, **changes)
        for changes in ({}, {"sampling": {"share": 0.1}}, {"sampling": {"share": 0.1}, "seed": 1})
    )
    assert len({config.baselines_depend_on for config in (whole, part, again)}) == 3
    assert small_config(small_table, seed=1).baselines_depend_on == whole.baselines_depend_on


def test_the_key_of_a_trial_on_all_cells_is_what_it_was_before_there_was_sampling(small_table: Path) -> None:
    assert trial_key(PredictorTrial(), "digest") == "130a7b9f372dbc5a"
    assert trial_key(small_config(small_table), "digest") == "a01ceaaa5ef5be08"
    assert (
        trial_key(small_config(small_table, sampling={"latents": "gone.safetensors"}), "digest") == "a01ceaaa5ef5be08"
    )


def test_a_key_depends_on_the_autoencoder_where_its_latents_are_used_and_not_on_where_it_lies(
    tmp_path: Path, small_table: Path, small_autoencoder: Path
) -> None:
    def key(path: Path, method: str) -> str:
        sampling = {"method": method, "share": 0.2, "latents": str(path)}
        return trial_key(small_config(small_table, sampling=sampling), "digest")

    copy, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    shutil.copy(small_autoencoder, copy)
    VSGAE(VSGAE.from_pretrained(copy).config).save_pretrained(other)
    assert key(copy, "latent") == key(small_autoencoder, "latent") != key(other, "latent")
    assert key(copy, "edit") == key(other, "edit") == key(tmp_path / "gone", "edit")
    assert key(copy, "latent") != key(copy, "k_means_pp")
    with pytest.raises(ValueError, match=r"gone' is no autoencoder, there is no file .*gone; it must be 'shipped' or"):
        key(tmp_path / "gone", "latent")


def test_the_digest_of_the_autoencoder_is_recorded_in_place_of_its_path(
    small_table: Path, small_autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(small_autoencoder, "copy.safetensors")
    sampling = {"method": "latent", "share": 0.2, "latents": "copy.safetensors"}
    config = small_config(small_table, sampling=sampling).resolved()
    assert config.sampling.latents == str(tmp_path / "copy.safetensors")
    digest = config.settings()["sampling"]["latents"]
    assert len(digest) == 64
    list(config.run(tmp_path / "trial"))
    assert json.loads((tmp_path / "trial" / CONFIG).read_text())["sampling"]["latents"] == digest


BUDGET = {
    "split": {"name": "rest"},
    "sampling": {"size": 16},
    "training": {"select": "last", "epochs": 2, "passes": 3},
}


def test_a_label_budget_is_trained_on_and_all_other_cells_are_tested(tmp_path: Path, small_table: Path) -> None:
    config = small_config(small_table, **BUDGET, seed=1)
    *epochs, final = config.run(tmp_path)
    assert [final[f"{part}_cells"] for part in ("train", "validation", "test")] == [16, 0, 255]
    assert len(epochs) == final["best_epoch"] == 2
    assert not any("validation_rmse" in name for name in (*epochs[0], *final))
    assert config.curve in epochs[0]
    assert small_config(small_table).curve == "validation_rmse"
    assert config.progress(epochs[0]).startswith("epoch 1/2, training loss ")
    assert "validation" not in config.progress(epochs[0])
    assert math.isnan(final["baseline_boosted_trees_test_kendall_tau"])  # of fewer cells than two leaves: a constant
    again = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, size=None, share=16 / 271))
    *_, same = again.run(tmp_path / "again")
    assert same["test_rmse"] == final["test_rmse"]


def test_a_pretrained_encoder_is_the_first_of_a_trial_and_part_of_its_key_by_content(
    tmp_path: Path, small_table: Path, small_autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def train_nothing(*args: object, encoder: object, **more: object):
        given.append(encoder)
        raise InterruptedError
        yield

    monkeypatch.setattr("study.predictor.train_predictor", train_nothing)
    monkeypatch.chdir(tmp_path)
    shutil.copy(small_autoencoder, "copy.safetensors")
    model = {"encoder": {"node_dim": 6, "graph_dim": 5, "rounds": 1}}
    config, copy, scratch = (
        small_config(small_table, model=model, pretrained=pretrained).resolved()
        for pretrained in (str(small_autoencoder), "copy.safetensors", "none")
    )
    assert copy.pretrained == str(tmp_path / "copy.safetensors")
    assert trial_key(config, "") == trial_key(copy, "") != trial_key(scratch, "")
    assert trial_key(scratch, "") == trial_key(small_config(small_table, model=model), "")
    for each in (config, scratch):
        with pytest.raises(InterruptedError):
            next(each.run(tmp_path))
    expected = VSGAE.from_pretrained(small_autoencoder).encoder.state_dict()
    assert given[0].keys() == expected.keys()
    assert all(torch.equal(given[0][name], expected[name]) for name in expected)
    assert given[1] is None


def test_a_pretrained_encoder_of_another_shape_or_none_is_refused(small_table: Path, small_autoencoder: Path) -> None:
    config = small_config(small_table, pretrained=str(small_autoencoder))  # which has graph_dim 5
    message = r"^pretrained is .*small\.safetensors', and model\.encoder is not as in it: graph_dim 4, not 5$"
    with pytest.raises(ValueError, match=message):
        config.resolved()
    with pytest.raises(ValueError, match=r"gone' is no autoencoder, there is no file"):
        small_config(small_table, pretrained="gone").resolved()
