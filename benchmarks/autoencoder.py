"""How fast VS-GAE is, beside the same model written step by step and edge by edge, and beside a matrix product.

    python benchmarks/autoencoder.py [--threads 2] [--repeats 10] [--node-dim 250]

Prints a training step (batch building, forward, backward, Adam; batch 128) as a ratio to the per-edge model's, of
medians taken in turn in one run; then for a training step and for decoding 10,000 points the share of the rate of a
4096 x 4096 matrix product, on the floating-point operations that torch counts in their matrix products, and where the
rest of the time goes.

The per-edge model is tests/per_edge.py with the same weights and the same (fused) Adam. The graphs that it collates
into a batch for every step are made outside the clock, as are the distinct states that the encoder selects from.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))  # before tests/, which has a folder vsgae too
from per_edge import PerEdgeVSGAE, prefixes

from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.encoder import EncoderConfig
from vsgae.nasbench101 import enumerate_cells

BATCH = 128
SAMPLE = 2_048  # cells that batches are drawn from
POINTS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--node-dim", type=int, default=250)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    space = enumerate_cells()
    cells = space[torch.randperm(len(space))[:SAMPLE]]
    graphs = [prefixes(graph) for graph in cells.to_data()]
    model = VSGAE(VSGAEConfig(encoder=EncoderConfig(node_dim=arguments.node_dim)))
    refined = model.encoder.refine(cells)
    reference = PerEdgeVSGAE.like(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    reference_optimizer = torch.optim.Adam(reference.parameters(), lr=1e-4, fused=True)

    def step(batch: torch.Tensor) -> None:
        loss = model.loss(cells[batch], refined[batch])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def reference_step(batch: torch.Tensor) -> None:
        loss = reference.loss([graphs[i] for i in batch.tolist()], torch.randn(len(batch), 56))
        reference_optimizer.zero_grad()
        loss.backward()
        reference_optimizer.step()

    print(f"{arguments.threads} threads, d_n = {arguments.node_dim}, d_g = 56, batch {BATCH}")
    pairs = []
    for turn in range(arguments.repeats + 1):
        batches = torch.randint(SAMPLE, (3, BATCH))
        pair = [sum(seconds(lambda b=b, s=s: s(b)) for b in batches) for s in (reference_step, step)]
        if turn:
            pairs.append(pair)
    theirs, ours = (statistics.median(column) / 3 for column in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    print(
        f"training step: per edge {theirs * 1e3:.0f} ms, here {ours * 1e3:.0f} ms ({BATCH / ours:,.0f} cells/s): "
        f"{theirs / ours:.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}; {len(pairs)} turns of 3 steps)"
    )
    z = torch.randn(POINTS, 56)
    batch = torch.randint(SAMPLE, (BATCH,))
    against_products("training step", lambda: step(batch), arguments.repeats)
    against_products(f"decoding {POINTS:,} points", lambda: model.decode(z), 3)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def against_products(what: str, work: Callable[[], object], repeats: int) -> None:
    """The share of the rate of a large matrix product that ``work`` reaches, and what its time goes to."""
    work()
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as recorded:
        work()
    a, b = torch.randn(2, 4096, 4096).unbind()
    times, rates = [], []
    for _ in range(repeats):
        rates.append(2 * 4096**3 / seconds(lambda: a @ b))
        times.append(seconds(work))
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    flops = sum(event.flops for event in events if event.key in ("aten::mm", "aten::addmm", "aten::bmm"))
    took, rate = statistics.median(times), statistics.median(rates)
    print(
        f"{what}: {took * 1e3:.0f} ms for {flops / 1e9:.1f} GFLOP = {flops / took / 1e9:.0f} GFLOP/s, "
        f"{flops / took / rate:.0%} of a large product's {rate / 1e9:.0f} GFLOP/s"
    )
    total = sum(event.self_cpu_time_total for event in events)
    shares = [f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / total:.0%}" for event in events[:8]]
    print(f"  of its time: {', '.join(shares)}")


if __name__ == "__main__":
    main()
