"""The official NAS-Bench-101 release, read without TensorFlow.

A TFRecord file is a row of records: the length of the data (uint64, little-endian), the masked CRC32C of those eight
bytes, the data, the masked CRC32C of the data. The benchmark's data is a JSON list ``[module hash, epochs, adjacency as
0s and 1s row by row, operations joined by commas, metrics in base64]``, the metrics being a protobuf with three
evaluations: before training, half-way and at the end. Every cell was trained three times for a number of epochs.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import json
import math
import os
import struct
from array import array
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import torch
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
)
from tqdm import tqdm

from vsgae.cells import MAX_NODES, OPERATIONS, Cells, is_nasbench101
from vsgae.nasbench101.cache import cache_path, read_table, write_table
from vsgae.nasbench101.hashing import module_hashes
from vsgae.nasbench101.space import load_space

VERSION = 1  # of SCHEMA, for tables that are kept
EPOCHS = (4, 12, 36, 108)
REPEATS = 3
MEASURES = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
VALUES = ["total_time", *(f"{stage}_{measure}" for stage in ("halfway", "final") for measure in MEASURES)]
SCHEMA = pa.schema(
    [
        ("module_hash", pa.string()),
        ("epochs", pa.int32()),
        ("repeat", pa.int32()),
        ("adjacency", pa.dictionary(pa.int32(), pa.string())),
        ("operations", pa.dictionary(pa.int32(), pa.string())),
        ("trainable_parameters", pa.int32()),
        *((name, pa.float64()) for name in VALUES),
    ]
)
KEPT_FROM = 1 << 24  # bytes; a smaller file is read as fast as a kept table
HEADER = struct.Struct("<QI")
GET_MEASURES = attrgetter(*MEASURES)


def read_tfrecord(path: str | Path) -> pa.Table:
    """Every record of an official release, in the file's order: one row each, with the columns of :data:`SCHEMA`.

    ``repeat`` counts the runs of a cell for the same epochs, 0 to 2, in the order of the file. Times are in seconds,
    accuracies in [0, 1]. The table of a large file is kept in the cache, and used while the file's size and time of
    change stay the same.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut off or damaged, or a record is no cell, is no run of one, or is there twice; the
            message names the record, counted from 1, and the byte at which it begins.
    """
    path = Path(path)
    stamp = file_stamp(path)
    if path.stat().st_size < KEPT_FROM:
        return parse_tfrecord(path)
    kept = cache_path(f"tfrecord-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]}", VERSION)
    table = read_table(kept, VERSION)
    if table is None or table.schema.metadata.get(b"source") != stamp:
        table = parse_tfrecord(path).replace_schema_metadata({b"source": stamp})
        write_table(kept, table, VERSION)
    return table.replace_schema_metadata(None)


def file_stamp(path: Path) -> bytes:
    """Which state of which file this is: its path, size and time of change."""
    stat = path.stat()
    return json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns]).encode()


def parse_tfrecord(path: Path) -> pa.Table:
    """:func:`read_tfrecord` from the file itself."""
    rows, offset, size = _Rows(), 0, path.stat().st_size
    try:
        with (
            open(path, "rb", buffering=1 << 20) as file,
            tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while offset < size:
                try:
                    data = _read_data(file, size - offset)
                    rows.add(offset, *_decode(data))
                except ValueError as error:
                    raise ValueError(_located(len(rows), offset, str(error))) from error
                offset += HEADER.size + len(data) + 4
                if len(rows) % 10_000 == 0 or offset == size:
                    bar.update(offset - bar.n)
        return rows.table()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _located(row: int, offset: int, what: str) -> str:
    return f"record {row + 1}, at byte {offset:,}: {what}"


def _read_data(file: BinaryIO, left: int) -> bytes:
    """The data of the record at the file's position, of which ``left`` bytes remain."""
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise ValueError(f"the file is cut off: {left} bytes are left, a record begins with {HEADER.size}")
    length, length_crc = HEADER.unpack(header)
    if _masked_crc(header[:8]) != length_crc:
        raise ValueError(f"the length is damaged: its CRC32C is not the stored {length_crc:#010x}")
    needed = HEADER.size + length + 4
    if needed > left:
        raise ValueError(f"the file is cut off: {left:,} bytes are left of a record of {needed:,}")
    data, data_crc = file.read(length), int.from_bytes(file.read(4), "little")
    if _masked_crc(data) != data_crc:
        raise ValueError(f"the data is damaged: its CRC32C is not the stored {data_crc:#010x}")
    return data


def _masked_crc(data: bytes) -> int:
    """CRC32C as TFRecord stores it: rotated and shifted, so that data holding CRCs has a good one itself."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _decode(data: bytes) -> tuple[str, int, str, str, Any]:
    """Module hash, epochs, adjacency, operations and the message of metrics."""
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the data is not JSON: {error}") from error
    if type(parts) is not list or [type(part) for part in parts] != [str, int, str, str, str]:
        raise ValueError(
            f"the data is {_short(parts)}; it must be [module hash, epochs, adjacency, operations, metrics]"
        )
    try:
        metrics = METRICS.FromString(binascii.a2b_base64(parts[4].replace("\n", ""), strict_mode=True))
    except (ValueError, message.DecodeError) as error:
        raise ValueError(f"the metrics {_short(parts[4])} are not a protobuf in base64: {error}") from error
    if len(metrics.evaluation_data) != 3:
        raise ValueError(f"the metrics have {len(metrics.evaluation_data)} evaluations; there must be 3")
    return parts[0], parts[1], parts[2], parts[3], metrics


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _metrics_class() -> Any:
    """The class of the release's protobuf message; field 6 of an evaluation, a path, is not read."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="vsgae")
    evaluation, metrics = file.message_type.add(name="Evaluation"), file.message_type.add(name="Metrics")
    for number, measure in enumerate(MEASURES, start=1):
        evaluation.field.add(name=measure, number=number, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    metrics.field.add(
        name="evaluation_data", number=1, type=kind.TYPE_MESSAGE, label=kind.LABEL_REPEATED, type_name="Evaluation"
    )
    metrics.field.add(name="trainable_parameters", number=2, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vsgae.Metrics"))


METRICS = _metrics_class()


class _Rows:
    """The table in the making: numbers side by side, 116 bytes a record."""

    def __init__(self) -> None:
        self.known = _known_cells()
        self.offsets, self.runs = array("q"), array("i")  # a run: the cell's place x number of budgets + the budget's
        self.repeats, self.parameters, self.values = array("i"), array("i"), array("d")
        self.adjacency, self.operations = array("i"), array("i")  # positions among these texts
        self.adjacency_texts: dict[str, int] = {}
        self.operations_texts: dict[str, int] = {}
        self.counts = bytearray(len(EPOCHS) * len(self.known.places))  # how many records a run has so far

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, offset: int, module_hash: str, epochs: int, adjacency: str, operations: str, metrics: Any) -> None:
        place = self.known.place(module_hash, adjacency, operations)
        if epochs not in EPOCHS:
            raise ValueError(f"trained for {epochs} epochs; the benchmark has {', '.join(map(str, EPOCHS))}")
        run = len(EPOCHS) * place + EPOCHS.index(epochs)
        repeat = self.counts[run]
        if repeat == REPEATS:
            raise ValueError(f"a record too many of cell {module_hash} at {epochs} epochs, which has {REPEATS} already")
        self.counts[run] += 1
        self.runs.append(run)
        self.repeats.append(repeat)
        self.adjacency.append(self.adjacency_texts.setdefault(adjacency, len(self.adjacency_texts)))
        self.operations.append(self.operations_texts.setdefault(operations, len(self.operations_texts)))
        self.parameters.append(metrics.trainable_parameters)
        _, halfway, final = metrics.evaluation_data
        self.values.append(metrics.total_time)
        self.values.extend(GET_MEASURES(halfway))
        self.values.extend(GET_MEASURES(final))
        self.offsets.append(offset)

    def table(self) -> pa.Table:
        """The rows as a table, once their values and their being there only once are checked."""
        if not len(self):
            raise ValueError("the file holds no records")
        runs, values = np.frombuffer(self.runs, np.int32), np.frombuffer(self.values).reshape(len(self), -1)
        faults = [*self._bad_values(values), *self._twice(runs, values)]
        if faults:
            row, what = min(faults)
            raise ValueError(_located(row, self.offsets[row], what))
        texts = [
            pa.DictionaryArray.from_arrays(pa.array(np.frombuffer(positions, np.int32)), pa.array(list(names)))
            for positions, names in (
                (self.adjacency, self.adjacency_texts),
                (self.operations, self.operations_texts),
            )
        ]
        columns = [
            self.known.hashes.take(pa.array(runs // len(EPOCHS))),
            pa.array(np.array(EPOCHS, np.int32)[runs % len(EPOCHS)]),
            pa.array(np.frombuffer(self.repeats, np.int32)),
            *texts,
            pa.array(np.frombuffer(self.parameters, np.int32)),
            *(pa.array(np.ascontiguousarray(column)) for column in values.T),
        ]
        return pa.table(columns, schema=SCHEMA)

    def _bad_values(self, values: np.ndarray) -> Iterator[tuple[int, str]]:
        for name, column in zip(VALUES, values.T, strict=True):
            limit, allowed = (1, "in [0, 1]") if name.endswith("accuracy") else (np.inf, "finite and not negative")
            bad = ~((column >= 0) & (column <= limit) & np.isfinite(column))
            if bad.any():
                row = int(bad.argmax())
                yield row, f"{name} is {column[row]}; it must be {allowed}"

    def _twice(self, runs: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, str]]:
        """Repeats of a run that are the same to the last digit are one training, recorded twice."""
        order = np.argsort(runs, kind="stable")
        for distance in range(1, REPEATS):
            first, second = order[:-distance], order[distance:]
            for column in (runs, *values.T):
                same = column[first] == column[second]
                first, second = first[same], second[same]
            if len(second):
                at = second.argmin()
                yield int(second[at]), f"the same as record {first[at] + 1}: a duplicate"


class _KnownCells:
    """The benchmark's cells by their hashes, and the form in which the release stores them."""

    def __init__(self) -> None:
        space = load_space()
        self.hashes = space.hashes
        self.places = {module_hash: place for place, module_hash in enumerate(space.hashes.to_pylist())}
        edges = space.cells.adjacency.flatten(1).double() @ 2.0 ** torch.arange(MAX_NODES**2).double()  # exact: 49 bits
        self.matrices = (edges.long() | space.cells.num_nodes << MAX_NODES**2).tolist()
        self.labelings = ((space.cells.operations + 1) << 3 * torch.arange(MAX_NODES)).sum(1).tolist()

    def place(self, module_hash: str, adjacency: str, operations: str) -> int:
        """The cell's position in the enumeration."""
        place = self.places.get(module_hash)
        if (
            place is None
            or self.matrices[place] != _matrix_code(adjacency)
            or self.labelings[place] != _labeling_code(operations)
        ):
            _check_cell(module_hash, adjacency, operations)
            place = self.places[module_hash]  # another form of that cell
        return place


@functools.cache
def _known_cells() -> _KnownCells:
    return _KnownCells()


@functools.cache
def _matrix_code(adjacency: str) -> int:
    """An adjacency as one number: its size, and bit 7 x + y for the edge x -> y. -1 for what is no adjacency."""
    nodes = math.isqrt(len(adjacency))
    if nodes > MAX_NODES or nodes**2 != len(adjacency) or not set(adjacency) <= {"0", "1"}:
        return -1
    edges = sum(1 << MAX_NODES * (i // nodes) + i % nodes for i, digit in enumerate(adjacency) if digit == "1")
    return edges | nodes << MAX_NODES**2


@functools.cache
def _labeling_code(operations: str) -> int:
    """Operations as one number, 3 bits each. -1 for what are no operations."""
    names = operations.split(",")
    if len(names) > MAX_NODES or not set(names) <= set(OPERATIONS):
        return -1
    return sum(OPERATIONS.index(name) + 1 << 3 * i for i, name in enumerate(names))


@functools.cache
def _check_cell(module_hash: str, adjacency: str, operations: str) -> None:
    """ValueError unless these are a cell of the benchmark and its hash."""
    names = operations.split(",")
    if len(adjacency) != len(names) ** 2 or not set(adjacency) <= {"0", "1"}:
        raise ValueError(f"the adjacency {_short(adjacency)} is not {len(names)} x {len(names)} zeros and ones")
    matrix = np.array(list(adjacency), int).reshape(len(names), -1)
    try:
        cell = Cells.from_nasbench([(matrix, names)])
    except ValueError as error:
        raise ValueError(str(error).removeprefix("cell 0: ")) from error
    if not is_nasbench101(cell).all():
        raise ValueError(
            f"{adjacency} with {operations} is no cell of the benchmark: "
            "at most 9 edges, and every node on a path from the input to the output"
        )
    found = module_hashes(cell)[0]
    if found != module_hash:
        raise ValueError(f"the module hash {_short(module_hash)} is not that of its cell, {found}")
