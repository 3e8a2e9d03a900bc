"""Whether the rows of a table differ in how much they deviate over repeats, where a study asks (``stability``)."""

from __future__ import annotations

import math

import pandas as pd

from study.markup import Block
from study.space import Study
from study.statistics import LEVEL, Stability, stability
from study.trial import OURS, TrialConfig

HOW = (
    "sample deviation (ddof = 1) of the logarithm over repeats, root mean square over the columns, with its "
    f"{LEVEL:.0%} interval (BCa bootstrap); beyond the seed: the same without what a seed has in common in all rows "
    "(the initialisation; three rows and more); p: of a difference between two rows in that, by the test of Brown and "
    "Forsythe on distances to the median, each column weighing the same, with Holm's correction over all pairs"
)


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
