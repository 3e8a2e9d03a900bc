from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.statistics import holm, stability


def table(groups: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    rows = [
        (group, block, repeat, value)
        for group, blocks in groups.items()
        for block, own in blocks.items()
        for repeat, value in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["group", "block", "repeat", "value"])


def drawn(scales: dict[str, float], *, repeats: int, seed: int, common: float = 0.0) -> pd.DataFrame:
    """Log-normal values of so many repeats in each of three blocks, one ten times as spread as another.

    Args:
        common: the deviation of what a repeat has in common in all groups.
    """
    rng = np.random.default_rng(seed)
    shared = {block: common * rng.normal(size=repeats) for block in BLOCKS}
    return table(
        {
            group: {
                block: np.exp(width * (scale * rng.normal(size=repeats) + shared[block])).tolist()
                for block, width in BLOCKS.items()
            }
            for group, scale in scales.items()
        }
    )


BLOCKS = {"1 %": 1.0, "5 %": 0.3, "20 %": 0.1}


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]).tolist() == [1, 1]
    assert holm([0.02]).tolist() == [0.02]


def test_a_deviation_is_the_sample_deviation_of_the_logarithm_as_the_root_of_the_mean_square_over_blocks() -> None:
    values = {"a": {"x": [1.0, 1.1, 1.3], "y": [2.0, 2.1, 2.6]}, "b": {"x": [3.0, 3.9, 3.1], "y": [4.0, 5.0, 4.4]}}
    result = stability(table(values), paired=False)
    assert result is not None
    deviation = {
        group: np.sqrt(np.mean([np.log(own).std(ddof=1) ** 2 for own in blocks.values()]))
        for group, blocks in values.items()
    }
    assert result.groups["deviation"].to_dict() == pytest.approx(deviation)
    assert result.groups["n"].to_dict() == {"a": 6, "b": 6}
    assert result.degrees == (1, 6)  # of three distances in each of four cells two count
    doubled = stability(table(values).assign(value=lambda t: 2 * t["value"]), paired=False)
    assert doubled is not None
    assert doubled.groups["deviation"].to_dict() == pytest.approx(deviation)


def test_what_a_repeat_has_in_common_in_all_groups_is_taken_off_where_repeats_are_paired() -> None:
    logs = np.array([[0.0, 0.1, 0.5], [0.3, 0.1, 0.2], [0.2, 0.6, 0.1]])  # a row a group, a column a repeat
    values = table({name: {"x": np.exp(own).tolist()} for name, own in zip("abc", logs, strict=True)})
    result = stability(values, paired=True)
    assert result is not None
    residual = logs - logs.mean(0) - logs.mean(1, keepdims=True) + logs.mean()
    assert result.groups["own"].tolist() == pytest.approx(np.sqrt((residual**2).sum(1) / (2 * 2 / 3)).tolist())
    assert result.groups["deviation"].tolist() == pytest.approx(logs.std(1, ddof=1).tolist())
    shifted = values.assign(value=values["value"] * values["repeat"].map({0: 1.0, 1: 5.0, 2: 0.1}))
    again = stability(shifted, paired=True)
    assert again is not None
    assert again.groups["own"].tolist() == pytest.approx(result.groups["own"].tolist())
    assert again.p == pytest.approx(result.p)


def test_two_groups_are_compared_as_they_are_since_pairing_would_leave_the_same_of_both() -> None:
    values = drawn({"a": 0.2, "calm": 0.02}, repeats=10, seed=0)
    paired, unpaired = stability(values, paired=True), stability(values, paired=False)
    assert paired is not None
    assert unpaired is not None
    assert paired.p == unpaired.p < 0.001


def test_pairing_finds_a_calm_group_that_the_common_deviation_hides() -> None:
    values = drawn({"a": 0.2, "b": 0.2, "c": 0.2, "calm": 0.02}, repeats=40, seed=0, common=1.0)
    paired, unpaired = stability(values, paired=True), stability(values, paired=False)
    assert paired is not None
    assert unpaired is not None
    assert paired.p < 0.001
    assert unpaired.p > 0.5


def test_a_group_that_deviates_less_is_told_from_the_others_and_they_from_each_other_are_not() -> None:
    result = stability(drawn({"a": 0.2, "b": 0.2, "calm": 0.03}, repeats=20, seed=0), paired=False)
    assert result is not None
    assert result.p < 0.001
    assert result.against("calm", "a") == result.against("a", "calm") < 0.001
    assert result.against("a", "b") > 0.1
    assert np.isnan(result.against("a", "a"))
    low, high = result.groups.loc["calm", ["own_low", "own_high"]]
    assert low < result.groups.loc["calm", "own"] < high < result.groups.loc["a", "own_low"]
    assert (result.pairs["p_holm"] >= result.pairs["p"]).all()


@pytest.mark.parametrize(("paired", "common"), [(False, 0.0), (True, 0.0), (True, 0.6)])
def test_equal_groups_are_told_apart_in_about_one_of_twenty_cases(
    paired: bool, common: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.statistics.RESAMPLES", 9)
    equal = dict.fromkeys("abcde", 0.2)
    found = [stability(drawn(equal, repeats=5, seed=seed, common=common), paired=paired) for seed in range(100)]
    assert 1 <= sum(result is not None and result.p < 0.05 for result in found) <= 10


@pytest.mark.parametrize(
    "groups",
    [
        {"a": {"x": [1.0, 2.0]}},
        {"a": {"x": [1.0, 2.0, 4.0]}, "b": {"x": [1.0], "y": [3.0]}},
        {"a": {"x": [1.0, 1.0, 1.0]}, "b": {"x": [2.0, 2.0, 2.0]}},
        {"a": {"x": [1.0, 2.0]}, "b": {"x": [2.0, 3.0]}},
    ],
)
def test_where_fewer_than_two_groups_deviate_or_in_one_distance_only_there_is_nothing_to_compare(groups: dict) -> None:
    assert stability(table(groups), paired=False) is None
    assert stability(table(groups), paired=True) is None


def test_residuals_of_one_size_have_no_interval() -> None:
    result = stability(
        table({"a": {"x": [1.0, 2.0], "y": [2.0, 4.0]}, "b": {"x": [1.0, 3.0], "y": [3.0, 9.0]}}), paired=False
    )
    assert result is not None
    assert result.groups["deviation"].tolist() == pytest.approx([np.log(2) / 2**0.5, np.log(3) / 2**0.5])
    assert result.groups["deviation_low"].isna().all()
