"""Whether the rows of a table differ from one of them (``compare``), or in how much they deviate over repeats
(``stability``), where a study asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from study.markup import Block
from study.space import Study
from study.statistics import LEVEL, Comparison, Stability, compare, stability
from study.trial import OURS, PER_CENT, Measure, TrialConfig

HOW_COMPARED = (
    f"mean over the pairs of one seed and column of a row's value minus the reference's, with its {LEVEL:.0%} interval "
    "(BCa bootstrap over pairs; rough where these are five); effect: the matched-pairs rank-biserial correlation over "
    "all columns, from -1, the reference has the higher value in every pair, to 1; p: Wilcoxon's signed-rank test over "
    "the pairs of all columns, two-sided, exact up to 15 pairs, with Holm's correction over all rows; mean rank: over "
    "seeds and columns, 1 is best; against the best: p of the same test against the row with the best mean rank, "
    f"corrected likewise, and marked where the row is not distinguishable from it (p of {1 - LEVEL:.2g} or more)"
)
ALL = "all"  # columns together

HOW = (
    "sample deviation (ddof = 1) of the logarithm over repeats, root mean square over the columns, with its "
    f"{LEVEL:.0%} interval (BCa bootstrap); beyond the seed: the same without what a seed has in common in all rows "
    "(the initialisation; three rows and more); p: of a difference between two rows in that, by the test of Brown and "
    "Forsythe on distances to the median, each column weighing the same, with Holm's correction over all pairs"
)


def compare_rows(
    study: Study, kind: type[TrialConfig], scores: pd.DataFrame
) -> tuple[pd.DataFrame, list[Block], dict[str, str]]:
    """For each setting the rows of the table against the study's reference, in the study's measure.

    A trial in which it is not a number counts as the measure says (``undefined``), in every row alike: to leave it out
    would favour the rows that have more of them.

    Args:
        scores: as of :func:`compare_stability`, with the kind's ``COSTS``.

    Returns:
        A row a setting, row and column of the table, and of all columns together; the same as blocks; and what a reader
        must be told, by title.
    """
    assert study.compare is not None
    name, reference = study.compare.measure, study.compare.reference
    measure, ours = kind.MEASURES[name], scores[scores["method"] == OURS]
    values = to_compare(study, measure, ours["configuration"], ours["seed"], ours[name])
    values = pd.concat([values, ours[["setting", *kind.COSTS]].set_axis(values.index)], axis=1)
    tables, blocks, tests = [], [], []
    for setting, part in values.groupby("setting", sort=False):
        result = compare(part, reference, higher_is_better=measure.higher_is_better)
        if result is None:
            continue
        of = OURS if setting == study.setting else f"{OURS}, {setting}"
        costs = part.groupby("group").agg({"undefined": "sum"} | dict.fromkeys(kind.COSTS, "mean"))
        tables.append(_comparison_table(result, costs).assign(setting=str(setting), reference=reference))
        blocks.append(
            Block(f"{of}: {measure.title}, against {reference}", *_comparison_cells(result, measure, kind, costs))
        )
        if not math.isnan(result.p):
            tests.append(
                f"{of}: Friedman's chi2({result.degrees}) = {result.friedman:.1f}, p = {_p(result.p)}, "
                f"over {result.complete} blocks of one seed and column that have all rows"
            )
    head = {"comparison": HOW_COMPARED} if blocks else {}
    if tests:
        head["do all rows rank alike?"] = "; ".join(tests)
    count = int(values["undefined"].sum())
    if blocks and count:
        head["comparison counts"] = (
            f"{count} of {len(values)} trials, in which the {measure.title} is not defined (the column undefined), as "
            f"{measure.undefined:g}"
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), blocks, head


def to_compare(
    study: Study, measure: Measure, configurations: Iterable[str], seeds: Iterable[int], values: Iterable[float]
) -> pd.DataFrame:
    """For :func:`~study.statistics.compare`, a row a trial: ``group``, ``block``, ``repeat``, ``value``, and whether it
    is ``undefined`` and stands in for one that is not a number."""
    places = [study.expanded[name].compared for name in configurations]
    value = pd.Series(list(values), dtype=float)
    return pd.DataFrame(
        {
            "group": [row for row, _ in places],
            "block": [column for _, column in places],
            "repeat": list(seeds),
            "value": value.fillna(measure.undefined),
            "undefined": value.isna(),
        }
    )


def _comparison_table(result: Comparison, costs: pd.DataFrame) -> pd.DataFrame:
    whole = result.groups.assign(like_best=result.is_like_best).join(costs).rename_axis("row").reset_index()
    parts = result.blocks.rename_axis(["row", "column"]).reset_index()
    parts = parts[parts["column"] != ""]
    return pd.concat([whole.assign(column=ALL), parts], ignore_index=True)


def _comparison_cells(
    result: Comparison, measure: Measure, kind: type[TrialConfig], costs: pd.DataFrame
) -> tuple[list[str], list[list[str]]]:
    columns = [name for name in dict.fromkeys(result.blocks.index.get_level_values(1)) if name]
    groups, blocks, costs_of = (table.to_dict("index") for table in (result.groups, result.blocks, costs))
    like_best, rows = result.is_like_best, []
    for name, group in groups.items():
        against_reference = [
            *(_difference(part, measure) for part in (*(blocks[name, column] for column in columns), group)),
            f"{group['effect']:+.2f}",
            _p(group["p_holm"]),
        ]
        best = "the best" if name == result.best else _p(group["p_best"])
        rows.append(
            [
                str(name),
                *(["-"] * len(against_reference) if name == result.reference else against_reference),
                f"{group['mean_rank']:.1f}",
                best if name == result.best or not like_best[str(name)] else f"{best}, not distinguishable",
                f"{costs_of[name]['undefined']:.0f}",
                *("-" if math.isnan(cost) else f"{cost:,.0f}" for cost in (costs_of[name][c] for c in kind.COSTS)),
            ]
        )
    tests = [ALL, "effect", "p", "mean rank", "against the best", "undefined"]
    return [*columns, *tests, *kind.COSTS.values()], rows


def _difference(part: Mapping[Any, float], measure: Measure) -> str:
    """``+0.0123 (-0.0010 to +0.0256)``, of shares in points."""
    low, value, high = (part[name] for name in ("difference_low", "difference", "difference_high"))
    factor, digits = (100, 2) if measure.unit == PER_CENT else (1, 4)
    shown = [f"{factor * figure:+.{digits}f}" for figure in (value, low, high)]
    return "-" if math.isnan(value) else shown[0] if math.isnan(low) else f"{shown[0]} ({shown[1]} to {shown[2]})"


def compare_stability(
    study: Study, kind: type[TrialConfig], scores: pd.DataFrame
) -> tuple[pd.DataFrame, list[Block], dict[str, str]]:
    """For each method and setting the stability of the study's measure, row by row.

    A trial of which a measure is not a number, since it predicts the same for every cell, is left out: it would say how
    often a training fails, which is up to the initialisation, and that is the same in every row.

    Args:
        scores: one row a finished trial and method: ``trial``, ``method``, ``setting``, ``configuration``, ``seed``
            and the measures.

    Returns:
        A row a method, setting and row of the table; the same as blocks; and what a reader must be told, by title.
    """
    measure = str(study.stability)
    title = kind.MEASURES[measure].title
    has = scores.groupby("method")[list(kind.MEASURES)].transform("count") > 0  # a baseline has not every measure
    complete = scores[(scores[list(kind.MEASURES)].notna() | ~has).all(axis=1)]
    values = pd.DataFrame(
        {
            "method": complete["method"],
            "setting": complete["setting"],
            "group": [study.expanded[name].row for name in complete["configuration"]],
            "repeat": complete["seed"],
            "block": [study.expanded[name].column for name in complete["configuration"]],
            "value": complete[measure],
        }
    )
    tables, blocks, tests = [], [], []
    for (method, setting), part in values.groupby(["method", "setting"], sort=False):
        result = stability(part, paired=method == OURS)
        if result is None:
            continue
        of = str(method) if setting == study.setting else f"{method}, {setting}"
        tables.append(_table(result).assign(method=str(method), setting=str(setting), f=result.f, p=result.p))
        blocks.append(Block(f"Stability of {of}: deviation of the {title} over repeats", *_cells(result)))
        between, within = result.degrees
        tests.append(f"{of}: F({between}, {within}) = {result.f:.2f}, p = {_p(result.p)}")
    left_out = sorted(
        set(scores["trial"][scores["method"] == OURS]) - set(complete["trial"][complete["method"] == OURS])
    )
    head = {"stability": HOW, "do all rows deviate alike?": "; ".join(tests)} if tests else {}
    if tests and left_out:
        head["stability leaves out"] = f"{len(left_out)} trials with constant predictions"
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), blocks, head


def _table(result: Stability) -> pd.DataFrame:
    table = result.groups.rename_axis("row").reset_index()
    for other in result.groups.index:
        table[f"p_against_{other}"] = [result.against(row, other) for row in table["row"]]
    return table


def _cells(result: Stability) -> tuple[list[str], list[list[str]]]:
    columns = ["n", "deviation", "beyond the seed", *(f"p against {other}" for other in result.groups.index)]
    rows = [
        [
            str(name),
            f"{group['n']:.0f}",
            f"{group['deviation']:.1%} ({group['deviation_low']:.1%} to {group['deviation_high']:.1%})",
            f"{group['own']:.1%} ({group['own_low']:.1%} to {group['own_high']:.1%})",
            *(_p(result.against(str(name), other)) for other in result.groups.index),
        ]
        for name, group in result.groups.iterrows()
    ]
    return columns, rows


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"
