from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import official_format
import pytest

from vsgae.cells import Cells
from vsgae.nasbench101 import Space, load_space
from vsgae.nasbench101.cache import cache_path
from vsgae.nasbench101.space import VERSION


@pytest.fixture(scope="session")
def known(session_cache: Path) -> Space:
    return load_space()


@pytest.fixture(scope="session")
def some(known: Space) -> tuple[Cells, list[str]]:
    """A few cells of every length, in the order of the enumeration, and their hashes."""
    index = np.array([0, 1, 6, 7, 50, 90, 91, 2000, 2531, 2532, 40_000, 64_541, 64_542, 250_000, 423_623])
    return known.cells[index], known.hashes.take(index).to_pylist()


@pytest.fixture
def own_cache(known: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the cells are and nothing else."""
    cells = cache_path("nasbench101-cells", VERSION)
    directory = tmp_path / "own_cache"
    directory.mkdir()
    shutil.copy(cells, directory)
    monkeypatch.setenv("VSGAE_CACHE", str(directory))
    return directory


@pytest.fixture
def only108(some: tuple[Cells, list[str]], tmp_path: Path) -> Path:
    """A small official file. ITS ACCURACIES ARE INVENTED."""
    return official_format.write(tmp_path / "small_only108.tfrecord", official_format.records(*some))


@pytest.fixture
def full(some: tuple[Cells, list[str]], tmp_path: Path) -> Path:
    """The same with all numbers of epochs, and other runs of 108."""
    records = official_format.records(*some, epochs=(4, 12, 36, 108), seed=1)
    return official_format.write(tmp_path / "small_full.tfrecord", records)
