"""What the command line says about trials; one line an event."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.space import Trial
from vsgae.baselines import BASELINES

if TYPE_CHECKING:  # a trial's process needs no MLflow
    from study.tracking import Recorded


def say(trial: Trial, event: str) -> None:
    print(f"[{trial.index:>2}] {trial.name}: {event}", flush=True)


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:250]


def progress(trial: Trial, metrics: Mapping[str, float]) -> str:
    """An epoch in one line."""
    return (
        f"epoch {metrics['epoch']:.0f}/{trial.config.training.epochs}, "
        f"training loss {metrics['train_loss']:.3g}, validation RMSE {metrics['validation_rmse']:.4f}"
    )


def scores(metrics: Mapping[str, float]) -> str:
    """A finished trial's scores in one line."""
    return (
        f"test RMSE {metrics['test_rmse']:.4f} ({metrics['test_rmse_ratio']:.2f} of the constant predictor's), "
        f"Kendall tau {metrics['test_kendall_tau']:.3f}, epoch {metrics['best_epoch']:.0f}"
    )


def comparison(metrics: Mapping[str, float]) -> str:
    """A finished trial's test scores beside those of both baselines, on the same cells."""
    rows = {"VS-GAE": ""} | {title: f"baseline_{name}_" for name, title in BASELINES.items()}
    width = max(map(len, rows))
    cells = f"{metrics['test_cells']:,.0f} test cells"
    lines = [f"{cells:<{width}}  RMSE    of constant  Kendall tau  Spearman      R2"]
    for title, prefix in rows.items():
        rmse, ratio, tau, spearman, r2 = (
            metrics.get(f"{prefix}test_{name}", math.nan)
            for name in ("rmse", "rmse_ratio", "kendall_tau", "spearman", "r2")
        )
        lines.append(f"{title:<{width}}  {rmse:.4f}  {ratio:11.3f}  {tau:11.3f}  {spearman:8.3f}  {r2:6.3f}")
    return "\n".join(lines)


def listing(trials: Sequence[Trial], runs: Mapping[str, Recorded]) -> str:
    """Every trial and its state, one line each."""
    width = max(len(trial.name) for trial in trials)
    lines = []
    for trial in trials:
        recorded = runs.get(trial.key)
        state = recorded.state if recorded else "missing"
        if recorded and recorded.finished:
            state += f", {scores(recorded.metrics)}"
        lines.append(f"[{trial.index:>2}] {trial.name:<{width}}  {trial.key}  {state}")
    return "\n".join(lines)
