"""Ray Tune and Optuna: the trials of a study, as many at once as there is room for.

Optuna is given the trials of a list as enqueued points of one categorical parameter, or draws those of a search; Ray
Tune executes them, and a callback on the driver records what they report. A trial that fails, by an error or because
its process died, is tried again from its own checkpoint, with twice the share of a GPU if it ran out of that one's
memory. Nothing is kept of Ray's own state: what is finished and what was cut off is MLflow's to say.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.cluster import UNSHARED, Room
from study.console import describe, say
from study.space import Trial
from study.storage import Place
from study.trial import TrialConfig

if TYPE_CHECKING:  # a trial's process needs no MLflow
    from study.proposals import Proposals
    from study.tracking import Tracker

SCORE = "score"  # what Tune and Optuna are told of an epoch: the trial's curve
RETRIES = 2
PROGRESS_SECONDS = 60.0


def run_trials(trials: Sequence[Trial], tracker: Tracker, room: Room) -> None:
    """Run ``trials`` to their end, failures included, and record them."""
    import optuna  # not at the top, since a trial's process needs none of it
    from optuna.distributions import CategoricalDistribution
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")  # of a retried trial
    jobs = {trial.key: _job(trial, room) for trial in trials}
    search = OptunaSearch(
        {"trial": CategoricalDistribution(list(jobs))},
        metric=SCORE,
        mode="min",
        points_to_evaluate=[{"trial": key} for key in jobs],
        sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: every point is given
    )
    recorder = _Recorder({trial.key: trial for trial in trials}, tracker, room.device)
    _fit(trials[0].study, search, FIFOScheduler(), jobs, recorder, room, len(jobs))


def run_search(proposals: Proposals, tracker: Tracker, room: Room) -> None:
    """Run the trials of a search that are left, failures included, record them, and tell Optuna."""
    search = _Search(proposals, room)
    recorder = _Recorder(search.trials, tracker, room.device, proposals)
    _fit(proposals.planned.base.study, search, _Halving(search.trials, proposals), {}, recorder, room, proposals.left)


def _fit(
    study: str,
    search: Searcher,
    scheduler: TrialScheduler,
    jobs: Mapping[str, _Job],
    recorder: _Recorder,
    room: Room,
    num_trials: int,
) -> None:
    storage = Path("runs", study, ".tune").absolute()
    shutil.rmtree(storage, ignore_errors=True)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(_train, jobs=jobs), {"CPU": room.each.cpus, "GPU": room.each.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=num_trials,
            max_concurrent_trials=min(num_trials, room.at_once),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=study,
            storage_path=str(storage),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    ).fit()
    shutil.rmtree(storage)


class _Search(Searcher):
    """The trials of a search as Tune asks for them. Runs in the driver, as :class:`_Halving`."""

    def __init__(self, proposals: Proposals, room: Room) -> None:
        super().__init__(metric=SCORE, mode="min")
        self.trials: dict[str, Trial] = {}
        self._proposals, self._room = proposals, room

    def suggest(self, trial_id: str) -> Any:
        trial = self._proposals.propose()
        if trial is None:
            return None if self._proposals.left else Searcher.FINISHED
        self.trials[trial.key] = trial
        return {"trial": trial.key, "job": _job(trial, self._room)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The recorder tells Optuna, once it is recorded."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing, as :class:`_Recorder`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from Optuna's storage and MLflow."""


class _Halving(FIFOScheduler):
    """Ends the trials that a search stops early."""

    def __init__(self, trials: Mapping[str, Trial], proposals: Proposals) -> None:
        super().__init__()
        self._trials, self._proposals = trials, proposals

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        metrics = {name.removeprefix("record/"): value for name, value in result.items() if name.startswith("record/")}
        stops = "epoch" in metrics and self._proposals.report(self._trials[trial.config["trial"]], metrics)
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE


@dataclass(frozen=True)
class _Job:
    """What a trial's process needs to know; ``outside`` as in :class:`~study.cluster.Room`."""

    config: TrialConfig
    place: Place
    device: str
    outside: float


def _job(trial: Trial, room: Room) -> _Job:
    if trial.place.url is None:
        trial.place.directory.mkdir(parents=True, exist_ok=True)
    return _Job(trial.config, trial.place, room.device, room.outside)


def _train(config: dict[str, Any], jobs: Mapping[str, _Job]) -> None:
    """One trial, in a process of its own on any machine of the cluster.

    Args:
        jobs: of all trials that were known beforehand; another brings its own.
    """
    job, score = config.get("job") or jobs[config["trial"]], math.nan
    try:
        if job.place.url is None and not job.place.directory.is_dir():
            raise FileNotFoundError(f"{job.place.directory} is not there on {os.uname().nodename}; {UNSHARED}")
        _keep_to_share(_gpus(tune.get_context().get_trial_resources()), job.outside)
        for metrics in job.place.run(job.config, job.device):
            score = metrics.get(job.config.curve, score)
            tune.report({SCORE: score, "record": metrics})
    except Exception as error:
        tune.report({SCORE: score, "failure": _failure_of(error)})
        raise


def _failure_of(error: Exception) -> dict[str, Any]:
    out_of_memory = isinstance(error, torch.OutOfMemoryError)
    return {"error": describe(error), "traceback": traceback.format_exc(), "out_of_memory": out_of_memory}


def _gpus(resources: tune.PlacementGroupFactory) -> float:
    return float(resources.required_resources.get("GPU", 0.0))


def _keep_to_share(gpus: float, outside: float) -> None:
    """A fraction of a GPU is a promise to the other trials on it."""
    if 0 < gpus < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(max(gpus - outside, 0.0))


class _Recorder(tune.Callback):
    """Records what trials report, and prints one line an event. Runs in the driver.

    Args:
        trials: by key; those of a search come to it one by one.
        proposals: of a search, which are told what came of them once that is recorded.
    """

    def __init__(
        self, trials: Mapping[str, Trial], tracker: Tracker, device: str, proposals: Proposals | None = None
    ) -> None:
        self._trials, self._tracker, self._device, self._proposals = trials, tracker, device, proposals
        self._failures: dict[str, dict[str, Any]] = {}
        self._final: dict[str, dict[str, float]] = {}
        self._begun: dict[str, float] = {}
        self._spoken: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to restore a run, which is not how a study goes on."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        self._failures.pop(ours.key, None)
        epoch = self._tracker.start(ours, device=self._device)
        self._begun[ours.key] = self._spoken[ours.key] = time.monotonic()
        say(ours, f"goes on after epoch {epoch}" if epoch else f"started on {self._device}")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        ours = self._trials[trial.config["trial"]]
        if "failure" in result:
            self._failures[ours.key] = result["failure"]
            return
        metrics = result["record"]
        if "epoch" not in metrics:
            self._final[ours.key] = metrics
        elif self._tracker.log_epoch(ours, metrics) and (time.monotonic() - self._spoken[ours.key] >= PROGRESS_SECONDS):
            self._spoken[ours.key] = time.monotonic()
            say(ours, ours.config.progress(metrics))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        metrics = self._final.pop(ours.key, None)
        try:
            if metrics is None:
                self._tracker.stop_early(ours)
            else:
                self._tracker.finish(ours, metrics)
            if self._proposals is not None:
                self._proposals.stop_early(ours) if metrics is None else self._proposals.finish(ours, metrics)
        except Exception as error:  # Tune takes it for the trial's
            self._failures[ours.key] = _failure_of(error)
            raise
        ours.place.remove()
        minutes = (time.monotonic() - self._begun[ours.key]) / 60
        event = "stopped early" if metrics is None else "finished"
        say(ours, f"{event} after {minutes:.1f} min{f', {ours.config.scores(metrics)}' if metrics else ''}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        failure, resources = self._failure(ours), trial.placement_group_factory
        again, gpus = "it is tried again", _gpus(resources)
        if failure["out_of_memory"] and 0 < gpus < 1:
            gpus = min(1.0, 2 * gpus)
            trial.update_resources({**resources.required_resources, "GPU": gpus})
            again += f" with {gpus:g} of a GPU"
        say(ours, f"{failure['error']}; {again}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        failure = self._failure(ours)
        if ours.key not in self._begun:  # its process could not even be started
            self._tracker.start(ours, device=self._device)
        self._tracker.fail(ours, failure["error"], failure["traceback"])
        if self._proposals is not None:
            self._proposals.fail(ours)
        say(ours, f"failed: {failure['error']}")

    def _failure(self, trial: Trial) -> dict[str, Any]:
        died = "its process died (killed, or out of memory)"
        return self._failures.get(trial.key, {"error": died, "traceback": died, "out_of_memory": False})
