from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.statistics import holm, stability


def table(groups: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    rows = [(group, block, value) for group, blocks in groups.items() for block, own in blocks.items() for value in own]
    return pd.DataFrame(rows, columns=["group", "block", "value"])


def drawn(scales: dict[str, float], *, repeats: int, seed: int) -> pd.DataFrame:
    """Log-normal values of so many repeats in each of three blocks, one ten times as spread as another."""
    rng = np.random.default_rng(seed)
    return table(
        {
            group: {block: np.exp(scale * width * rng.normal(size=repeats)).tolist() for block, width in BLOCKS.items()}
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
    result = stability(table(values))
    assert result is not None
    deviation = {
        group: np.sqrt(np.mean([np.log(own).std(ddof=1) ** 2 for own in blocks.values()]))
        for group, blocks in values.items()
    }
    assert result.groups["deviation"].to_dict() == pytest.approx(deviation)
    assert result.groups["n"].to_dict() == {"a": 6, "b": 6}
    assert result.degrees == (1, 6)  # of three distances in each of four cells two count
    doubled = stability(table(values).assign(value=lambda t: 2 * t["value"]))
    assert doubled is not None
    assert doubled.groups["deviation"].to_dict() == pytest.approx(deviation)


def test_each_block_weighs_the_same_in_the_relative_deviation() -> None:
    wide, narrow = [1.0, 2.0, 4.0], [1.0, 1.01, 1.02]
    result = stability(table({"a": {"x": wide, "y": narrow}, "b": {"x": wide, "y": narrow}}))
    assert result is not None
    assert result.groups["relative"].tolist() == pytest.approx([1, 1])
    assert result.p == pytest.approx(1)


def test_a_group_that_deviates_less_is_told_from_the_others_and_they_from_each_other_are_not() -> None:
    result = stability(drawn({"a": 0.2, "b": 0.2, "calm": 0.03}, repeats=20, seed=0))
    assert result is not None
    assert result.p < 0.001
    assert result.against("calm", "a") == result.against("a", "calm") < 0.001
    assert result.against("a", "b") > 0.1
    assert np.isnan(result.against("a", "a"))
    low, high = result.groups.loc["calm", ["relative_low", "relative_high"]]
    assert low < result.groups.loc["calm", "relative"] < high < result.groups.loc["a", "relative_low"]
    assert (result.pairs["p_holm"] >= result.pairs["p"]).all()


def test_equal_groups_are_told_apart_in_about_one_of_twenty_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.statistics.RESAMPLES", 9)
    found = [stability(drawn(dict.fromkeys("abcde", 0.2), repeats=5, seed=seed)) for seed in range(100)]
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
    assert stability(table(groups)) is None


def test_residuals_of_one_size_have_no_interval() -> None:
    result = stability(table({"a": {"x": [1.0, 2.0], "y": [2.0, 4.0]}, "b": {"x": [1.0, 3.0], "y": [3.0, 9.0]}}))
    assert result is not None
    assert result.groups["deviation"].tolist() == pytest.approx([np.log(2) / 2**0.5, np.log(3) / 2**0.5])
    assert result.groups["deviation_low"].isna().all()
