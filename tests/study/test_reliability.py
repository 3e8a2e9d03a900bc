"""Whole studies that meet a fault: rows of the table in docs/reliability.md that no other file tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest
from drivers import all_runs, client, finish, in_the_middle, processes_below, start, wait_until
from mlflow import MlflowClient
from mlflow.entities import Run

EPOCHS = 40


@pytest.fixture
def command(study_folder: Path, database: Path, small_table: Path) -> list[str]:
    command = [sys.executable, "-m", "study.run", "small", "--data", str(small_table)]
    return [*command, "--set", f"training.epochs={EPOCHS}"]


def check_that_nothing_is_lost_or_twice(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert Counter(run.info.status for run in runs) == {"FINISHED": 6}
    assert len({run.data.tags["trial_key"] for run in runs}) == 6
    for run in runs:
        recorded = client.get_metric_history(run.info.run_id, "train_loss")
        assert [metric.step for metric in recorded] == list(range(1, EPOCHS + 1))
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"model", "table"}


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(command: list[str]) -> None:
    driver = start(command)
    # a process that still starts has no run yet, and killing it would be no retry of a trial
    wait_until(lambda: len(in_the_middle()) == len(_running()) == len(_of_trials(driver)) > 0, driver)
    os.kill(_of_trials(driver)[0], signal.SIGKILL)
    code, output, error = finish(driver)
    assert code == 0, output + error
    check_that_nothing_is_lost_or_twice(client())
    [killed] = [run.info.run_name for run in all_runs() if run.data.tags["attempt"] == "2"]
    assert f"{killed}: its process died (killed, or out of memory); it is tried again" in output
    assert f"{killed}: goes on after epoch" in output


def _of_trials(driver: subprocess.Popen[str]) -> list[int]:
    return [pid for pid, name in processes_below(driver).items() if name.startswith("ray::ImplicitFunc")]


def _running() -> list[Run]:
    return [run for run in all_runs() if run.info.status == "RUNNING"]


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[None]:
    options = f"--host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///{folder}/mlflow.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options.split(), "--artifacts-destination", folder / "artifacts"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), process)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_mlflow_server_that_is_killed_and_comes_back_misses_nothing(
    command: list[str], database: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.move(database, folder)
    uri = f"http://127.0.0.1:{port}"
    records = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    with mlflow_server(folder, port):
        driver = start(command, MLFLOW_TRACKING_URI=uri)
        wait_until(lambda: _some_epochs(records), driver)
    time.sleep(10)
    with mlflow_server(folder, port):
        code, output, error = finish(driver)
        assert code == 0, output + error
        assert f"MLflow at {uri} does not answer" in error
        assert "MLflow answers again" in error
        check_that_nothing_is_lost_or_twice(MlflowClient(tracking_uri=uri))


def _some_epochs(records: MlflowClient) -> bool:
    experiment = records.get_experiment_by_name("small")
    runs = records.search_runs([experiment.experiment_id]) if experiment else []
    return any(len(records.get_metric_history(run.info.run_id, "train_loss")) >= 3 for run in runs)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_told_and_with_room_again_the_study_ends(
    command: list[str], small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (Path("search_spaces"), Path("mlflow.db")):
        shutil.move(path, small_disk)
    monkeypatch.chdir(small_disk)
    said = tmp_path / "output"
    with said.open("w") as output:
        driver = start(command, output)
    wait_until(in_the_middle, driver)
    started = time.monotonic()
    with Path("filler").open("wb", buffering=0) as filler:
        while "No space left" not in said.read_text() and time.monotonic() < started + 120:
            with pytest.raises(OSError, match="No space left"):  # again: what a trial removes leaves room
                while True:
                    filler.write(bytes(2**12))
            time.sleep(0.1)
    Path("filler").unlink()
    code, _, error = finish(driver)
    assert "Traceback" not in said.read_text() + error
    assert "No space left on device; it is tried again" in said.read_text(), said.read_text() + error
    assert code in (0, 1), said.read_text() + error
    if code == 1:
        code, output, error = finish(start(command))
        assert code == 0, output + error
    check_that_nothing_is_lost_or_twice(client())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False
