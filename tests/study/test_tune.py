"""Whole studies through Ray, each in a process of its own, so that it can be killed and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from drivers import all_runs, client, finish, in_the_middle, processes_below, start, steps, wait_until

from study.run import main
from study.space import load_study, plan_trials
from study.trial import CHECKPOINT

EPOCHS = 40


@pytest.fixture
def command(study_folder: Path, database: Path, small_table: Path) -> list[str]:
    return [sys.executable, "-m", "study.run", "small", "--data", str(small_table)]


def test_a_study_whose_driver_is_killed_goes_on_and_ends_with_every_trial_once(command: list[str]) -> None:
    command += ["--set", f"training.epochs={EPOCHS}"]
    first = start(command)
    wait_until(in_the_middle, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = {run.info.run_id: (run.info.status, steps(run, "seconds")) for run in all_runs()}
    seconds = {run_id: client().get_metric_history(run_id, "seconds") for run_id in before}
    cut_off = [run_id for run_id, (status, recorded) in before.items() if status == "RUNNING" and recorded]
    assert cut_off

    code, output, error = finish(start(command))
    assert code == 0, output + error
    runs = {run.info.run_id: run for run in all_runs()}
    assert before.keys() <= runs.keys()
    assert len(runs) == 6
    assert len({run.data.tags["trial_key"] for run in runs.values()}) == 6
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run_id, run in runs.items():
        assert steps(run, "train_loss") == list(range(1, EPOCHS + 1))
        assert steps(run, "validation_rmse") == list(range(1, EPOCHS + 1))
        assert steps(run, "test_rmse") == [EPOCHS]
        assert {file.path for file in client().list_artifacts(run_id)} == {"model", "table"}
        assert run.data.tags["attempt"] == ("2" if run_id in before and before[run_id][0] == "RUNNING" else "1")
    for run_id in cut_off:
        recorded = len(before[run_id][1])
        # what was recorded stayed, and the trial went on behind it instead of starting over
        assert client().get_metric_history(run_id, "seconds")[:recorded] == seconds[run_id]
        assert f"{runs[run_id].info.run_name}: goes on after epoch {recorded}" in output
    table = pd.read_csv("results/small.csv")
    assert table[table["method"] == "VS-GAE"]["n"].tolist() == [2, 2, 2]
    assert [path.name for path in Path("runs/small").iterdir()] == ["lock"]

    with pytest.MonkeyPatch.context() as patch:  # all is finished: Ray is not even started
        patch.setattr("ray.init", None)
        assert main(command[3:]) == 0
    assert len(all_runs()) == 6


def test_a_failed_trial_stops_no_other_and_is_tried_again(
    command: list[str], study_folder: Path, small_table: Path
) -> None:
    study = study_folder / "search_spaces" / "small.yaml"
    content = study.read_text().replace("repeats: 2", "repeats: 1")
    study.write_text(content.replace("  zero-shot-7:\n    split: {name: zero_shot_7}\n", ""))
    trial = plan_trials(load_study("small"), {}, str(small_table))[1]
    checkpoint = trial.place.directory / CHECKPOINT
    checkpoint.mkdir(parents=True)  # a directory, where the trial wants to read a file

    code, output, error = finish(start(command))
    assert code == 1, output + error
    assert "Traceback" not in output + error
    assert output.count("it is tried again") == 2
    assert "[ 1] zero-shot-6/seed=0: failed: IsADirectoryError" in output
    assert {run.info.run_name: run.info.status for run in all_runs()} == {
        "prediction/seed=0": "FINISHED",
        "zero-shot-6/seed=0": "FAILED",
    }
    assert "| zero-shot-6 | small | seed 0: IsADirectoryError" in Path("results/small.md").read_text()

    checkpoint.rmdir()
    assert main([*command[3:], "--local"]) == 0
    assert {run.info.status for run in all_runs()} == {"FINISHED"}
    assert len(all_runs()) == 2
    assert "Failed" not in Path("results/small.md").read_text()


@pytest.mark.parametrize(
    ("number", "expected", "why"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGALRM, 3, "stopped: its minutes are over"),  # what --minutes sends, see test_run.py
    ],
)
def test_a_stopped_study_leaves_no_run_running_and_says_how_to_go_on(
    command: list[str], number: int, expected: int, why: str
) -> None:
    process = start([*command, "--set", "training.epochs=100000"])
    wait_until(in_the_middle, process)
    process.send_signal(number)
    code, output, error = finish(process)
    assert code == expected, output + error
    assert f"{why}; the same command goes on from here" in error
    assert "Traceback" not in error
    assert {run.info.status for run in all_runs()} == {"KILLED"}


def test_nothing_that_a_study_starts_listens_beyond_this_machine_and_its_token_is_written_nowhere(
    command: list[str],
) -> None:
    if shutil.which("ss") is None:
        pytest.skip("needs ss, of iproute2")
    driver = start([*command, "--set", "training.epochs=100000"])
    wait_until(in_the_middle, driver)
    sockets = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = {driver.pid, *processes_below(driver)}
    addresses = [line.split()[3] for line in sockets if ours & _pids(line)]
    assert len(addresses) > 5
    assert all(address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:", "[::1]:")) for address in addresses)
    [port] = [line.split()[3].rpartition(":")[2] for line in sockets if '"gcs_server"' in line and ours & _pids(line)]
    code = f"import ray; ray.init('127.0.0.1:{port}')"
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # or it would knock at the outer address
    intruder = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "ConnectionError: Failed to connect to Ray cluster" in intruder.stderr
    [raylet] = [pid for pid, name in processes_below(driver).items() if "/raylet " in name]
    [token] = re.findall(rb"RAY_AUTH_TOKEN=(\w{64})", Path(f"/proc/{raylet}/environ").read_bytes())
    driver.send_signal(signal.SIGTERM)
    _, output, error = finish(driver)
    assert token.decode() not in output + error
    assert not [path for path in Path().rglob("*") if path.is_file() and token in path.read_bytes()]


def _pids(line: str) -> set[int]:
    return set(map(int, re.findall(r"pid=(\d+),", line)))
