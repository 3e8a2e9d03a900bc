"""How much faster the encoder is than the same model written edge by edge on torch_geometric's MessagePassing.

    python benchmarks/encoder.py [--threads 2] [--repeats 15]

Prints a training step (batch building, forward, backward, Adam) at two batch sizes, and the evaluation of all 423,624
cells, each as a ratio of medians taken in turn in one run. The per-edge model is tests/per_edge.py with the same
weights; its graphs are made once, outside the clock, and it collates them into a batch as torch_geometric's DataLoader
does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch_geometric.data import Batch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from per_edge import PerEdgePredictor

from vsgae.cells import Cells
from vsgae.evaluation import predict
from vsgae.nasbench101 import enumerate_cells
from vsgae.predictor import AccuracyPredictor, PredictorConfig

STEPS_IN_A_ROW = 10  # of one model before the other's turn, as in training: caches and freed memory are its own
SAMPLE = 8_192  # cells that the per-edge model draws its batches from, and is evaluated on


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
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

    print(f"{arguments.threads} threads, paper's configuration, medians of {arguments.repeats} in turn")
    for size in (128, 1024):
        times = []
        for i in range(arguments.repeats + 1):
            batches = torch.randint(SAMPLE, (STEPS_IN_A_ROW, size))
            pair = seconds(lambda: [reference_step(b) for b in batches]), seconds(lambda: [step(b) for b in batches])  # noqa: B023
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
    return [(seconds(lambda: reference_evaluation(graphs)), seconds(lambda: predict(model, space))) for _ in range(3)]


def report(what: str, reference_cells: int, cells: int, times: list[tuple[float, float]]) -> None:
    """One line: the time of a cell edge by edge and here, the ratio of their medians, and its range over the pairs."""
    theirs, ours = (
        statistics.median(column) / n
        for column, n in zip(zip(*times, strict=True), (reference_cells, cells), strict=True)
    )
    ratios = sorted((a / reference_cells) / (b / cells) for a, b in times)
    print(
        f"{what}: per edge {theirs * 1e6:8.1f} us/cell, here {ours * 1e6:7.2f} us/cell ({1 / ours:,.0f} cells/s): "
        f"{theirs / ours:.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f})"
    )


if __name__ == "__main__":
    main()
