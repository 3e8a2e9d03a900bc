from __future__ import annotations

from pathlib import Path

import pytest

from study.lock import only_driver
from study.run import main
from study.space import load_study, plan_trials
from study.tracking import Tracker
from study.trial import CONFIG, MODEL


def columns(printed: str) -> dict[str, str]:
    """The one line's values, by the words of the head; of those columns whose words have no space."""
    head, line = printed.strip().splitlines()
    ends = {
        name: head.index(name) + len(name) for name in ("trials", "finished", "running", "cut off", "failed", "missing")
    }
    return {name: line[:end].split()[-1] for name, end in ends.items()} | {"to do": line[ends["missing"] :].strip()}


def test_nothing_recorded_is_said_and_nothing_created(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("nothing is recorded in this folder; start with: python -m study.run")
    assert [path.name for path in study_folder.iterdir()] == ["search_spaces"]


def test_the_states_of_trials_are_counted_and_the_rest_is_estimated_from_the_epochs(
    database: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials, tracker = plan_trials(load_study("small"), {}, str(small_table)), Tracker("small")
    for trial, epochs in zip(trials[:5], (3, 2, 1, 1, 0), strict=True):
        tracker.start(trial, device="cpu")
        for number in range(1, epochs + 1):
            tracker.log_epoch(trial, {"epoch": number, "train_loss": 1.0, "seconds": 1800.0})
    trials[0].place.directory.mkdir(parents=True)
    for name in (MODEL, CONFIG):
        (trials[0].place.directory / name).touch()
    tracker.finish(trials[0], {"test_rmse": 0.1})
    tracker.fail(trials[1], "ValueError: no", "traceback")

    counts = {"trials": "6", "finished": "1", "failed": "1", "missing": "1"}
    assert main(["status"]) == 0  # 3 + 1 + 2 + 2 + 3 epochs of half an hour are to do
    assert columns(capsys.readouterr().out) == {**counts, "running": "0", "cut off": "3", "to do": "5.5 h"}
    with only_driver("small"):
        assert main(["status"]) == 0
    at_work = {**counts, "running": "3", "cut off": "0", "to do": "5.5 h, 3 at once: 1.8 h"}
    assert columns(capsys.readouterr().out) == at_work


def test_a_study_that_is_done_has_nothing_to_do(
    database: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["small", "--local", "--data", str(small_table), "--set", "training.epochs=1"]
    for _ in range(6):
        assert main(command) == 0
    capsys.readouterr()
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "training.epochs=1" in printed
    assert "measured: invented.csv" in printed
    assert columns(printed)["to do"] == "-"
