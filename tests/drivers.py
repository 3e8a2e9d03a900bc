"""Studies in processes of their own, and what they have recorded in the working directory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mlflow import MlflowClient
from mlflow.entities import Run

PROJECT = Path(__file__).resolve().parents[1]
_started: list[subprocess.Popen[str]] = []


def start(command: list[str], stdout: IO[str] | int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a shell, where CI may run, SIGINT is ignored, by children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _started.append(process)
    return process


def kill_started() -> None:
    """What a test has left running."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, error = process.communicate(timeout=300)
    return process.returncode, output, error


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")


def all_runs(study: str = "small") -> list[Run]:
    experiment = client().get_experiment_by_name(study)
    return client().search_runs([experiment.experiment_id]) if experiment else []


def steps(run: Run, name: str) -> list[int]:
    return [metric.step for metric in client().get_metric_history(run.info.run_id, name)]


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(4800):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("nothing came of it in four minutes")


def in_the_middle(study: str = "small") -> list[Run]:
    """Runs with at least five recorded epochs that are not over."""
    return [run for run in all_runs(study) if run.info.status == "RUNNING" and len(steps(run, "train_loss")) >= 5]


def processes_below(driver: subprocess.Popen[str]) -> dict[int, str]:
    """The command lines of all that ``driver`` started, by process."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    children: dict[int, dict[int, str]] = {}
    for line in listing.splitlines():
        pid, parent, arguments = line.split(maxsplit=2)
        children.setdefault(int(parent), {})[int(pid)] = arguments
    found, unseen = {}, [driver.pid]
    while unseen:
        own = children.get(unseen.pop(), {})
        found |= own
        unseen += own
    return found
