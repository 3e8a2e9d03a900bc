import pytest
import torch

from vsgae.edit_distance import edit_distance, reference_cells
from vsgae.splits import SPLITS, SplitConfig, split


@pytest.mark.parametrize("name", [name for name in SPLITS if name != "rest"])
def test_the_parts_are_disjoint_complete_and_a_function_of_the_seed(space, name):
    cells = space[::20]
    a, b, other = (split(cells, SplitConfig(name=name, seed=seed)) for seed in (3, 3, 4))
    everything = torch.cat([a.train, a.validation, a.test])
    assert torch.equal(everything.sort().values, torch.arange(len(cells)))
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(a, part), getattr(b, part))
    assert not torch.equal(a.train, other.train)


def test_edit_sampling_takes_every_stratum_in_proportion(space):
    parts = split(space, SplitConfig(name="edit_sampled"))
    assert len(parts.train) == pytest.approx(0.7 * len(space), abs=1)
    assert len(parts.test) == pytest.approx(0.2 * len(space), abs=1)
    assert len(parts.validation) == pytest.approx(0.1 * len(space), abs=1)
    strata = space.num_nodes * 100 + edit_distance(space, reference_cells(space.num_nodes))
    total = torch.bincount(strata)
    assert (total > 0).sum() > 50
    for part, tenths in ((parts.train, 7), (parts.test, 2), (parts.validation, 1)):
        assert (torch.bincount(strata[part], minlength=len(total)) - total * tenths / 10).abs().max() <= 2 * tenths


def test_zero_shot_trains_on_the_other_lengths_and_tests_on_all_of_one(space):
    counts = {5: 2441, 6: 62010, 7: 359082}
    for length in (6, 7):
        parts = split(space, SplitConfig(name=f"zero_shot_{length}"))
        assert len(parts.test) == counts[length]
        assert (space.num_nodes[parts.test] == length).all()
        for part in (parts.train, parts.validation):
            assert (space.num_nodes[part] != length).all()
        assert len(parts.validation) == pytest.approx((len(space) - counts[length]) / 10, abs=1)


def test_90_10_has_no_validation_set(space):
    parts = split(space, SplitConfig(name="random_90_10"))
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [381_262, 0, 42_362]


def test_of_the_rest_all_cells_that_are_not_chosen_are_test_cells(space):
    cells = space[::500]
    parts = split(cells, SplitConfig(name="rest"), lambda every: every[[3, 5, 800]])
    assert parts.train.tolist() == [3, 5, 800]
    assert len(parts.validation) == 0
    assert parts.test.tolist() == [i for i in range(len(cells)) if i not in (3, 5, 800)]
    assert parts.counts() == {"train_cells": 3, "validation_cells": 0, "test_cells": len(cells) - 3}
    with pytest.raises(ValueError, match=f"a split with {len(cells)} training and 0 test cells; neither may be empty"):
        split(cells, SplitConfig(name="rest"))


def test_in_other_splits_the_cells_that_are_not_chosen_are_left_out(space):
    cells = space[::500]
    whole, part = split(cells, SplitConfig()), split(cells, SplitConfig(), lambda every: every[::7])
    assert torch.equal(part.train, whole.train[::7])
    assert torch.equal(part.test, whole.test)
    assert torch.equal(part.validation, whole.validation)


def test_the_split_seed_moves_the_test_set(space):
    tests = [set(split(space[::50], SplitConfig(seed=seed)).test.tolist()) for seed in (0, 1)]
    assert tests[0] != tests[1]


def test_wrong_settings_and_empty_parts_are_refused(space):
    with pytest.raises(ValueError, match="name is 'thirds'; allowed are edit_sampled, zero_shot_6"):
        SplitConfig(name="thirds")
    with pytest.raises(ValueError, match="seed is -1; it must be at least 0"):
        SplitConfig(seed=-1)
    with pytest.raises(ValueError, match="training and 0 test cells; neither may be empty"):
        split(space[:91], SplitConfig(name="zero_shot_6"))
