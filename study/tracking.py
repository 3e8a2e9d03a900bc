"""MLflow: one trial, one run, found again by its ``trial_key`` tag.

Everything goes through ``MlflowClient`` and one writer, the process that drives the study; what is being written when
it is to stop is written whole. The store is the one that a bare ``mlflow ui`` in the working directory shows,
``sqlite:///mlflow.db``, or what ``MLFLOW_TRACKING_URI`` names.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from study.settings import flatten
from study.space import PROJECT, Trial
from study.stopping import NoAnswerError, uninterrupted

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every migration of a new database
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what is told in one line here

EPOCHS = "training.epochs"  # the parameter
EVERY_EPOCH = "train_loss"  # in every epoch's metrics; its last step is the last recorded epoch

STOPPED_EARLY = "stopped_early"  # the tag of a run that is over at that epoch, since others of its search do better

AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # what MLflow's client says of a server or database that is silent
PATIENCE = 600.0  # seconds that a trial's start or end waits for it
PAUSE = 15.0

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """What MLflow holds of a trial: its run, the run's status, the last recorded epoch, and how many it is to have."""

    run_id: str
    status: str
    epoch: int
    epochs: int
    metrics: dict[str, float]
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    experiment_id: str = ""

    @property
    def finished(self) -> bool:
        return self.status == "FINISHED"

    @property
    def stopped_early(self) -> bool:
        """A search had it end before its last epoch."""
        return STOPPED_EARLY in self.tags

    @property
    def state(self) -> str:
        """In words; a run that says RUNNING was left so by a driver that died, unless a driver is at work."""
        if self.stopped_early:
            return f"stopped early at epoch {self.tags[STOPPED_EARLY]}"
        if self.status == "FAILED":
            return f"failed: {self.tags.get('error', 'no error recorded')}"
        return "finished" if self.finished else f"cut off at epoch {self.epoch}"


class Tracker:
    """The runs of one study.

    Args:
        study: the name of the study and of the MLflow experiment.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self._database = Path("mlflow.db").absolute()
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._database}"
        self._open: dict[str, _OpenRun] = {}
        self._silent_until = 0.0  # by the monotonic clock: when to ask MLflow again; 0 while it answers

    @cached_property
    def _client(self) -> MlflowClient:  # made late, since it creates the database
        return MlflowClient(tracking_uri=self._uri)

    def runs(self) -> dict[str, Recorded]:
        """What is recorded of the study's trials, by trial key. Creates nothing."""
        return self._surely(
            lambda: {
                run.data.tags["trial_key"]: self._recorded(run) for run in self._search("tags.trial_key LIKE '%'")
            },
            patience=0,
        )

    def epochs(self, run: Recorded, metrics: Sequence[str]) -> pd.DataFrame:
        """What was recorded of each epoch, a row each with its number as index; NaN where a metric was not."""
        columns = {name: self._client.get_metric_history(run.run_id, name) for name in metrics}
        return pd.DataFrame({name: {point.step: point.value for point in history} for name, history in columns.items()})

    def model_files(self, run: Recorded) -> Path:
        """A folder with what a finished trial left."""
        return Path(self._client.download_artifacts(run.run_id, "model"))

    def start(self, trial: Trial, *, device: str) -> int:
        """Open the trial's run, the one it already has or a new one.

        Returns:
            The last epoch that the run already holds, 0 for a new one.

        Raises:
            NoAnswerError: as every other method, when MLflow has been silent for ``PATIENCE``.
        """
        tags = {
            "study": trial.study,
            "configuration": trial.configuration,
            "setting": trial.setting,
            "overrides": json.dumps(trial.overrides),
            "label_source": Path(trial.config.source or "none").name,
            "label_path": trial.config.source or "none",
            "labels": trial.config.data().description,
            "label_digest": trial.data_digest,
            "device": device,
            "git_commit": git_commit(),
            "mlflow.source.name": f"study.run {trial.study}",
            "mlflow.source.type": "LOCAL",
        }

        def write() -> _OpenRun:
            found = self._search(f"tags.trial_key = '{trial.key}'")
            if not found:
                run = self._client.create_run(
                    self._experiment_id(), run_name=trial.name, tags={"trial_key": trial.key, "attempt": "1", **tags}
                )
                run_id, epoch = run.info.run_id, 0
            else:
                recorded = self._recorded(found[0])
                run_id, epoch = recorded.run_id, recorded.epoch
                tags["attempt"] = str(int(recorded.tags["attempt"]) + 1)
                self._client.update_run(run_id, status="RUNNING")
                for name in {"error", STOPPED_EARLY} & recorded.tags.keys():  # no longer so
                    self._client.delete_tag(run_id, name)
            self._client.log_batch(
                run_id,
                params=[Param(name, str(value)) for name, value in flatten(trial.config.settings()).items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )
            return _OpenRun(run_id, epoch)

        run = self._surely(write)
        self._open[trial.key] = run
        return run.epoch

    def log_epoch(self, trial: Trial, metrics: Mapping[str, float]) -> bool:
        """Record an epoch, unless it already is: a trial that goes on yields its finished epochs again.

        While MLflow does not answer, epochs wait; they are written in order once it does.
        """
        run, epoch = self._open[trial.key], int(metrics["epoch"])
        if epoch <= run.epoch:
            return False
        run.waiting.append(_at_step({name: value for name, value in metrics.items() if name != "epoch"}, epoch))
        run.epoch = epoch
        if time.monotonic() >= self._silent_until:
            with suppress(NoAnswerError):
                self._surely(lambda: self._write_waiting(run), patience=0)
        return True

    def finish(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """Record the final scores and the model; FINISHED only when all of it is there."""
        run, directory = self._open[trial.key], trial.place.finished(trial.config)

        def write() -> None:
            self._write_waiting(run)
            if not metrics.keys() & self._client.get_run(run.run_id).data.metrics.keys():
                self._client.log_batch(run.run_id, metrics=_at_step(metrics, run.epoch))
            for name in trial.config.FILES:
                self._client.log_artifact(run.run_id, str(directory / name), "model")
            self._client.set_terminated(run.run_id, "FINISHED")

        self._surely(write)
        del self._open[trial.key]

    def stop_early(self, trial: Trial) -> None:
        """Close the run as KILLED, with the epoch at which its search had it end."""
        run = self._open[trial.key]

        def write() -> None:
            self._write_waiting(run)
            self._client.set_tag(run.run_id, STOPPED_EARLY, str(run.epoch))
            self._client.set_terminated(run.run_id, "KILLED")

        self._surely(write)
        del self._open[trial.key]

    def fail(self, trial: Trial, error: str, traceback: str) -> None:
        """Close the run as FAILED; the next run of the study opens it again."""
        run = self._open[trial.key]

        def write() -> None:
            self._write_waiting(run)
            self._client.set_tag(run.run_id, "error", error)
            self._client.log_text(run.run_id, traceback, "error/traceback.txt")
            self._client.set_terminated(run.run_id, "FAILED")

        self._surely(write)
        del self._open[trial.key]

    def interrupt(self) -> None:
        """Close what is open as KILLED, if MLflow answers; the next run of the study goes on with it in any case."""

        def write() -> None:
            for run in self._open.values():
                self._write_waiting(run)
                self._client.set_terminated(run.run_id, "KILLED")

        if self._open:
            with suppress(NoAnswerError):
                self._surely(write, patience=0)
            self._open.clear()

    def attach(self, run_ids: list[str], files: list[Path], folder: str) -> None:
        """Log ``files`` as artifacts of each of the runs."""

        def write() -> None:
            for run_id in run_ids:
                for file in files:
                    self._client.log_artifact(run_id, str(file), folder)

        self._surely(write)

    def _surely(self, write: Callable[[], T], patience: float = PATIENCE) -> T:
        """Do what may be done twice, again and again until MLflow answers; each try is uninterrupted.

        Raises:
            NoAnswerError: it has not, for ``patience`` seconds.
        """
        until = time.monotonic() + patience
        while True:
            try:
                with uninterrupted():
                    result = write()
            except (MlflowException, OSError) as error:
                if not _may_pass(error):
                    raise
                message = f"MLflow at {self._uri} does not answer: {' '.join(str(error).split())[:300]}"
                if self._open and not self._silent_until:
                    print(f"{message}; what it misses is kept for later", file=sys.stderr)
                self._silent_until = time.monotonic() + PAUSE
                if self._silent_until > until:
                    raise NoAnswerError(message) from error
                time.sleep(PAUSE)
            else:
                if self._silent_until:
                    print("MLflow answers again", file=sys.stderr)
                self._silent_until = 0.0
                return result

    def _write_waiting(self, run: _OpenRun) -> None:
        """One transaction an epoch, so that it is recorded whole or not at all."""
        if run.is_unsure:  # whether the last one arrived
            last = self._last_epoch(run.run_id)
            run.waiting = [epoch for epoch in run.waiting if epoch[0].step > last]
            run.is_unsure = False
        while run.waiting:
            run.is_unsure = True
            self._client.log_batch(run.run_id, metrics=run.waiting[0])
            run.is_unsure = False
            del run.waiting[0]

    def _search(self, condition: str) -> list[Run]:
        if self._uri == f"sqlite:///{self._database}" and not self._database.exists():
            return []
        experiment = self._client.get_experiment_by_name(self.study)
        found: list[Run] = []
        token: str | None = None
        while experiment is not None:
            page = self._client.search_runs([experiment.experiment_id], condition, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        return found

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self.study)
        if experiment is None:
            return self._client.create_experiment(self.study)
        if experiment.lifecycle_stage != "active":
            raise ValueError(
                f"the MLflow experiment {self.study!r} is deleted; restore it, or remove it with `mlflow gc`"
            )
        return experiment.experiment_id

    def _recorded(self, run: Run) -> Recorded:
        epoch = self._last_epoch(run.info.run_id) if EVERY_EPOCH in run.data.metrics else 0
        epochs = int(run.data.params.get(EPOCHS, epoch))  # a driver that died early may have left none
        return Recorded(
            run.info.run_id,
            run.info.status,
            epoch,
            epochs,
            run.data.metrics,
            run.data.tags,
            run.data.params,
            run.info.experiment_id,
        )

    def _last_epoch(self, run_id: str) -> int:
        return max((metric.step for metric in self._client.get_metric_history(run_id, EVERY_EPOCH)), default=0)


def _may_pass(error: MlflowException | OSError) -> bool:
    """Whether the same request may succeed later: MLflow is silent, or there is no room for its artifacts."""
    if isinstance(error, MlflowException):
        return error.error_code in AWAY
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _at_step(metrics: Mapping[str, float], step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in metrics.items()]


@dataclass
class _OpenRun:
    """Args:
    epoch: the last one that is recorded or waits.
    waiting: the metrics of epochs that are not recorded yet, one after the other.
    is_unsure: the first of them may be recorded all the same.
    """

    run_id: str
    epoch: int
    waiting: list[list[Metric]] = field(default_factory=list)
    is_unsure: bool = False


@cache
def git_commit() -> str:
    """The commit of the code, with ``-dirty`` if anything but results differs from it; outside git, the version."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if (PROJECT / ".git").exists():
            changes = git("status", "--porcelain", "--", ".", ":(exclude)results")
            return git("rev-parse", "HEAD") + ("-dirty" if changes else "")
        return f"vsgae-study {version('vsgae-study')}"
    except (OSError, subprocess.CalledProcessError, PackageNotFoundError):
        return "unknown"
