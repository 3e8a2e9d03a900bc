from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from study.run import main
from study.space import Trial, load_study, plan_trials
from study.storage import VARIABLE, Place, check_storage, place
from study.tracking import Tracker
from study.trial import CHECKPOINT, CONFIG, MODEL
from vsgae.checkpoints import DamagedCheckpointError


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """``VSGAE_STORAGE`` is a folder of a simulated S3; what files are in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    store = boto3.client("s3")
    store.create_bucket(Bucket="trials")
    monkeypatch.setenv(VARIABLE, "s3://trials/vsgae")

    def files() -> list[str]:
        keys = [found["Key"] for found in store.list_objects_v2(Bucket="trials").get("Contents", [])]
        return [key for key in keys if not key.endswith("/")]

    yield files
    server.stop()


@pytest.fixture
def trial(study_folder: Path, database: Path, small_table: Path) -> Trial:
    return plan_trials(load_study("small"), {}, str(small_table))[0]


def test_by_default_and_with_a_path_the_directory_is_where_the_files_are_kept(
    study_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert place("small", "key") == Place(study_folder / "runs" / "small" / "key")
    for shared in (f"{study_folder}/shared/", f"file://{study_folder}/shared"):
        monkeypatch.setenv(VARIABLE, shared)
        assert place("small", "key") == Place(study_folder / "shared" / "small" / "key")


def test_a_trial_kept_in_an_object_store_goes_on_on_another_machine_and_leaves_nothing_there(
    trial: Trial,
    small_table: Path,
    bucket: Callable[[], list[str]],
    tmp_path: Path,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["small", "--local", "--data", str(small_table)]
    record = Tracker.log_epoch

    def stopped(self: Tracker, trial: Trial, metrics: dict[str, float]) -> bool:
        if metrics["epoch"] == 2:
            signal.raise_signal(signal.SIGTERM)
        return record(self, trial, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "one machine"))
        patch.setattr(Tracker, "log_epoch", stopped)
        assert main(command) == 143
        assert not trial.place.directory.exists()
    assert bucket() == [f"vsgae/small/{trial.key}/{CHECKPOINT}"]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "another"))
    assert main(command) == 0
    assert "goes on after epoch 1" in capsys.readouterr().out
    assert bucket() == []
    assert not trial.place.directory.exists()
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    [run] = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "seconds")] == [1, 2, 3]
    assert {file.path for file in client.list_artifacts(run.info.run_id, "model")} == {
        f"model/{name}" for name in (MODEL, CONFIG)
    }


def test_a_damaged_checkpoint_is_set_aside_and_the_next_try_starts_again(
    trial: Trial, tmp_path: Path, bucket: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_store = trial.place
    monkeypatch.delenv(VARIABLE)
    for kept in (trial.place, in_the_store):
        epochs = kept.run(trial.config, "cpu")
        expected = [next(epochs)["epoch"], next(epochs)["epoch"]]
        (kept.directory / CHECKPOINT).write_bytes(b"damaged")
        kept._keep([CHECKPOINT])
        epochs.close()
        with pytest.raises(DamagedCheckpointError, match=r"is damaged: .*; it is set aside, the next try starts at"):
            next(kept.run(trial.config, "cpu"))
        assert expected == [metrics["epoch"] for metrics, _ in zip(kept.run(trial.config, "cpu"), "ab", strict=False)]
    assert (trial.place.directory / f"{CHECKPOINT}.damaged").read_bytes() == b"damaged"
    assert f"vsgae/small/{trial.key}/{CHECKPOINT}.damaged" in bucket()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://nosuch/folder", "VSGAE_STORAGE is 's3://nosuch/folder', which cannot be used: .*nosuch"),
        ("nosuch://folder", "VSGAE_STORAGE is 'nosuch://folder', which cannot be used: Unrecognized filesystem"),
        ("/dev/null/folder", "VSGAE_STORAGE is '/dev/null/folder', which cannot be used: .*Not a directory"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_place_that_cannot_be_used_is_refused(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_storage()
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(ValueError, match=message):
        check_storage()
