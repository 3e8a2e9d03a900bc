"""What tests of every part share: a cache of their own, a small labelled table, and the measured one where it lies."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on the small problems here, threads cost more than they give
os.environ.setdefault("RAY_worker_niceness", "0")  # or 15: beside other work tests would wait in vain

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drivers import kill_started

PROJECT = Path(__file__).resolve().parents[1]
MEASURED = PROJECT.parent / "shared" / "data" / "nasbench101_measured.csv"


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cell space is enumerated once a session and nothing of the user's cache is touched.

    ``VSGAE_TEST_CACHE`` names a directory to keep it in from session to session.
    """
    directory = Path(os.environ.get("VSGAE_TEST_CACHE") or tmp_path_factory.mktemp("cache")).absolute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VSGAE_CACHE", str(directory))
        yield directory


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """A test that fails in the middle of a study does not leave it to the tests after it."""
    yield
    kill_started()


@pytest.fixture(scope="session")
def small_table(session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 271 cells in the format of the measured one. ITS ACCURACIES ARE INVENTED.

    All cells of 2 to 4 nodes and 60 each of 5, 6 and 7 nodes; accuracies follow from the share of 3x3 convolutions and
    the number of edges, so that there is something to learn.
    """
    from vsgae.nasbench101 import load_space

    space = load_space()
    sizes = space.cells.num_nodes.numpy()
    rows = [np.flatnonzero(sizes <= 4)]
    for size in (5, 6, 7):
        of_size = np.flatnonzero(sizes == size)
        rows.append(of_size[:: len(of_size) // 60][:60])
    index = np.concatenate(rows)
    cells = space.cells[index]
    share = (cells.operations == 1).sum(1) / cells.num_nodes
    accuracy = (0.80 + 0.12 * share + 0.005 * cells.num_edges).double().numpy()
    hashes = np.asarray(space.hashes)[index]
    columns = {f"validation_accuracy_{epochs}": accuracy - 0.1 / epochs for epochs in (4, 12, 36, 108)}
    table = pd.DataFrame({"module_hash": hashes, **columns, "training_time_108": 1000.0, "trainable_parameters": 10**6})
    path = tmp_path_factory.mktemp("table") / "invented.csv"
    table.sort_values("module_hash").to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def small_autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an untrained VS-GAE with a few hundred weights."""
    from vsgae.autoencoder import VSGAE, VSGAEConfig
    from vsgae.encoder import EncoderConfig

    path = tmp_path_factory.mktemp("autoencoder") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        VSGAE(VSGAEConfig(encoder=EncoderConfig(node_dim=6, graph_dim=5, rounds=1))).save_pretrained(path)
    return path


@pytest.fixture
def shipped_autoencoder(small_autoencoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small one in place of that which comes with the project."""
    monkeypatch.setattr("vsgae.latents.SHIPPED_FILE", small_autoencoder)
    return small_autoencoder


@pytest.fixture
def measured_table() -> Path:
    """The measured cells; the test is skipped where they are not."""
    if not MEASURED.exists():
        pytest.skip(f"no measured cells at {MEASURED.relative_to(PROJECT.parent)}")
    return MEASURED
