"""From the trials of a search to ``results/<study>.{csv,md,tex}``.

The CSV has a row a trial; the others the best trials, what became of all, which settings matter, and the Pareto front
of the objective against training time. All of it is of validation cells; what test cells say stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from study.markup import Block, latex, markdown
from study.proposals import DESCRIPTION, Proposals
from study.search_records import (
    COMPLETE,
    COST,
    CUT_OFF,
    EARLY,
    FAILED,
    SHOWN,
    complete,
    front,
    importance,
    recorded_searches,
    trials_table,
)
from study.space import Study
from study.tracking import Recorded

BEST = 10
STATES = (COMPLETE, EARLY, FAILED, CUT_OFF)

IMPORTANCE = (
    "the share of the objective's variance that a setting explains by itself, by a random forest (fANOVA, Hutter et "
    "al. 2014) on complete trials alone; the trials that were stopped early, the worse ones, are not in it"
)


def write_search(study: Study, proposals: Proposals, runs: Mapping[str, Recorded], *, command: str) -> list[Path]:
    """Write the table of a study's search, and of its others that it can be compared with.

    On predicted labels its files are ``<study>-surrogate*``.

    Args:
        proposals: of the search that was just run.
        runs: what is recorded of the study, by trial key.
        command: the one that writes this table.
    """
    planned, searches = proposals.planned, recorded_searches(study.name, proposals.study)
    table, directions = trials_table(searches, runs), planned.search.objectives
    objective = next(iter(directions))
    data = planned.base.config.data()
    head = {
        "labels": data.description,
        "command": command,
        "commit": ", ".join(sorted({runs[key].tags["git_commit"] for key in table["key"] if key in runs})),
    }
    folder = Path("results")
    folder.mkdir(exist_ok=True)
    name = f"{study.name}-surrogate" if data.is_predicted else study.name  # never in place of measured results
    files = [folder / f"{name}{suffix}" for suffix in (".csv", ".md", ".tex")]
    table.assign(**head).to_csv(files[0], index=False, float_format="%.6g")
    head["objectives"] = ", ".join(f"{direction} {metric}" for metric, direction in directions.items())
    head["searches"] = "; ".join(str(search.user_attrs[DESCRIPTION]) for search in searches)
    if data.caution:
        head["caution"] = data.caution
    ascending = directions[objective] == "minimize"
    best = complete(table, objective).drop_duplicates("key").sort_values(objective, ascending=ascending).head(BEST)
    fastest = front(table, objective, directions[objective])
    shares, n = importance(searches, table)
    rows = [[setting, f"{share:.3f}"] for setting, share in shares.items()]
    columns = list(dict.fromkeys([*directions, *SHOWN]))
    blocks = [
        _trials(f"The best {len(best)} trials by {objective}", best, columns),
        _counts(table),
        Block(f"Importance of the settings, by {n} complete trials", ["importance"], rows, corner="setting"),
        _trials(f"Pareto front of {objective} and {COST}", fastest, columns),
    ]
    blocks = [block for block in blocks if block.rows]
    files[1].write_text(markdown(study, blocks, head | {"importance": IMPORTANCE}))
    files[2].write_text(latex(study, blocks, head | {"importance": IMPORTANCE}))
    return files


def _trials(title: str, table: pd.DataFrame, columns: list[str]) -> Block:
    settings = [name for name in table.columns if "." in name]
    rows = [
        [f"{row['setting']} {row['trial']}", *(_figure(row[name]) for name in [*columns, *settings])]
        for _, row in table.iterrows()
    ]
    return Block(title, [*columns, *settings], rows, corner="trial")


def _counts(table: pd.DataFrame) -> Block:
    rows = []
    for setting, part in table.groupby("setting", sort=False):
        states = part["state"].value_counts()
        counts = [str(states.get(state, 0)) for state in STATES]
        rows.append([str(setting), part["sampler"].iloc[0], str(len(part)), *counts, f"{part['epochs'].sum():,}"])
    return Block("What became of the trials", ["sampler", "trials", *STATES, "epochs"], rows, corner="search")


def _figure(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
