"""Ray Tune and Optuna: the trials of a study, as many at once as there is room for.

Optuna is given the trials as enqueued points of one categorical parameter, Ray Tune executes them, and a callback on
the driver records what they report. A trial that fails, by an error or because its process died, is tried again from
its own checkpoint. Nothing is kept of Ray's own state: what is finished and what was cut off is MLflow's to say.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import study
import vsgae
from study.console import describe, say
from study.space import Resources, Trial
from study.stopping import stoppable
from study.storage import VARIABLE, Place
from study.trial import TrialConfig

if TYPE_CHECKING:  # a trial's process needs no MLflow
    from study.tracking import Tracker

SCORE = "score"  # what Tune and Optuna are told of an epoch: the trial's CURVE
RETRIES = 2
UNSHARED = f"{VARIABLE} must name a path that all machines of the cluster share, or a URL such as s3://bucket/folder"
PROGRESS_SECONDS = 60.0


@dataclass(frozen=True)
class Room:
    """What each trial gets of the running Ray, and how many trials to ask for at once."""

    each: Resources
    at_once: int
    device: str


@contextmanager
def running_ray(address: str | None, resources: Resources, gpus_per_trial: float | None) -> Iterator[Room]:
    """Start Ray on this machine for as long as the context lasts, or join the cluster at ``address``.

    Args:
        resources: the study's.
        gpus_per_trial: in place of its figure.

    Raises:
        ValueError: there is no cluster at ``address``, or no room for a trial on this machine.
    """
    _silence()
    try:
        if address not in (None, "auto"):
            _reach(address)
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            # a trial's process imports this very code, wherever it is
            runtime_env={"py_modules": [str(Path(str(package.__file__)).parent) for package in (study, vsgae)]},
        )
    except OSError as error:
        raise ValueError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from None
    try:
        there = ray.cluster_resources()
        num_cpus, num_gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
        each = resources.where(num_gpus, gpus_per_trial)
        at_once = each.trials_at_once(num_cpus, num_gpus)
        if address is None and at_once == 0:
            raise ValueError(
                f"a trial needs {each.cpus:g} CPU and {each.gpus:g} GPU; here are {num_cpus:g} CPU and {num_gpus:g} GPU"
            )
        with stoppable():  # again: Ray takes SIGTERM for itself
            # a cluster that grows with demand has to see all of it
            yield Room(each, at_once if address is None else sys.maxsize, "cuda" if each.gpus else "cpu")
    finally:
        ray.shutdown()


def check_shared(place: Place) -> None:
    """Raise ValueError if a machine of the running Ray does not see a trial's directory. One that joins later finds out
    itself."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if place.url is not None or not others:
        return
    place.directory.mkdir(parents=True, exist_ok=True)
    sees = ray.remote(num_cpus=0)(os.path.isdir)
    there = [
        sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            str(place.directory)
        )
        for node in others
    ]
    unshared = [node["NodeManagerHostname"] for node, shared in zip(others, ray.get(there), strict=True) if not shared]
    if unshared:
        raise ValueError(f"{place.directory} is not there on {', '.join(sorted(set(unshared)))}; {UNSHARED}")


def run_trials(trials: Sequence[Trial], tracker: Tracker, room: Room) -> None:
    """Run ``trials`` to their end, failures included, and record them."""
    import optuna  # not at the top, since a trial's process needs none of it
    from optuna.distributions import CategoricalDistribution
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")  # of a retried trial
    jobs = {trial.key: _Job(trial.config, trial.place, room.device, room.each.gpus) for trial in trials}
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
        tune.with_resources(tune.with_parameters(_train, jobs=jobs), {"cpu": room.each.cpus, "gpu": room.each.gpus}),
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
    """What a trial's process needs to know."""

    config: TrialConfig
    place: Place
    device: str
    gpus: float


def _train(config: dict[str, str], jobs: Mapping[str, _Job]) -> None:
    """One trial, in a process of its own on any machine of the cluster."""
    job, score = jobs[config["trial"]], math.nan
    try:
        if job.place.url is None and not job.place.directory.is_dir():
            raise FileNotFoundError(f"{job.place.directory} is not there on {os.uname().nodename}; {UNSHARED}")
        if 0 < job.gpus < 1:  # a fraction of a GPU is a promise to the other trials on it
            import torch

            torch.cuda.set_per_process_memory_fraction(job.gpus)
        for metrics in job.place.run(job.config, job.device):
            score = metrics.get(job.config.CURVE, score)
            tune.report({SCORE: score, "record": metrics})
    except Exception as error:
        failure = {"error": describe(error), "traceback": traceback.format_exc()}
        tune.report({SCORE: score, "failure": failure})
        raise


class _Recorder(tune.Callback):
    """Records what trials report, and prints one line an event. Runs in the driver."""

    def __init__(self, trials: Sequence[Trial], tracker: Tracker, device: str) -> None:
        self._trials = {trial.key: trial for trial in trials}
        self._tracker, self._device = tracker, device
        self._failures: dict[str, dict[str, str]] = {}
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
        self._tracker.finish(ours, metrics)
        ours.place.remove()
        minutes = (time.monotonic() - self._begun[ours.key]) / 60
        say(ours, f"finished after {minutes:.1f} min, {ours.config.scores(metrics)}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        say(ours, f"{self._failure(ours)['error']}; it is tried again")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._trials[trial.config["trial"]]
        failure = self._failure(ours)
        self._tracker.fail(ours, failure["error"], failure["traceback"])
        say(ours, f"failed: {failure['error']}")

    def _failure(self, trial: Trial) -> dict[str, str]:
        died = "its process died (killed, or out of memory)"
        return self._failures.get(trial.key, {"error": died, "traceback": died})


def _reach(address: str) -> None:
    """Knock at a cluster's door, since Ray waits there for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdecimal():
        raise ValueError(f"address is {address!r}; it must be 'auto' or host:port")
    socket.create_connection((host, int(port)), timeout=20).close()


def _silence() -> None:
    """One line an event is ours; Ray's own tables, logs and result files are not wanted. Set by the user, they stay."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the study at once; it can go on later
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
