"""Drives a training, which is a generator of one dictionary of metrics an epoch."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

TIMINGS = ("seconds", "cells_per_second", "training_seconds")


def train(generator: Generator[dict, None, Any], epochs: int | None = None) -> tuple[list[dict], Any]:
    """The metrics of the first ``epochs`` epochs, without timings, and the result if training ended by then."""
    metrics, result = [], None
    while result is None and (epochs is None or len(metrics) < epochs):
        try:
            metrics.append(next(generator))
        except StopIteration as stop:
            result = stop.value
    return [without_times(epoch) for epoch in metrics], result


def without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMINGS}
