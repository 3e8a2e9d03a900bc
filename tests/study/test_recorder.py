"""What the driver records where Ray Tune's callbacks come in an unusual order; no Ray is started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from drivers import all_runs

from study.space import Trial, load_study, plan_trials
from study.tracking import Tracker
from study.tune import _Recorder


@pytest.fixture
def trial(study_folder: Path, database: Path, small_table: Path) -> Trial:
    return plan_trials(load_study("small"), {}, str(small_table))[0]


@pytest.fixture
def recorder(trial: Trial) -> _Recorder:
    return _Recorder({trial.key: trial}, Tracker("small"), "cpu")


def test_a_trial_whose_process_could_not_be_started_is_recorded_as_failed(trial: Trial, recorder: _Recorder) -> None:
    recorder.on_trial_error(0, [], SimpleNamespace(config={"trial": trial.key}))
    (run,) = all_runs()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "its process died (killed, or out of memory)")


def test_a_model_that_cannot_be_recorded_is_the_error_that_is_told(trial: Trial, recorder: _Recorder) -> None:
    ours = SimpleNamespace(config={"trial": trial.key})
    recorder.on_trial_start(0, [], ours)
    recorder.on_trial_result(0, [], ours, {"record": {"epoch": 1, "train_loss": 1.0}})
    recorder.on_trial_result(0, [], ours, {"record": {"test_rmse": 1.0}})
    with pytest.raises(FileNotFoundError):  # the trial left none; Tune takes this for its failure
        recorder.on_trial_complete(0, [], ours)
    recorder.on_trial_error(0, [], ours)
    (run,) = all_runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["error"].startswith("FileNotFoundError: ")
