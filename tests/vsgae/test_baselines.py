import pytest
import torch

from vsgae.baselines import BASELINES, fit_baselines
from vsgae.splits import SplitConfig, split


@pytest.fixture(scope="module")
def data(thousand_cells):
    values = 0.8 + 0.02 * (thousand_cells.operations == 1).sum(1) - 0.01 * thousand_cells.adjacency[:, 0].sum(1)
    return thousand_cells, values, split(thousand_cells, SplitConfig())


def test_the_constant_predicts_the_training_mean(data):
    _, values, parts = data
    scores = fit_baselines(*data)["constant"]
    mean = values[parts.train].double().mean()
    assert scores["rmse"] == pytest.approx((values[parts.test].double() - mean).square().mean().sqrt().item())


def test_boosted_trees_learn_what_the_features_say(data):
    scores = fit_baselines(*data)
    assert list(scores) == list(BASELINES)
    assert scores["boosted_trees"]["rmse"] < 0.3 * scores["constant"]["rmse"]


def test_the_baselines_are_deterministic_and_do_not_see_the_test_labels(data):
    cells, values, parts = data
    assert fit_baselines(*data)["boosted_trees"] == fit_baselines(*data)["boosted_trees"]
    shifted = values.clone()
    shifted[parts.test] += 1
    moved = fit_baselines(cells, shifted, parts)["boosted_trees"]["mae"]
    assert moved == pytest.approx(1, abs=0.1)
    unseen = values.clone()
    unseen[torch.cat([parts.validation])] = 99
    assert fit_baselines(cells, unseen, parts)["boosted_trees"] == fit_baselines(*data)["boosted_trees"]
