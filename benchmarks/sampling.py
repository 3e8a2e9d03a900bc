"""How long it takes to choose a part of the whole space by each method.

    python benchmarks/sampling.py [--shares 0.01 0.1 0.5 0.9] [--repeats 3] [--latents shipped]

Prints, for each method and share of the 423,624 cells, the seconds from the cells to the chosen ones, embedding
included: the median of several turns, which differ in their seed. The floor is 20 s on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from vsgae.latents import SHIPPED, encoder_means
from vsgae.nasbench101 import load_space
from vsgae.sampling import IN_LATENT_SPACE, SAMPLING_METHODS, sample

FLOOR = 20.0  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 0.5, 0.9])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latents", default=SHIPPED, help="'shipped', or the path of an autoencoder")
    arguments = parser.parse_args()

    cells = load_space().cells
    embed = [seconds(lambda: encoder_means(arguments.latents, cells)) for _ in range(arguments.repeats)]
    embedding = statistics.median(embed)
    latents = encoder_means(arguments.latents, cells)
    print(f"{len(cells):,} cells, {torch.get_num_threads()} threads")
    print(f"embedding in {latents.shape[1]} dimensions: {embedding:.1f} s")
    print(
        f"{'method':<12}" + "".join(f"{share:>9.0%}" for share in arguments.shares) + "   seconds, embedding included"
    )
    slowest = 0.0
    for method in SAMPLING_METHODS:
        own = []
        for share in arguments.shares:
            size = round(share * len(cells))
            times = [
                seconds(lambda: sample(cells, size, method, seed, latents))  # noqa: B023
                for seed in range(arguments.repeats)
            ]
            own.append(statistics.median(times) + (embedding if method in IN_LATENT_SPACE else 0.0))
        slowest = max(slowest, *own)
        print(f"{method:<12}" + "".join(f"{each:9.2f}" for each in own))
    print(f"the slowest takes {slowest:.1f} s; the floor is {FLOOR:.0f} s: {'kept' if slowest <= FLOOR else 'MISSED'}")
    return 0 if slowest <= FLOOR else 1


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
