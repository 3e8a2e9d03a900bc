"""From the trials of a search to ``results/<study>.{csv,md,tex}``.

The CSV has a row a trial; the others the best trials, what became of all, which settings matter, and the Pareto front
of the objective against training time. All of it is of validation cells; what test cells say stands beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator

from study.markup import Block, latex, markdown
from study.proposals import Proposals
from study.space import PlannedSearch, Study, plan_search
from study.tracking import Recorded

BEST = 10
COMPLETE, EARLY, FAILED, CUT_OFF = "complete", "stopped early", "failed", "cut off"
STATES = (COMPLETE, EARLY, FAILED, CUT_OFF)
SHOWN = ("test_kendall_tau", "test_rmse", "training_seconds", "parameters")
DIGITS = 4

IMPORTANCE = (
    "share of the variance of the objective that a setting alone explains, by a random forest (fANOVA, Hutter et al. "
    "2014) on the complete trials, which are those that halving let live; the rest is the settings' interplay"
)


def write_search(study: Study, planned: PlannedSearch, runs: Mapping[str, Recorded], *, command: str) -> list[Path]:
    """Write the table of a study's search, and of those with other settings on the same labels beside it.

    On predicted labels its files are ``<study>-surrogate*``.

    Args:
        planned: the search that was just run.
        runs: what is recorded of the study, by trial key.
        command: the one that writes this table.
    """
    searches = searches_to_show(study, planned, runs)
    table = trials_table(searches, runs)
    data = planned.base.config.data()
    head = {
        "labels": data.description,
        "command": command,
        "commit": ", ".join(sorted({runs[key].tags["git_commit"] for key in table["key"] if key in runs})),
    }
    folder = Path("results")
    folder.mkdir(exist_ok=True)
    name = f"{study.name}-surrogate" if data.is_predicted else study.name
    files = [folder / f"{name}{suffix}" for suffix in (".csv", ".md", ".tex")]
    table.assign(**head).to_csv(files[0], index=False, float_format="%.6g")
    directions = planned.search.objectives
    head["objectives"] = "; ".join(f"{direction} {objective}" for objective, direction in directions.items())
    head["trials"] = f"{'; '.join(map(_described, searches))}; the seed of each is {planned.base.config.seed}"
    if data.caution:
        head["caution"] = data.caution
    blocks = [_best(table, directions), _counts(table), _importance(table, searches), _front(table, directions)]
    blocks = [block for block in blocks if block.rows]
    files[1].write_text(markdown(study, blocks, head | {"importance": IMPORTANCE}))
    files[2].write_text(latex(study, blocks, head))
    return files


def searches_to_show(study: Study, planned: PlannedSearch, runs: Mapping[str, Recorded]) -> list[PlannedSearch]:
    """``planned``, and what else was searched for the same objectives on the same labels."""
    found = {planned.name: planned}
    for overrides in {"{}", *(run.tags["overrides"] for run in runs.values())}:
        try:
            other = plan_search(study, json.loads(overrides), planned.base.config.source)
        except ValueError:  # recorded before the study or the code changed
            continue
        if (
            other.base.config.stands_on_the_same_as(planned.base.config)
            and other.search.objectives == planned.search.objectives
            and Proposals(other, runs).drawn()
        ):
            found.setdefault(other.name, other)
    return sorted(found.values(), key=lambda search: (search.base.setting != study.setting, search.base.setting))


def trials_table(searches: Sequence[PlannedSearch], runs: Mapping[str, Recorded]) -> pd.DataFrame:
    """A row a trial: ``setting`` and ``sampler`` of its search, ``trial`` (its number), ``key``, ``state``, ``epochs``
    that it has trained, the settings that were searched and the final metrics that are shown."""
    rows: list[dict[str, Any]] = []
    for planned in searches:
        metrics = list(dict.fromkeys([*planned.search.objectives, *SHOWN]))
        for trial, drawn in Proposals(planned, runs).pairs():
            run = runs.get(trial.key)
            rows.append(
                {
                    "setting": planned.base.setting,
                    "sampler": planned.search.sampler,
                    "trial": trial.index,
                    "key": trial.key,
                    "state": _state(run),
                    "epochs": run.epoch if run is not None else 0,
                    **drawn.params,
                    **{name: math.nan if run is None else run.metrics.get(name, math.nan) for name in metrics},
                }
            )
    return pd.DataFrame(rows)


def front(table: pd.DataFrame, objective: str, direction: str, cost: str = "training_seconds") -> pd.DataFrame:
    """The complete trials to which no other is better in one and as good in the other, cheapest first."""
    complete = table[(table["state"] == COMPLETE) & table[objective].notna()]
    ascending = direction == "minimize"
    ordered = complete.sort_values([cost, objective], ascending=[True, ascending])
    sign = 1 if ascending else -1
    before = (sign * ordered[objective]).cummin().shift(fill_value=math.inf)
    return ordered[sign * ordered[objective] < before]


def importance(table: pd.DataFrame, searches: Sequence[PlannedSearch]) -> dict[str, float]:
    """By searched setting, largest first; empty where fewer than two complete trials have drawn from the same space."""
    planned = searches[0]
    [objective, *_] = planned.search.objectives
    same = [each for each in searches if each.search.domains == planned.search.domains]
    complete = optuna.create_study()
    for each in same:
        keys = set(table["key"][(table["state"] == COMPLETE) & table[objective].notna()])
        metrics = table.drop_duplicates("key").set_index("key")[objective]
        for trial, drawn in Proposals(each, {}).pairs():
            if trial.key in keys:
                keys.remove(trial.key)
                complete.add_trial(
                    optuna.trial.create_trial(
                        params=drawn.params, distributions=drawn.distributions, value=float(metrics[trial.key])
                    )
                )
    if len({trial.value for trial in complete.trials}) < 2:
        return {}
    shares = FanovaImportanceEvaluator(seed=0).evaluate(complete)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _state(run: Recorded | None) -> str:
    if run is None:
        return CUT_OFF
    if run.stopped_early:
        return EARLY
    return {"FINISHED": COMPLETE, "FAILED": FAILED}.get(run.status, CUT_OFF)


def _described(planned: PlannedSearch) -> str:
    search = planned.search
    halving = "no trial is stopped early"
    if search.halving is not None:
        halving = f"after {search.halving.grace} epochs, and times {search.halving.reduction}, the best of "
        halving += f"{search.halving.reduction} go on"
    return f"{planned.base.setting}: {search.sampler}, at most {planned.base.config.epochs} epochs, {halving}"


def _best(table: pd.DataFrame, directions: Mapping[str, str]) -> Block:
    [objective, *others] = directions
    complete = table[(table["state"] == COMPLETE) & table[objective].notna()]
    best = complete.sort_values(objective, ascending=directions[objective] == "minimize").head(BEST)
    columns = list(dict.fromkeys([objective, *others, *SHOWN]))
    rows = [
        [f"{row['setting']} {row['trial']}", *(_figure(row[name]) for name in columns), _settings(table, row)]
        for _, row in best.iterrows()
    ]
    return Block(f"The best {len(rows)} trials by {objective}", [*columns, "settings"], rows, corner="trial")


def _settings(table: pd.DataFrame, row: pd.Series) -> str:
    names = [name for name in table.columns if "." in name]
    return ", ".join(f"{name.rpartition('.')[2]} {_figure(row[name])}" for name in names if not pd.isna(row[name]))


def _counts(table: pd.DataFrame) -> Block:
    rows = []
    for setting, part in table.groupby("setting", sort=False):
        states = part["state"].value_counts()
        counts = [str(states.get(state, 0)) for state in STATES]
        rows.append([str(setting), part["sampler"].iloc[0], str(len(part)), *counts, f"{part['epochs'].sum():,}"])
    return Block("What became of the trials", ["sampler", "trials", *STATES, "epochs"], rows, corner="search")


def _importance(table: pd.DataFrame, searches: Sequence[PlannedSearch]) -> Block:
    rows = [[name, f"{share:.3f}"] for name, share in importance(table, searches).items()]
    n = (table["state"] == COMPLETE).sum()
    return Block(f"Importance of the settings, by {n} complete trials", ["importance"], rows, corner="setting")


def _front(table: pd.DataFrame, directions: Mapping[str, str]) -> Block:
    objective = next(iter(directions))
    columns = ["training_seconds", objective, "test_kendall_tau", "parameters"]
    rows = [
        [f"{row['setting']} {row['trial']}", *(_figure(row[name]) for name in columns), _settings(table, row)]
        for _, row in front(table, objective, directions[objective]).iterrows()
    ]
    return Block(f"Pareto front of {objective} against training time", [*columns, "settings"], rows, corner="trial")


def _figure(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{DIGITS}g}"
