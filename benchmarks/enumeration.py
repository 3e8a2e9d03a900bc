"""How fast the cell space and its hashes are there.

    python benchmarks/enumeration.py [--repeats 5]

Prints the hashing of cells as a ratio to plain Python (tests/plain_hash.py, one hashlib call a vertex and round), and
what ``python -m vsgae.nasbench101 enumerate`` takes as a whole process: with an empty cache, and from then on, beside
the import of torch alone. Ratios are of medians taken in turn in one run.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))  # before tests/, which has a folder vsgae too
from plain_hash import plain_hash

from vsgae.nasbench101 import enumerate_cells, module_hashes

PROJECT = Path(__file__).resolve().parents[1]
SAMPLE, PLAIN = 32_768, 1_024  # cells for one and for the other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats

    times = [seconds(enumerate_cells) for _ in range(repeats)]
    print(f"enumerating 423,624 cells: {statistics.median(times):.2f} s")

    space = enumerate_cells()
    sample = space[np.random.default_rng(0).permutation(len(space))[:SAMPLE]]
    plain_sample = [sample[i] for i in range(PLAIN)]
    ours, plain = zip(
        *(
            (
                seconds(lambda: module_hashes(sample)) / SAMPLE,
                seconds(lambda: [plain_hash(cell) for cell in plain_sample]) / PLAIN,
            )
            for _ in range(repeats)
        ),
        strict=True,
    )
    our, other = statistics.median(ours), statistics.median(plain)
    print(f"hashing: {1 / our:,.0f} cells/s, plain Python {1 / other:,.0f} cells/s: {other / our:.1f} times as fast")

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vsgae.nasbench101", "enumerate"]
        print(f"cold, the whole process: {process_seconds(command, folder):.1f} s", end=", ")
        print(f"at most {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GiB of memory")
        warm, torch = zip(
            *(
                (process_seconds(command, folder), process_seconds([sys.executable, "-c", "import torch"], folder))
                for _ in range(repeats)
            ),
            strict=True,
        )
    warm_median, torch_median = statistics.median(warm), statistics.median(torch)
    print(f"warm, the whole process: {warm_median:.2f} s, {warm_median / torch_median:.2f} times the import of torch")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def process_seconds(command: list[str], cache: str) -> float:
    environment = {**os.environ, "VSGAE_CACHE": cache}
    return seconds(lambda: subprocess.run(command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.DEVNULL))


if __name__ == "__main__":
    main()
