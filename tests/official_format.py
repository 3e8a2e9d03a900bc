"""A writer of the official release's format, apart from the reader: TFRecord frames and the protobuf, byte by byte.

THE ACCURACIES AND TIMES IT WRITES ARE INVENTED.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from vsgae.cells import Cells

# A record's five parts. Evaluations are (epoch, seconds, train, validation, test accuracy).
Record = tuple[str, int, str, str, str]
Evaluation = tuple[float, float, float, float, float]


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(data: bytes, crc: Callable[[bytes], int] = crc32c) -> bytes:
    """One TFRecord."""

    def masked(part: bytes) -> bytes:
        value = crc(part)
        return struct.pack("<I", ((value >> 15 | value << 17) % 2**32 + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def metrics(evaluations: Iterable[Evaluation], parameters: int, total_time: float, extra: bytes = b"") -> str:
    """The protobuf in base64; ``extra`` follows the five doubles of each evaluation."""
    message = b""
    for evaluation in evaluations:
        fields = b"".join(struct.pack("<Bd", number << 3 | 1, value) for number, value in enumerate(evaluation, 1))
        message += b"\x0a" + varint(len(fields + extra)) + fields + extra
    message += b"\x10" + varint(parameters) + struct.pack("<Bd", 3 << 3 | 1, total_time)
    return base64.b64encode(message).decode()


def varint(value: int) -> bytes:
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def texts(cells: Cells) -> Iterator[tuple[str, str]]:
    """Adjacency and operations of each cell, as a record holds them."""
    for matrix, names in cells.to_nasbench():
        yield "".join(map(str, matrix.ravel().tolist())), ",".join(names)


def records(
    cells: Cells, hashes: Iterable[str], epochs: Iterable[int] = (108,), repeats: int = 3, seed: int = 0
) -> Iterator[Record]:
    """``repeats`` invented runs of every cell for each number of epochs, cell by cell."""
    rng, epochs = np.random.default_rng(seed), tuple(epochs)
    for module_hash, (adjacency, operations) in zip(hashes, texts(cells), strict=True):
        for budget in epochs:
            for accuracies in (rng.integers(1000, 9985, (repeats, 3)) / 9984).tolist():
                train, validation, test = accuracies
                evaluations = [
                    (0.0, 0.0, 0.1, 0.1, 0.1),
                    (budget / 2, 7.5 * budget + test, train / 2, validation / 2, test / 2),
                    (float(budget), 15.0 * budget + train, train, validation, test),
                ]
                yield module_hash, budget, adjacency, operations, metrics(evaluations, 8_555_530, 16.0 * budget + train)


def write(path: Path, records: Iterable[Record], crc: Callable[[bytes], int] = crc32c) -> Path:
    with open(path, "wb") as file:
        for record in records:
            file.write(frame(json.dumps(record).encode(), crc))
    return path
