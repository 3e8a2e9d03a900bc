"""The trials of a search, drawn by Optuna's samplers and kept in ``optuna.db`` of the working directory.

A trial that was drawn is RUNNING in Optuna's storage until it is told what came of it, so a driver may be killed at any
moment. What a trial did is MLflow's to say, as of every other: the next command goes on with what was cut off, and
tells what was recorded but not told any more.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from study.search import Range, Search, as_choice
from study.settings import flatten
from study.space import PlannedSearch, Trial
from study.stopping import uninterrupted
from study.tracking import Recorded

DATABASE = "optuna.db"
STUDY, SETTING, SAMPLER, OBJECTIVES, LABELS, DESCRIPTION = (
    "study",
    "setting",
    "sampler",
    "objectives",
    "label_digest",
    "description",
)  # of a search
TRIAL_KEY = "trial_key"  # what the dashboard shows of the trial's MLflow run
STOPPED_EARLY = "stopped_early"  # the epoch after which halving ends a trial
IN_A_ROW = 1000  # trials over a limit, until it is given up to find one within

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Proposals:
    """The trials that a search has drawn, and those that are to come. Before one is drawn, it creates nothing.

    Args:
        runs: what is recorded of the study, by trial key.
        more: trials beside those that are there, in place of the search's number of trials.

    Attributes:
        failed: how many trials have failed since.
        problem: why no more trials are drawn, if for another reason than that there are enough; or empty.
    """

    def __init__(self, planned: PlannedSearch, runs: Mapping[str, Recorded], more: int | None = None) -> None:
        self.planned, self.failed, self.problem = planned, 0, ""
        self._open: dict[str, optuna.Trial] = {}
        self._finished = {key: run.metrics for key, run in runs.items() if run.finished}
        halves = planned.search.halving is not None  # else it trains to the end what another search has stopped
        self._stopped = {key for key, run in runs.items() if run.stopped_early and halves}
        drawn = self.drawn()
        self._cut_off = [trial.number for trial in drawn if trial.state == TrialState.RUNNING]
        there = len(self._cut_off) + sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in drawn)
        self._to_draw = max(0, planned.search.trials - there) if more is None else more

    @property
    def left(self) -> int:
        """How many trials are to run: those that were cut off, and those that are to be drawn."""
        return len(self._cut_off) + self._to_draw

    def drawn(self) -> list[FrozenTrial]:
        """As Optuna has them, but for those over a limit."""
        if not Path(DATABASE).exists() or self.planned.name not in optuna.get_all_study_names(_storage()):
            return []
        return list(filter(is_within_limits, self._trials()))

    def trials(self) -> list[Trial]:
        """Those that were drawn to the end."""
        return [self.planned.trial(each.number, each.params) for each in self.drawn() if TRIAL_KEY in each.user_attrs]

    def propose(self) -> Trial | None:
        """The next trial to run: one that was cut off, or else a new one. None if there is none left; or if it is the
        same as one that is running, for as long as that does.
        """
        over_a_limit = 0
        while self.left:
            if not self._cut_off:
                self._cut_off.append(self._ask())
                self._to_draw -= 1
            trial, drawn = self._resume(self._cut_off[0])
            if trial.key in self._open:
                return None
            del self._cut_off[0]
            self._open[trial.key] = drawn
            if self._is_over_a_limit(trial):
                self._to_draw += 1
                over_a_limit += 1
                if over_a_limit == IN_A_ROW:
                    self.problem = f"{IN_A_ROW} trials in a row were over a limit of search.constraints"
                    self._to_draw = 0
            elif trial.key in self._finished:
                self._report_again(trial)
                self.finish(trial, self._finished[trial.key])
            elif trial.key in self._stopped:
                self._report_again(trial)
                self.stop_early(trial)
            else:
                return trial
        return None

    def report(self, trial: Trial, metrics: Mapping[str, float]) -> bool:
        """Tell an epoch, as often as it comes; whether the trial is to end with it."""
        drawn, epoch, curve = self._open[trial.key], int(metrics["epoch"]), self.planned.search.curve
        if curve is None or epoch >= trial.config.epochs:
            return False
        with uninterrupted():
            known = self._trials()[drawn.number]
            if STOPPED_EARLY not in known.user_attrs and epoch > (known.last_step or 0):
                drawn.report(metrics[curve], epoch)
                if drawn.should_prune():
                    drawn.set_user_attr(STOPPED_EARLY, epoch)
                    return True
            return bool(epoch >= known.user_attrs.get(STOPPED_EARLY, math.inf))

    def finish(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """Tell the final metrics. Where an objective is not a number, the trial is told as one that was not worth
        finishing, which a sampler learns from."""
        self._finished[trial.key] = dict(metrics)
        values = [metrics[name] for name in self.planned.search.objectives]
        if any(map(math.isnan, values)):
            self._tell(trial, state=TrialState.PRUNED)
        else:
            self._tell(trial, values=values)

    def stop_early(self, trial: Trial) -> None:
        self._stopped.add(trial.key)
        self._tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial) -> None:
        """The next command draws another in its place."""
        self.failed += 1
        self._tell(trial, state=TrialState.FAIL)

    def _tell(self, trial: Trial, **what: Any) -> None:
        with uninterrupted():
            self.study.tell(self._open.pop(trial.key), **what)

    def _ask(self) -> int:
        """The number of a new trial."""
        with uninterrupted():
            return self.study.ask().number

    def _resume(self, number: int) -> tuple[Trial, optuna.Trial]:
        """A trial that was drawn, perhaps not to the end."""
        defaults, values = flatten(dataclasses.asdict(self.planned.base.config)), {}
        with uninterrupted():
            self.study.sampler = _sampler(self.planned.search, number)
            drawn = optuna.Trial(self.study, self._trials()[number]._trial_id)
            for name, domain in self.planned.search.domains.items():
                if not isinstance(domain, Range):
                    values[name] = drawn.suggest_categorical(name, list(map(as_choice, domain)))
                elif isinstance(defaults[name], int):
                    values[name] = drawn.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
                else:
                    values[name] = drawn.suggest_float(name, domain.low, domain.high, log=domain.log)
            trial = self.planned.trial(number, values)
            drawn.set_user_attr(TRIAL_KEY, trial.key)
        return trial, drawn

    def _report_again(self, trial: Trial) -> None:
        """The epochs of a trial that was run before, by this search or another, so that halving compares with them."""
        drawn = self._open[trial.key]
        curves = [
            other.intermediate_values
            for search in stored()
            if search.user_attrs[OBJECTIVES] == self.planned.search.objectives
            for other in search.get_trials(deepcopy=False)
            if other.user_attrs.get(TRIAL_KEY) == trial.key
        ]
        known = self._trials()[drawn.number].last_step or 0
        with uninterrupted():
            for epoch, value in max(curves, key=len, default={}).items():
                if epoch > known:
                    drawn.report(value, epoch)
                    drawn.should_prune()

    def _is_over_a_limit(self, trial: Trial) -> bool:
        """Then that is told, and the trial is over."""
        over = {
            name: trial.config.parameters() - limit.at_most for name, limit in self.planned.search.constraints.items()
        }
        if all(value <= 0 for value in over.values()):
            return False
        with uninterrupted():
            for name, value in over.items():
                self._open[trial.key].set_constraint(name, value)
            self._tell(trial, state=TrialState.PRUNED)
        return True

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's, made if it is not there."""
        planned, halving = self.planned, self.planned.search.halving
        with uninterrupted():
            study = optuna.create_study(
                storage=_storage(),
                study_name=planned.name,
                directions=list(planned.search.objectives.values()),
                load_if_exists=True,
                pruner=optuna.pruners.NopPruner()
                if halving is None
                else optuna.pruners.SuccessiveHalvingPruner(halving.grace, halving.reduction),
            )
            if DESCRIPTION not in study.user_attrs:
                study.set_user_attr(STUDY, planned.base.study)
                study.set_user_attr(SETTING, planned.base.setting)
                study.set_user_attr(SAMPLER, planned.search.sampler)
                study.set_user_attr(OBJECTIVES, planned.search.objectives)
                study.set_user_attr(LABELS, planned.base.data_digest)
                study.set_user_attr(DESCRIPTION, planned.description)  # the last: it says that the others are there
        return study


def stored() -> list[optuna.Study]:
    """All searches in this folder, the older ones first."""
    if not Path(DATABASE).exists():
        return []
    names = optuna.get_all_study_names(_storage())
    studies = [optuna.load_study(study_name=name, storage=_storage()) for name in names]
    return [study for study in studies if DESCRIPTION in study.user_attrs]


def is_within_limits(trial: FrozenTrial) -> bool:
    return all(over <= 0 for over in trial.constraints.values())


def _storage() -> optuna.storages.RDBStorage:
    patience = {"connect_args": {"timeout": 60}}  # seconds: the dashboard may be reading
    return optuna.storages.RDBStorage(f"sqlite:///{Path(DATABASE).absolute()}", engine_kwargs=patience)


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """For one trial. With a seed of its own, since one for all would draw the same again after an interruption."""
    seed = int(np.random.SeedSequence((search.seed, number)).generate_state(1)[0])
    match search.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)
