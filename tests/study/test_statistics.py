from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study.statistics import Comparison, compare, holm, stability


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


BEFORE = [0.1, 0.2, 0.3, 0.4, 0.5]


def compared(groups: dict[str, dict[str, list[float]]], *, higher_is_better: bool = True) -> Comparison:
    result = compare(table(groups), "a", higher_is_better=higher_is_better)
    assert result is not None
    return result


def test_groups_are_compared_with_the_reference_pair_by_pair_in_each_block_and_in_all() -> None:
    b = {"x": [0.11, 0.22, 0.33], "y": [1.4, 1.5]}
    result = compared({"a": {"x": BEFORE[:3], "y": [1.0, 1.0]}, "b": b})
    assert result.blocks.loc[("b", "x"), ["n", "difference"]].tolist() == pytest.approx([3, 0.02])
    assert result.blocks.loc[("b", "y"), ["n", "difference"]].tolist() == pytest.approx([2, 0.45])
    row = result.groups.loc["b"]
    assert row[["n", "difference", "effect"]].tolist() == pytest.approx([5, 0.96 / 5, 1.0])
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["p"] == row["p_holm"] == 2 / 2**5  # of five pairs no p-value is lower
    assert result.groups.loc["a", ["difference", "effect", "p"]].tolist() == [0, 0, 1]
    assert np.isnan(result.groups.loc["a", "p_holm"])
    assert (result.best, np.isnan(result.p)) == ("b", True)  # two groups are too few for Friedman's test


def test_an_interval_is_that_of_scipys_bca_bootstrap_and_there_is_none_where_all_differences_are_the_same() -> None:
    differences = np.array([0.1, -0.2, 0.4, 0.3, 0.6])
    result = compared({"a": {"x": [0.0] * 5}, "b": {"x": differences.tolist()}})
    expected = stats.bootstrap((differences,), np.mean, n_resamples=9999, rng=np.random.default_rng(0))
    low, high = result.groups.loc["b", ["difference_low", "difference_high"]]
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval))
    assert np.isnan(
        compared({"a": {"x": BEFORE}, "b": {"x": [v + 0.5 for v in BEFORE]}}).groups.loc["b", "difference_low"]
    )


def test_the_test_is_wilcoxons_with_its_exact_distribution() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 15))
    b += 0.4
    result = compared({"a": {"x": a.tolist()}, "b": {"x": b.tolist()}})
    expected = stats.wilcoxon(b, a, method="exact")
    assert result.groups.loc["b", "p"] == pytest.approx(expected.pvalue)
    signed = np.sign(b - a) * stats.rankdata(abs(b - a))
    assert result.groups.loc["b", "effect"] == pytest.approx(signed.sum() / 120)
    swapped = compared({"a": {"x": b.tolist()}, "b": {"x": a.tolist()}})
    assert swapped.groups.loc["b", "effect"] == pytest.approx(-signed.sum() / 120)


def test_a_pair_without_a_difference_has_a_rank_but_no_sign() -> None:
    after = [0.1, 0.2, 0.4, 0.6, 0.8]  # the differences are 0, 0, 0.1, 0.2, 0.3
    row = compared({"a": {"x": BEFORE}, "b": {"x": after}}).groups.loc["b"]
    assert (row["effect"], row["p"]) == (1.0, 2 / 2**3)


def test_a_single_pair_tells_nothing() -> None:
    row = compared({"a": {"x": [1.0]}, "b": {"x": [2.0]}}).groups.loc["b"]
    assert row[["n", "difference", "effect", "p"]].tolist() == [1, 1, 1, 1]
    assert np.isnan(row["difference_low"])


def test_one_repeat_that_went_astray_does_not_hide_that_all_others_differ() -> None:
    a = np.linspace(0.5, 0.6, 15)
    b = a + np.linspace(0.01, 0.02, 15)
    b[3] = 0.0
    row = compared({"a": {"x": a.tolist()}, "b": {"x": b.tolist()}}).groups.loc["b"]
    assert row["difference"] < 0
    assert row["effect"] == pytest.approx((105 - 15) / 120)
    assert row["p"] < 0.02


def test_p_values_are_corrected_over_all_groups_but_the_one_they_are_compared_with() -> None:
    rng = np.random.default_rng(0)
    groups = {
        name: {"x": (shift + rng.normal(size=10)).tolist()}
        for name, shift in {"a": 0, "b": 0.1, "c": 1, "d": 3}.items()
    }
    result = compared(groups).groups
    assert result["p_holm"].tolist()[1:] == pytest.approx(holm(result["p"].tolist()[1:]).tolist())
    assert np.isnan(result.loc["d", "p_best"])
    against_best = [stats.wilcoxon(groups[name]["x"], groups["d"]["x"], method="exact").pvalue for name in "abc"]
    assert result["p_best"].tolist()[:3] == pytest.approx(holm(against_best).tolist())


def test_mean_ranks_and_friedmans_test_stand_on_the_blocks_that_all_groups_have() -> None:
    groups = {
        "a": {"x": [1.0, 2.0, 3.0], "y": [5.0, 9.0]},
        "b": {"x": [2.0, 3.0, 4.0], "y": [6.0]},
        "c": {"x": [3.0, 4.0, 3.5], "y": [7.0, 1.0]},
    }
    result = compared(groups)
    assert (result.complete, result.degrees, result.best) == (4, 2, "c")
    assert result.groups["mean_rank"].to_dict() == {"a": 3.0, "b": 1.75, "c": 1.25}
    assert result.friedman == pytest.approx(12 / (4 * 3 * 4) * (12**2 + 7**2 + 5**2) - 3 * 4 * 4)
    assert result.p == pytest.approx(stats.chi2.sf(result.friedman, 2))
    assert result.groups["n"].to_dict() == {"a": 5, "b": 4, "c": 5}
    lower = compared(groups, higher_is_better=False)
    assert (lower.best, lower.groups["mean_rank"].to_dict()) == ("a", {"a": 1.0, "b": 2.25, "c": 2.75})


def test_what_cannot_be_told_from_the_best_is_marked() -> None:
    rng = np.random.default_rng(0)
    best = rng.normal(size=15)
    groups = {
        "a": {"x": (best - 1).tolist()},
        "best": {"x": best.tolist()},
        "like it": {"x": (best + rng.normal(scale=0.1, size=15) - 0.01).tolist()},
    }
    assert compared(groups).is_like_best.to_dict() == {"a": False, "best": True, "like it": True}


@pytest.mark.parametrize(
    "groups",
    [{"a": {"x": [1.0, 2.0]}}, {"b": {"x": [1.0]}, "c": {"x": [2.0]}}, {"a": {"x": [1.0]}, "b": {"y": [2.0]}}],
)
def test_without_the_reference_another_group_or_a_pair_there_is_nothing_to_compare(groups: dict) -> None:
    assert compare(table(groups), "a", higher_is_better=True) is None


def test_equal_groups_are_told_from_the_reference_in_about_one_of_twenty_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.statistics.RESAMPLES", 9)
    monkeypatch.setattr("study.statistics.SIGNS", 2**9)
    found = 0
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(2, 9))
        found += compared({"a": {"x": values[0].tolist()}, "b": {"x": values[1].tolist()}}).groups.loc["b", "p"] < 0.05
    assert 1 <= found <= 8
