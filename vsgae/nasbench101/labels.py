"""Where accuracies come from: the imported official release, a table of measured cells, or the surrogate, which
predicts them. One never stands in for another, and every set of labels says in one line what it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import compute, parquet
from torch import Tensor

from vsgae.cells import Cells
from vsgae.nasbench101.cache import cache_path, read_table, write_table
from vsgae.nasbench101.release import NUM_CELLS, find_release, is_imported
from vsgae.nasbench101.space import Space, load_space
from vsgae.nasbench101.surrogate.model import SHIPPED, shipped_surrogate
from vsgae.nasbench101.surrogate.model import VERSION as SURROGATE_VERSION
from vsgae.nasbench101.tfrecord import EPOCHS, REPEATS, VERSION

OFFICIAL, SURROGATE = "official", "surrogate"
METRICS = ("validation_accuracy", "test_accuracy", "train_accuracy", "training_time")
SUFFIXES = (".csv", ".parquet")


def default_source() -> str:
    """``official`` once a release is imported, ``surrogate`` until then."""
    return OFFICIAL if is_imported() else SURROGATE


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which value stands for a cell.

    Args:
        source: ``official``, an imported release; ``surrogate``, predicted accuracies; or the path of a measured table,
            CSV or Parquet, with ``module_hash`` and a column such as ``validation_accuracy_108`` for a metric and a
            number of epochs. By default :func:`default_source`.
        metric: ``validation_accuracy``, ``test_accuracy`` or ``train_accuracy`` in [0, 1], or ``training_time`` in s.
        epochs: those of the run: 4, 12, 36 or 108. The value is that at its end.
        repeat: ``mean`` of the three runs, or one of them: 0, 1, 2. A measured table has one run, its mean. The
            surrogate's runs are drawn, once for all.

    Raises:
        ValueError: a value is none of those.
    """

    source: str = field(default_factory=default_source)
    metric: str = "validation_accuracy"
    epochs: int = 108
    repeat: str | int = "mean"

    def __post_init__(self) -> None:
        repeats = ("mean", *map(str, range(REPEATS)))
        object.__setattr__(self, "repeat", str(self.repeat))
        object.__setattr__(self, "source", str(self.source))
        for name, allowed in (("metric", METRICS), ("epochs", EPOCHS), ("repeat", repeats)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(map(str, allowed))}")
        if self.source == OFFICIAL:
            return
        if self.source == SURROGATE:
            if self.metric != "validation_accuracy":
                raise ValueError(f"metric is {self.metric!r}; the surrogate predicts validation_accuracy")
            return
        if Path(self.source).suffix not in SUFFIXES:
            raise ValueError(
                f"source is {self.source!r}; it must be {OFFICIAL!r}, {SURROGATE!r} or the path of a table ending in "
                f"{' or '.join(SUFFIXES)}"
            )
        if self.repeat != "mean":
            raise ValueError(f"repeat is {self.repeat!r}; a measured table has one run a cell, so it must be 'mean'")


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled cells, in the order of the enumeration.

    Args:
        cells: N cells.
        values: float32 ``[N]``.
        index: int64 ``[N]``, where they are in the enumeration.
        config: what was asked for.
        digest: the SHA-256 of what determines them, as :func:`label_digest` gives it.
        description: one line for a reader: the source, the metric, the number of runs and of cells.
    """

    cells: Cells
    values: Tensor
    index: Tensor
    config: LabelConfig
    digest: str
    description: str

    def __len__(self) -> int:
        return len(self.values)


def label_file(config: LabelConfig) -> Path:
    """The file that the labels are in: the table, that of the imported release, or the fitted surrogate.

    Raises:
        ValueError: there is no such table, or no such release is imported.
    """
    if config.source == OFFICIAL:
        return find_release(config.epochs).path
    if config.source == SURROGATE:
        return SHIPPED
    if not Path(config.source).is_file():
        raise ValueError(
            f"source is {config.source!r}, where there is no file; it must be {OFFICIAL!r}, {SURROGATE!r} or a table"
        )
    return Path(config.source)


def label_digest(config: LabelConfig) -> str:
    """The SHA-256 of the source's contents and of which values of it are taken; no cells are loaded.

    Raises:
        ValueError: as :func:`label_file`.
    """
    path = label_file(config)
    if config.source == OFFICIAL:
        contents = find_release(config.epochs).digest
    elif config.source == SURROGATE:
        contents = shipped_surrogate().digest
    else:
        with open(path, "rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{contents} {config.metric} {config.epochs} {config.repeat}".encode()).hexdigest()


def load_labels(config: LabelConfig) -> Labels:
    """The labelled cells of a source.

    Raises:
        ValueError: there is no such table, or no such release is imported; a column is not in the table; or a row of
            it (counted from 0, the header apart) has an unknown hash, that of an earlier row, or a value out of range.
    """
    digest, space = label_digest(config), load_space()
    read = {OFFICIAL: _official, SURROGATE: _surrogate}.get(config.source, _measured)
    index, values, origin = read(config, space)
    order = index.argsort()
    index = index[order]
    return Labels(
        cells=space.cells[index],
        values=torch.from_numpy(values[order].astype(np.float32)),
        index=torch.from_numpy(index),
        config=config,
        digest=digest,
        description=f"{origin}, {len(index):,} of {NUM_CELLS:,} cells",
    )


def _official(config: LabelConfig, space: Space) -> tuple[np.ndarray, np.ndarray, str]:
    """Places in the enumeration, values and the beginning of the description, of the imported release."""
    release = find_release(config.epochs)
    column = f"final_{config.metric}"
    table = read_table(release.path, VERSION, ["module_hash", "epochs", "repeat", column])
    if table is None:
        raise ValueError(f"the imported release {release.path} is damaged; import it again")
    table = table.filter(compute.field("epochs") == config.epochs)
    if config.repeat != "mean":
        table = table.filter(compute.field("repeat") == int(config.repeat))
    places, cells = np.unique(space.index(table["module_hash"]), return_inverse=True)
    values = np.bincount(cells, table[column].to_numpy()) / np.bincount(cells)
    return places, values, f"official release ({release.kind}), {_runs(config)}"


def _surrogate(config: LabelConfig, space: Space) -> tuple[np.ndarray, np.ndarray, str]:
    """The same of the surrogate. Its runs are drawn for the whole space at once, and cached."""
    surrogate = shipped_surrogate()
    path = cache_path(f"nasbench101-surrogate-{config.epochs}-{surrogate.digest[:16]}", SURROGATE_VERSION)
    table = read_table(path, SURROGATE_VERSION)
    if table is None:
        drawn = surrogate.draw(space.cells, config.epochs, REPEATS)
        table = pa.table({str(repeat): runs for repeat, runs in enumerate(drawn.T)})
        write_table(path, table, SURROGATE_VERSION)
    repeats = table.column_names if config.repeat == "mean" else [config.repeat]
    values = np.mean([table[repeat].to_numpy() for repeat in repeats], axis=0)
    return np.arange(len(values)), values, f"surrogate: PREDICTED, not measured, {_runs(config)}"


def _runs(config: LabelConfig) -> str:
    """Which runs of a source that has three."""
    runs = f"mean of {REPEATS} runs" if config.repeat == "mean" else f"run {config.repeat} of 0 to {REPEATS - 1}"
    return f"{config.metric} at {config.epochs} epochs, {runs}"


def _measured(config: LabelConfig, space: Space) -> tuple[np.ndarray, np.ndarray, str]:
    """The same of a measured table."""
    path, column = Path(config.source), f"{config.metric}_{config.epochs}"
    try:
        table = _read_columns(path, column)
        if not len(table):
            raise ValueError("the table has no rows")
        places = space.index(pa.array(table["module_hash"], pa.string(), from_pandas=True))
        order = places.argsort(kind="stable")
        again = order[1:][places[order[1:]] == places[order[:-1]]]
        if len(again):
            row = again.min()
            first = (places == places[row]).argmax()
            raise ValueError(f"row {row}: {table['module_hash'][row]!r} is the module hash of row {first} already")
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        limit, allowed = (np.inf, "of seconds") if config.metric == "training_time" else (1, "in [0, 1]")
        bad = ~((values >= 0) & (values <= limit) & np.isfinite(values))
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"row {row}: {column} is {table[column][row]!r}; it must be a number {allowed}")
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).strip().partition(chr(10))[0]}") from error
    return places, values, f"measured: {path.name}, {config.metric} at {config.epochs} epochs, one run each"


def _read_columns(path: Path, column: str) -> pd.DataFrame:
    """``module_hash`` and ``column`` of a table; of a CSV as text."""
    is_csv = path.suffix == ".csv"
    names = list(pd.read_csv(path, nrows=0).columns) if is_csv else parquet.read_schema(path).names
    if "module_hash" not in names:
        raise ValueError(f"there is no column module_hash; there are {', '.join(names)}")
    if column not in names:
        possible = [f"{metric}_{epochs}" for metric in METRICS for epochs in EPOCHS]
        there = [name for name in names if name in possible]
        raise ValueError(f"there is no column {column}; of metrics and epochs there are {', '.join(there) or 'none'}")
    wanted = ["module_hash", column]
    if is_csv:
        return pd.read_csv(path, usecols=wanted, dtype=str, keep_default_na=False)
    return parquet.read_table(path, columns=wanted).to_pandas()
