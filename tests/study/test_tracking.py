from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from sqlalchemy import event
from sqlalchemy.engine import Engine

from study.space import Trial, load_study, plan_trials
from study.stopping import NoAnswerError, Stopped, stoppable
from study.tracking import Tracker, git_commit
from study.trial import CONFIG, MODEL


@pytest.fixture
def trials(study_folder: Path, database: Path, small_table: Path) -> list[Trial]:
    return plan_trials(load_study("small"), {}, str(small_table))


def epoch(number: int) -> dict[str, float]:
    return {"epoch": number, "train_loss": 1 / number, "validation_rmse": 2 / number}


def leave_model(trial: Trial) -> None:
    trial.place.directory.mkdir(parents=True, exist_ok=True)
    (trial.place.directory / MODEL).write_bytes(b"weights")
    (trial.place.directory / CONFIG).write_text("{}")


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")


def all_runs() -> list[Run]:
    return client().search_runs([client().get_experiment_by_name("small").experiment_id])


def steps(run_id: str, name: str = "train_loss") -> list[int]:
    return [metric.step for metric in client().get_metric_history(run_id, name)]


def test_asking_what_is_recorded_creates_nothing(study_folder: Path) -> None:
    assert Tracker("small").runs() == {}
    assert [path.name for path in study_folder.iterdir()] == ["search_spaces"]


def test_a_finished_trial_is_one_run_with_parameters_curves_tags_and_the_model(trials: list[Trial]) -> None:
    tracker, trial = Tracker("small"), trials[3]
    assert tracker.start(trial, device="cpu") == 0
    assert [tracker.log_epoch(trial, epoch(number)) for number in (1, 2, 3)] == [True] * 3
    leave_model(trial)
    tracker.finish(trial, {"test_rmse": 0.5, "best_epoch": 3.0})
    (run,) = all_runs()
    assert run.info.run_name == "zero-shot-6/seed=1"
    assert run.info.status == "FINISHED"
    assert run.data.params["training.lr"] == "0.01"
    assert run.data.params["split.name"] == "zero_shot_6"
    assert run.data.params["seed"] == "1"
    assert "labels.source" not in run.data.params
    expected = {
        "study": "small",
        "trial_key": trial.key,
        "configuration": "zero-shot-6",
        "setting": "small",
        "overrides": "{}",
        "label_source": "invented.csv",
        "labels": trial.config.data().description,
        "label_digest": trial.data_digest,
        "device": "cpu",
        "git_commit": git_commit(),
        "attempt": "1",
    }
    assert expected.items() <= run.data.tags.items()
    assert steps(run.info.run_id) == [1, 2, 3]
    assert run.data.metrics == {"train_loss": 1 / 3, "validation_rmse": 2 / 3, "test_rmse": 0.5, "best_epoch": 3.0}
    assert {file.path for file in client().list_artifacts(run.info.run_id, "model")} == {
        f"model/{MODEL}",
        f"model/{CONFIG}",
    }
    assert tracker.runs()[trial.key].state == "finished"


def test_a_run_whose_driver_died_is_opened_again_and_gets_each_epoch_once(trials: list[Trial]) -> None:
    trial, dead = trials[0], Tracker("small")
    dead.start(trial, device="cpu")
    dead.log_epoch(trial, epoch(1))
    dead.log_epoch(trial, epoch(2))
    assert dead.runs()[trial.key].state == "cut off at epoch 2"

    tracker = Tracker("small")
    assert tracker.start(trial, device="cpu") == 2
    assert [tracker.log_epoch(trial, epoch(number)) for number in (1, 2, 3)] == [False, False, True]
    leave_model(trial)
    tracker.finish(trial, {"test_rmse": 0.5})
    (run,) = all_runs()
    assert (run.info.status, run.data.tags["attempt"]) == ("FINISHED", "2")
    assert steps(run.info.run_id) == [1, 2, 3]


def test_scores_recorded_before_the_driver_died_are_not_recorded_again(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, dead = trials[0], Tracker("small")
    dead.start(trial, device="cpu")
    dead.log_epoch(trial, epoch(1))
    with pytest.raises(OSError, match=MODEL):  # the model is not there yet: the driver dies between scores and model
        dead.finish(trial, {"test_rmse": 0.5})
    tracker = Tracker("small")
    tracker.start(trial, device="cpu")
    leave_model(trial)
    tracker.finish(trial, {"test_rmse": 0.5})
    (run,) = all_runs()
    assert run.info.status == "FINISHED"
    assert steps(run.info.run_id, "test_rmse") == [1]


def test_a_failed_run_keeps_its_error_until_it_is_tried_again(trials: list[Trial]) -> None:
    tracker, trial = Tracker("small"), trials[0]
    tracker.start(trial, device="cpu")
    tracker.fail(trial, "ValueError: no", "Traceback ...")
    (run,) = all_runs()
    assert run.info.status == "FAILED"
    assert tracker.runs()[trial.key].state == "failed: ValueError: no"
    assert [file.path for file in client().list_artifacts(run.info.run_id, "error")] == ["error/traceback.txt"]
    tracker.start(trial, device="cpu")
    (run,) = all_runs()
    assert run.info.status == "RUNNING"
    assert "error" not in run.data.tags


def test_an_interrupted_study_leaves_no_run_running(trials: list[Trial]) -> None:
    tracker = Tracker("small")
    for trial in trials[:2]:
        tracker.start(trial, device="cpu")
    tracker.interrupt()
    assert {run.info.status for run in all_runs()} == {"KILLED"}
    assert tracker.runs()[trials[0].key].state == "cut off at epoch 0"


def test_a_signal_in_the_middle_of_a_transaction_leaves_the_epoch_whole_and_the_database_free(
    trials: list[Trial],
) -> None:
    tracker, trial, sent = Tracker("small"), trials[0], []
    tracker.start(trial, device="cpu")

    def stop(connection: object, cursor: object, statement: str, *more: object) -> None:
        if statement.startswith("INSERT INTO metrics") and not sent:
            sent.append(statement)
            signal.raise_signal(signal.SIGTERM)

    event.listen(Engine, "after_cursor_execute", stop)
    try:
        with pytest.raises(Stopped) as stopped, stoppable():
            tracker.log_epoch(trial, epoch(1))
    finally:
        event.remove(Engine, "after_cursor_execute", stop)
    tracker.interrupt()
    assert sent
    (run,) = all_runs()
    assert (run.info.status, run.data.metrics["validation_rmse"]) == ("KILLED", 2.0)
    del stopped  # which held the frames of what was stopped


def test_a_deleted_experiment_is_an_error_that_says_what_to_do(trials: list[Trial]) -> None:
    Tracker("small").start(trials[0], device="cpu")
    client().delete_experiment(client().get_experiment_by_name("small").experiment_id)
    with pytest.raises(ValueError, match="the MLflow experiment 'small' is deleted; restore it"):
        Tracker("small").start(trials[1], device="cpu")


class Outage:
    """MLflow is silent while ``is_on``: a request is answered by an error, having arrived or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on, self.arrives = False, False
        for name in ("log_batch", "search_runs", "get_experiment_by_name", "set_terminated", "set_tag"):
            monkeypatch.setattr(MlflowClient, name, self._broken(getattr(MlflowClient, name)))
        monkeypatch.setattr("study.tracking.PAUSE", 0.0)

    def _broken(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any, **options: Any) -> Any:
            result = request(*arguments, **options) if self.arrives or not self.is_on else None
            if self.is_on:
                raise MlflowException("API request failed with exception Connection refused")
            return result

        return answer


@pytest.mark.parametrize("arrives", [False, True])
def test_epochs_wait_while_mlflow_is_silent_and_are_then_recorded_once_and_in_order(
    trials: list[Trial], arrives: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker, trial, outage = Tracker("small"), trials[0], Outage(monkeypatch)
    tracker.start(trial, device="cpu")
    tracker.log_epoch(trial, epoch(1))
    outage.is_on, outage.arrives = True, arrives
    for number in (2, 3):
        assert tracker.log_epoch(trial, epoch(number))
    said = capsys.readouterr().err
    assert said.count("does not answer: API request failed") == 1
    assert "what it misses is kept for later" in said
    outage.is_on = False
    tracker.log_epoch(trial, epoch(4))
    assert "MLflow answers again" in capsys.readouterr().err
    (run,) = all_runs()
    assert steps(run.info.run_id) == steps(run.info.run_id, "validation_rmse") == [1, 2, 3, 4]


def test_what_waits_is_recorded_before_a_run_is_finished(trials: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, trial, outage = Tracker("small"), trials[0], Outage(monkeypatch)
    tracker.start(trial, device="cpu")
    outage.is_on = True
    tracker.log_epoch(trial, epoch(1))
    leave_model(trial)

    def back(seconds: float) -> None:
        outage.is_on = False

    monkeypatch.setattr("study.tracking.time.sleep", back)
    tracker.finish(trial, {"test_rmse": 0.5})
    (run,) = all_runs()
    assert (run.info.status, steps(run.info.run_id), run.data.metrics["test_rmse"]) == ("FINISHED", [1], 0.5)


def test_artifacts_wait_for_room_on_the_disk(trials: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, trial, log_text = Tracker("small"), trials[0], MlflowClient.log_text
    tracker.start(trial, device="cpu")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_text", full)
    monkeypatch.setattr(
        "study.tracking.time.sleep", lambda seconds: monkeypatch.setattr(MlflowClient, "log_text", log_text)
    )
    tracker.fail(trial, "ValueError: no", "Traceback ...")
    (run,) = all_runs()
    assert run.info.status == "FAILED"
    assert [file.path for file in client().list_artifacts(run.info.run_id, "error")] == ["error/traceback.txt"]


def test_a_silence_without_end_is_an_error_and_the_trial_goes_on_later(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, trial, outage = Tracker("small"), trials[0], Outage(monkeypatch)
    tracker.start(trial, device="cpu")
    tracker.log_epoch(trial, epoch(1))
    outage.is_on = True
    leave_model(trial)
    monkeypatch.setattr("study.tracking.PAUSE", 1000.0)
    with pytest.raises(NoAnswerError, match=r"^MLflow at sqlite:.* does not answer: API request failed"):
        tracker.finish(trial, {"test_rmse": 0.5})
    tracker.interrupt()  # says nothing more
    with pytest.raises(NoAnswerError):
        Tracker("small").runs()

    outage.is_on = False
    again = Tracker("small")
    assert again.start(trial, device="cpu") == 1
    again.finish(trial, {"test_rmse": 0.5})
    (run,) = all_runs()
    assert (run.info.status, steps(run.info.run_id)) == ("FINISHED", [1])


def test_an_error_that_is_not_silence_is_raised_at_once(trials: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)

    tracker = Tracker("small")
    tracker.start(trials[0], device="cpu")
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with pytest.raises(MlflowException, match="no such run"):
        tracker.log_epoch(trials[0], epoch(1))
