"""Ray Tune and Optuna: the trials of a study, as many at once as there is room for.

Optuna is given the trials as enqueued points of one categorical parameter, Ray Tune executes them, and a callback on
the driver records what they report. A trial that fails, by an error or because its process died, is tried again from
its own checkpoint, with twice the share of a GPU if it ran out of that one's memory. Nothing is kept of Ray's own
state: what is finished and what was cut off is MLflow's to say.
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

from study.cluster import UNSHARED, Room
from study.console import describe, say
from study.space import Trial
from study.storage import Place
from study.trial import TrialConfig

if TYPE_CHECKING:  # a trial's process needs no MLflow
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
    jobs = {trial.key: _Job(trial.config, trial.place, room.device, room.outside) for trial in trials}
    for job in jobs.values():
        if job.place.url is None:
            job.place.directory.mkdir(parents=True, exist_ok=True)
    search = OptunaSearch(
        {"trial": CategoricalDistribution(list(jobs))},
        metric=SCORE,
        mode="min",
        points_to_evaluate=[{"trial": key} for key in jobs],
        sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: every point is given
    )
    storage = Path("runs", trials[0].study, ".tune").absolute()
    shutil.rmtree(storage, ignore_errors=True)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(_train, jobs=jobs), {"CPU": room.each.cpus, "GPU": room.each.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=len(jobs),
            max_concurrent_trials=min(len(jobs), room.at_once),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=trials[0].study,
            storage_path=str(storage),
            callbacks=[_Recorder(trials, tracker, room.device)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    ).fit()
    shutil.rmtree(storage)


@dataclass(frozen=True)
class _Job:
    """What a trial's process needs to know; ``outside`` as in :class:`~study.cluster.Room`."""

    config: TrialConfig
    place: Place
    device: str
    outside: float


def _train(config: dict[str, str], jobs: Mapping[str, _Job]) -> None:
    """One trial, in a process of its own on any machine of the cluster."""
    job, score = jobs[config["trial"]], math.nan
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
    """Records what trials report, and prints one line an event. Runs in the driver."""

    def __init__(self, trials: Sequence[Trial], tracker: Tracker, device: str) -> None:
        self._trials = {trial.key: trial for trial in trials}
        self._tracker, self._device = tracker, device
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
        metrics = self._final.pop(ours.key)
        try:
            self._tracker.finish(ours, metrics)
        except Exception as error:  # Tune takes it for the trial's
            self._failures[ours.key] = _failure_of(error)
            raise
        ours.place.remove()
        minutes = (time.monotonic() - self._begun[ours.key]) / 60
        say(ours, f"finished after {minutes:.1f} min, {ours.config.scores(metrics)}")

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
        say(ours, f"failed: {failure['error']}")

    def _failure(self, trial: Trial) -> dict[str, Any]:
        died = "its process died (killed, or out of memory)"
        return self._failures.get(trial.key, {"error": died, "traceback": died, "out_of_memory": False})
