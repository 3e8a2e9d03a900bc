"""A study that is small in every way: three configurations, two repeats, a model of a few hundred weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

SMALL_STUDY = """\
description: A small study
published: table1
setting: small
base:
  model: {encoder: {node_dim: 6, graph_dim: 4, rounds: 1}, hidden: [3]}
  training: {lr: 0.01, batch_size: 32, epochs: 3}
configurations:
  prediction:
    split: {name: edit_sampled}
  zero-shot-6:
    split: {name: zero_shot_6}
  zero-shot-7:
    split: {name: zero_shot_7}
repeats: 2
"""


@pytest.fixture(scope="session")
def small_study() -> str:
    """The small study's file."""
    return SMALL_STUDY


@pytest.fixture
def study_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, with ``search_spaces/small.yaml`` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "small.yaml").write_text(SMALL_STUDY)
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: to create one takes MLflow seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(study_folder: Path, empty_database: Path) -> Path:
    """The MLflow database of ``study_folder``, empty."""
    return Path(shutil.copy(empty_database, study_folder / "mlflow.db"))
