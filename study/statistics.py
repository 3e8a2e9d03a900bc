"""Statistics over repeats: what the tables say of differences between methods.

Every figure states its n, and every test its correction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 9999
LEVEL = 0.95
SAME = 1e-12  # a difference that is none
SIGNS = 2**15  # changes of sign: all of 15 pairs


@dataclass(frozen=True)
class Stability:
    """How much the values of several groups deviate over repeats, and whether they differ in that.

    Args:
        groups: a row a group: ``n`` (repeats, over all blocks), ``deviation`` (a share of the value) and ``own`` (the
            same without what a repeat has in common in all groups), each with ``_low`` and ``_high``, its interval.
        pairs: ``first``, ``second``, ``p`` and ``p_holm``, corrected over all pairs.
        f, p: the test of all groups at once.
        degrees: of freedom of ``f``.
    """

    groups: pd.DataFrame
    pairs: pd.DataFrame
    f: float
    p: float
    degrees: tuple[int, int]

    def against(self, group: str, other: str) -> float:
        """The corrected p-value of a pair; not a number for a group and itself."""
        pair = self.pairs[self.pairs[["first", "second"]].apply(lambda row: set(row) == {group, other}, axis=1)]
        return float(pair["p_holm"].iloc[0]) if len(pair) else float("nan")


def stability(values: pd.DataFrame, *, paired: bool) -> Stability | None:
    """Compare the deviations of groups over repeats; None where fewer than two groups have enough for a test.

    The deviation is that of the logarithm, so of the value in proportion: the sample deviation (ddof = 1) in each
    block, as the root of the mean square over blocks. Its interval is a BCa bootstrap over the residuals, somewhat
    narrow where they are few (in simulations with 15, it held the true value in 86 of 100 cases).

    Where repeats are paired, as by a seed that draws the same initialisation in every group, what is tested is ``own``:
    the mean of the repeat over the groups in the block is taken off first. What the groups have in common would hide
    any difference (in simulations where it was as large as their own deviation, a group of 0.4 times the others' was
    found in 5 of 100 cases without, and in 18 with). Of two groups nothing is left then, so they are taken as they are.

    The test is that of Brown and Forsythe: an analysis of variance of the distances to the median of the group in the
    block, of which the smallest is left out, since it is 0 by construction where n is odd, and the test else rejects
    far too seldom (Hines and Hines 1996). Distances are divided by their mean over all groups in the block, so that
    each block weighs the same.

    Args:
        values: columns ``group``, ``block`` (what is compared only with itself, such as a number of training cells),
            ``repeat`` and ``value``, above 0. Blocks in which a group has one repeat tell nothing of it.
        paired: the same repeat of different groups has something in common.
    """
    table, paired = values.assign(log=np.log(values["value"])), paired and values["group"].nunique() > 2
    cell = ["group", "block"]  # the repeats of a group in a block
    table = table[table.groupby(cell)["log"].transform("count") > 1]
    repeats, num_groups = (
        table.groupby(["block", "repeat"])["log"],
        table.groupby("block")["group"].transform("nunique"),
    )
    table["own"] = table["log"] - repeats.transform("mean") if paired else table["log"]
    lost = {"log": 1.0, "own": ((num_groups - 1) / num_groups) ** 0.5 if paired else 1.0}
    cells = table.groupby(cell, sort=False)
    n = cells["log"].transform("count")
    for name, part in lost.items():
        table[f"residual_{name}"] = (table[name] - cells[name].transform("mean")) * np.sqrt(n / (n - 1)) / part
    table["distance"] = (table["own"] - cells["own"].transform("median")).abs()
    place = table.groupby(cell)["distance"].rank(method="first")
    mean = table["distance"].where(place > 1).groupby(table["block"]).transform("mean")
    table = table.assign(standardised=(table["distance"] / mean).where(place > 1))[mean > SAME]
    names = list(dict.fromkeys(table["group"]))
    by_group = {name: table[table["group"] == name] for name in names}
    distances = {name: part["standardised"].dropna().to_numpy() for name, part in by_group.items()}
    if len(names) < 2 or min(map(len, distances.values())) < 2:
        return None
    groups = pd.DataFrame(
        {
            name: {
                "n": len(part),
                **_interval("deviation", part["residual_log"].abs()),
                **_interval("own", part["residual_own"].abs()),
            }
            for name, part in by_group.items()
        }
    ).T
    test = stats.f_oneway(*distances.values())
    pairs = pd.DataFrame(
        [(a, b, stats.f_oneway(distances[a], distances[b]).pvalue) for a, b in combinations(names, 2)],
        columns=["first", "second", "p"],
    )
    pairs["p_holm"] = holm(pairs["p"].tolist())
    degrees = len(names) - 1, sum(map(len, distances.values())) - len(names)
    return Stability(groups, pairs, float(test.statistic), float(test.pvalue), degrees)


@dataclass(frozen=True)
class Comparison:
    """How the values of several groups differ from those of one of them, the reference, and from those of the best.

    Args:
        groups: a row a group: ``n`` (pairs), ``difference`` (the mean over pairs of its value minus the reference's)
            with ``_low`` and ``_high``, its interval; ``effect`` (in [-1, 1], see :func:`compare`), ``p`` and
            ``p_holm``, against the reference; ``mean_rank`` (1 is best) and ``p_best`` (corrected), against the best.
        blocks: a row a group and block: ``n``, ``difference``, ``difference_low`` and ``difference_high`` in it.
        best: the group with the lowest mean rank.
        friedman, p, degrees: Friedman's test of all groups at once, not a number where it is none.
        complete: its blocks, each a repeat in a block of which every group has a value.
    """

    groups: pd.DataFrame
    blocks: pd.DataFrame
    reference: str
    best: str
    friedman: float
    p: float
    degrees: int
    complete: int

    @property
    def is_like_best(self) -> pd.Series:
        """By group: it is the best, or not distinguishable from it."""
        return ~(self.groups["p_best"] < 1 - LEVEL)  # of the best itself there is none


def compare(values: pd.DataFrame, reference: str, *, higher_is_better: bool) -> Comparison | None:
    """Compare groups pair by pair; None where no other group has a pair with the reference, or ranks.

    A pair is the same repeat in the same block. The interval of a mean difference is a BCa bootstrap over pairs, rough
    where these are few. The test is Wilcoxon's signed-rank test with its exact distribution under all changes of sign
    (up to 15 pairs; else under 32,768 random ones), two-sided, over the pairs of all blocks: of five pairs alone no
    p-value is below 1/16. So it takes the pairs of a repeat in several blocks as independent. A rank, and not the
    difference itself, since a repeat that went astray would outweigh all others. The effect is the matched-pairs
    rank-biserial correlation: the share of the ranks' sum in favour of the group minus that in favour of the reference,
    so above 0 where the group's values are higher. A difference of 0 has a rank and no sign (Pratt).

    p-values are corrected by Holm over all groups but the one they are compared with. That the best is chosen by the
    same values makes it look somewhat better than it is.

    Args:
        values: columns ``group``, ``block`` (such as a task), ``repeat`` (such as a seed) and ``value``.
    """
    wide = values.pivot_table(index=["block", "repeat"], columns="group", values="value", sort=False)
    wide = wide[list(dict.fromkeys(values["group"]))]
    complete = wide.dropna()
    if reference not in wide or len(wide.columns) < 2 or complete.empty:
        return None
    differences = wide.sub(wide[reference], axis=0)
    groups = pd.DataFrame({name: _difference(own) for name, own in differences.items()}).T
    blocks = pd.DataFrame(
        {
            (name, block): _difference(own)
            for name, column in differences.items()
            for block, own in column.groupby(level="block", sort=False)
        }
    ).T
    ranks = complete.rank(axis=1, ascending=not higher_is_better)
    groups["mean_rank"] = ranks.mean()
    best = str(groups["mean_rank"].idxmin())
    tests = {other: {name: _signed_ranks(wide[name] - wide[other]) for name in wide} for other in (reference, best)}
    groups["effect"] = {name: effect for name, (effect, _) in tests[reference].items()}
    groups["p"] = {name: p for name, (_, p) in tests[reference].items()}
    groups["p_best"] = {name: p for name, (_, p) in tests[best].items()}
    for own, corrected, other in (("p", "p_holm", reference), ("p_best", "p_best", best)):
        others = groups.index[groups.index != other]
        groups[corrected] = pd.Series(holm(groups.loc[others, own].tolist()), others)
    friedman = p = float("nan")
    if len(wide.columns) > 2 and len(complete) > 1:
        friedman, p = stats.friedmanchisquare(*complete.to_numpy().T)
    return Comparison(groups, blocks, reference, best, float(friedman), float(p), len(wide.columns) - 1, len(complete))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's correction for as many tests as there are p-values: float ``[N]``, each at most 1, in the given order."""
    p = np.asarray(p_values, float)
    order = p.argsort()
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected[order.argsort()]


def _root_mean_square(values: np.ndarray | pd.Series, axis: int = -1) -> np.ndarray:
    return np.sqrt(np.mean(np.square(np.asarray(values)), axis=axis))


def _difference(own: pd.Series) -> dict[str, float]:
    """Of the pairs that there are, their number, and the mean difference with its interval."""
    own = own.dropna()
    return {"n": len(own), **_interval("difference", own, np.mean)}


def _signed_ranks(differences: pd.Series) -> tuple[float, float]:
    """The rank-biserial correlation, and the p-value of the signed-rank test, 1 for a single pair."""
    own = differences.dropna().to_numpy()
    signed = np.where(np.abs(own) > SAME, np.sign(own) * stats.rankdata(np.abs(own)), 0)
    effect = float(signed.sum() / max(np.abs(signed).sum(), 1))
    if len(signed) < 2:
        return effect, 1.0
    test = stats.permutation_test(
        (signed,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=SIGNS,
        rng=np.random.default_rng(0),
    )
    return effect, float(test.pvalue)


def _interval(
    name: str, values: pd.Series, statistic: Callable[..., np.ndarray] = _root_mean_square
) -> dict[str, float]:
    """A statistic of values, and its bootstrap interval; none where all values are the same."""
    value = float(statistic(values)) if len(values) else np.nan
    if len(values) < 2 or np.ptp(values) < SAME:
        return {name: value, f"{name}_low": np.nan, f"{name}_high": np.nan}
    bootstrap = stats.bootstrap(
        (values.to_numpy(),),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        rng=np.random.default_rng(0),
    )
    low, high = bootstrap.confidence_interval
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
