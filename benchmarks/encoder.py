"""How much faster the encoder is than the same model written edge by edge on torch_geometric's MessagePassing.

    python benchmarks/encoder.py [--threads 2] [--repeats 15]

Prints a training step (batch building, forward, backward, Adam) at two batch sizes, and an evaluation, each as a ratio
of medians taken in turn in one run. A turn of training is ten steps of one model in a row, as in training; a turn of
the evaluation is all 423,624 cells here, and 8,192 of them edge by edge.

The per-edge model is tests/per_edge.py with the same weights and the same (fused) Adam. What a training makes once is
made once for both, outside the clock: the graphs that the per-edge model collates into a batch as torch_geometric's
DataLoader does, and the distinct states that the encoder selects a batch from.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Batch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))  # before tests/, which has a folder vsgae too
from per_edge import PerEdgePredictor

from vsgae.cells import Cells
from vsgae.evaluation import predict
from vsgae.nasbench101 import enumerate_cells
from vsgae.predictor import AccuracyPredictor, PredictorConfig

STEPS_IN_A_ROW = 10  # of one model before the other's turn, as in training: caches and freed memory are its own
SAMPLE = 8_192  # cells that the per-edge model draws its batches from, and is evaluated on


def seconds(work: Callable[[Any], object], arguments: Iterable) -> float:
    """Of ``work`` on each argument in turn."""
    start = time.perf_counter()
    for argument in arguments:
        work(argument)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    space = enumerate_cells()
    sample = space[torch.randperm(len(space))[:SAMPLE]]
    graphs = sample.to_data()
    values = torch.rand(SAMPLE)

    model = AccuracyPredictor(PredictorConfig())
    refined = model.encoder.refine(sample)
    reference = PerEdgePredictor.like(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    reference_optimizer = torch.optim.Adam(reference.parameters(), lr=1e-5, fused=True)

    def step(batch: torch.Tensor) -> None:
        loss = (model(refined[batch]) - values[batch]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def reference_step(batch: torch.Tensor) -> None:
        graph_batch = Batch.from_data_list([graphs[i] for i in batch.tolist()])
        loss = (reference(graph_batch) - values[batch]).square().mean()
        reference_optimizer.zero_grad()
        loss.backward()
        reference_optimizer.step()

    print(f"{arguments.threads} threads, paper's configuration")
    for size in (128, 1024):
        times = []
        for i in range(arguments.repeats + 1):
            batches = torch.randint(SAMPLE, (STEPS_IN_A_ROW, size))
            pair = seconds(reference_step, batches), seconds(step, batches)
            if i >= 1:
                times.append(pair)
        cells = STEPS_IN_A_ROW * size
        report(f"training step, batch {size:5d}", cells, cells, times)

    @torch.no_grad()
    def reference_evaluation(of: list) -> None:
        for start in range(0, len(of), 1024):
            reference(Batch.from_data_list(of[start : start + 1024]))

    report(
        f"evaluation, all {len(space):,d} cells",
        SAMPLE,
        len(space),
        evaluation_times(model, space, graphs, reference_evaluation),
    )


def evaluation_times(
    model: AccuracyPredictor, space: Cells, graphs: list, reference_evaluation: Callable[[list], None]
) -> list[tuple[float, float]]:
    predict(model, space[:1000])
    reference_evaluation(graphs[:1024])
    return [
        (seconds(reference_evaluation, [graphs]), seconds(lambda cells: predict(model, cells), [space]))
        for _ in range(3)
    ]


def report(what: str, reference_cells: int, cells: int, times: list[tuple[float, float]]) -> None:
    """One line: the time of a cell edge by edge and here, the ratio of their medians, and its range over the pairs."""
    theirs, ours = (
        statistics.median(column) / n
        for column, n in zip(zip(*times, strict=True), (reference_cells, cells), strict=True)
    )
    ratios = sorted((a / reference_cells) / (b / cells) for a, b in times)
    print(
        f"{what}: per edge {theirs * 1e6:8.1f} us/cell, here {ours * 1e6:7.2f} us/cell ({1 / ours:,.0f} cells/s): "
        f"{theirs / ours:.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f}; {len(times)} turns)"
    )


if __name__ == "__main__":
    main()
