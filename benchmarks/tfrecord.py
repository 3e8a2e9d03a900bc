"""How fast the official release is read, from a file of its format and size with invented accuracies.

    python benchmarks/tfrecord.py [--cells 423624]

Writes the file (three records a cell) into a temporary folder, reads it in a fresh process, reads it again in another,
which finds the kept table, and compares the first with a plain reader (json, base64, struct, and a CRC32C byte by byte)
on some of the records.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))  # before tests/, which has a folder vsgae too
import official_format

from vsgae.nasbench101 import load_space
from vsgae.nasbench101.cache import cache_path
from vsgae.nasbench101.space import VERSION

PROJECT = Path(__file__).resolve().parents[1]
PLAIN = 10_000  # records for the plain reader
READ = """
import resource, sys, time
from vsgae.nasbench101 import read_tfrecord
start = time.perf_counter()
rows = read_tfrecord(sys.argv[1]).num_rows
print(rows, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=423_624)
    arguments = parser.parse_args()
    space = load_space()
    cells, hashes = space.cells[: arguments.cells], space.hashes[: arguments.cells].to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(cache_path("nasbench101-cells", VERSION), folder)  # enumerating is not what is measured
        path = official_format.write(
            Path(folder) / "generated.tfrecord", official_format.records(cells, hashes), google_crc32c.value
        )
        print(f"{3 * len(cells):,} records, {path.stat().st_size / 1e6:.0f} MB")
        records, cold, memory = read(path)
        print(f"first read:  {cold:6.2f} s, {records / cold:,.0f} records/s, at most {memory / 1e9:.2f} GB of memory")
        _, warm, memory = read(path)
        print(f"second read: {warm:6.2f} s, {cold / warm:.0f} times as fast, at most {memory / 1e9:.2f} GB of memory")
        start = time.perf_counter()
        some = sum(1 for _, _ in zip(range(PLAIN), plain_reader(path), strict=False))
        plain = some / (time.perf_counter() - start)
        print(f"plain reader: {plain:,.0f} records/s; the first read is {records / cold / plain:.1f} times as fast")


def read(path: Path) -> tuple[int, float, float]:
    """Records, seconds and peak memory in bytes of :func:`read_tfrecord` in a process of its own."""
    environment = {**os.environ, "VSGAE_CACHE": str(path.parent)}
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    records, seconds, memory = done.stdout.split()
    return int(records), float(seconds), float(memory)


def plain_reader(path: Path) -> Iterator[tuple[str, int, str, str, list[float]]]:
    """Record by record in Python alone, the CRCs checked; no check of the cell."""
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)

    def masked_crc(data: bytes) -> int:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 255] ^ crc >> 8
        crc ^= 0xFFFFFFFF
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    with open(path, "rb") as file:
        while header := file.read(12):
            length, crc = struct.unpack("<QI", header)
            data, data_crc = file.read(length), *struct.unpack("<I", file.read(4))
            if masked_crc(header[:8]) != crc or masked_crc(data) != data_crc:
                raise ValueError("a wrong CRC")
            module_hash, epochs, adjacency, operations, metrics = json.loads(data)
            message = base64.b64decode(metrics)
            places = [47 * stage + 3 + 9 * field for stage in (1, 2) for field in range(5)]
            values = [struct.unpack_from("<d", message, place)[0] for place in places]
            yield module_hash, epochs, adjacency, operations, values


if __name__ == "__main__":
    main()
