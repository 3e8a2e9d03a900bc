"""What is recorded of searches: each trial as Optuna drew it and as MLflow has it. Nothing is planned for it, and no
labels are needed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator

from study.proposals import LABELS, OBJECTIVES, SAMPLER, SETTING, STUDY, TRIAL_KEY, is_within_limits, stored
from study.tracking import Recorded

COMPLETE, EARLY, FAILED, CUT_OFF = "complete", "stopped early", "failed", "cut off"
SHOWN = ("test_kendall_tau", "test_rmse", "training_seconds", "parameters")
COST = "training_seconds"


def recorded_searches(study: str, like: optuna.Study | None = None) -> list[optuna.Study]:
    """The searches of a study with a trial that can be compared, see :func:`_in_common`; of those with the same setting
    the last, since its file was changed in between.

    Args:
        like: the search that they can be compared with; without it, the largest.
    """
    found = [each for each in stored() if each.user_attrs.get(STUDY) == study and each.get_trials(deepcopy=False)]
    if not found:
        return []
    like = like or max(found, key=lambda each: len(each.get_trials(deepcopy=False)))
    same = {each.user_attrs[SETTING]: each for each in found if _in_common(each) == _in_common(like)}
    same[like.user_attrs[SETTING]] = like
    return sorted(same.values(), key=lambda each: ("=" in each.user_attrs[SETTING], each.user_attrs[SETTING]))


def trials_table(searches: Sequence[optuna.Study], runs: Mapping[str, Recorded]) -> pd.DataFrame:
    """A row a trial: ``setting`` and ``sampler`` of its search, ``trial`` (its number), ``key``, ``state``, ``epochs``
    that it has trained, ``last`` (the objective after the last of them that halving looked at), the settings that were
    searched and the final metrics that are shown."""
    rows: list[dict[str, Any]] = []
    for search in searches:
        metrics = list(dict.fromkeys([*search.user_attrs[OBJECTIVES], *SHOWN]))
        for trial in search.get_trials(deepcopy=False):
            if TRIAL_KEY not in trial.user_attrs or not is_within_limits(trial):
                continue
            run = runs.get(trial.user_attrs[TRIAL_KEY])
            final = {} if run is None else run.metrics
            rows.append(
                {
                    "setting": search.user_attrs[SETTING],
                    "sampler": search.user_attrs[SAMPLER],
                    "trial": trial.number,
                    "key": trial.user_attrs[TRIAL_KEY],
                    "state": _state(run),
                    "epochs": run.epoch if run is not None else 0,
                    "last": math.nan if trial.last_step is None else trial.intermediate_values[trial.last_step],
                    **trial.params,
                    **{name: final.get(name, math.nan) for name in metrics},
                }
            )
    return pd.DataFrame(rows)


def complete(table: pd.DataFrame, objective: str) -> pd.DataFrame:
    """The trials that have a final value."""
    return table[(table["state"] == COMPLETE) & table[objective].notna()]


def front(table: pd.DataFrame, objective: str, direction: str) -> pd.DataFrame:
    """The complete trials to which no other is better in the objective or in training time and as good in the other,
    fastest first."""
    sign = 1 if direction == "minimize" else -1
    ordered = complete(table, objective).sort_values([COST, objective], ascending=[True, sign == 1])
    values = sign * ordered[objective]
    return ordered[values < values.cummin().shift(fill_value=math.inf)]


def importance(searches: Sequence[optuna.Study], table: pd.DataFrame) -> tuple[dict[str, float], int]:
    """By searched setting, largest first, how much of the first objective it explains; and by how many complete trials,
    which are those of searches of the same space as the first. Empty where fewer than two values differ."""
    objective = next(iter(searches[0].user_attrs[OBJECTIVES]))
    values = complete(table, objective).drop_duplicates("key").set_index("key")[objective].to_dict()
    drawn = [trial for search in searches for trial in search.get_trials(deepcopy=False)]
    space = next((trial.distributions for trial in drawn if TRIAL_KEY in trial.user_attrs), {})
    study, n = optuna.create_study(), 0
    for trial in drawn:
        if trial.distributions == space and (value := values.pop(trial.user_attrs.get(TRIAL_KEY), None)) is not None:
            study.add_trial(optuna.trial.create_trial(params=trial.params, distributions=space, value=float(value)))
            n += 1
    if len({trial.value for trial in study.trials}) < 2:
        return {}, n
    shares = FanovaImportanceEvaluator(seed=0).evaluate(study)
    return dict(sorted(shares.items(), key=lambda item: -item[1])), n


def _in_common(search: optuna.Study) -> tuple[Any, ...]:
    """What searches whose trials are compared have in common: the objectives, the labels, and what is set of every
    trial. They may differ in settings of ``search``."""
    changes = re.split(r" (?=[\w.]+=)", search.user_attrs[SETTING])
    of_trials = [change for change in changes if "=" in change and not change.startswith("search.")]
    return search.user_attrs[OBJECTIVES], search.user_attrs[LABELS], of_trials


def _state(run: Recorded | None) -> str:
    if run is None:
        return CUT_OFF
    if run.stopped_early:
        return EARLY
    return {"FINISHED": COMPLETE, "FAILED": FAILED}.get(run.status, CUT_OFF)
