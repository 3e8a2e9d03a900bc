"""What the command line says about trials; one line an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.space import Trial

if TYPE_CHECKING:  # a trial's process needs no MLflow
    from study.tracking import Recorded


def say(trial: Trial, event: str) -> None:
    print(f"[{trial.index:>2}] {trial.name}: {event}", flush=True)


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:250]


def listing(trials: Sequence[Trial], runs: Mapping[str, Recorded]) -> str:
    """Every trial and its state, one line each."""
    width = max((len(trial.name) for trial in trials), default=0)
    lines = []
    for trial in trials:
        recorded = runs.get(trial.key)
        state = recorded.state if recorded else "missing"
        if recorded and recorded.finished:
            state += f", {trial.config.scores(recorded.metrics)}"
        lines.append(f"[{trial.index:>2}] {trial.name:<{width}}  {trial.key}  {state}")
    return "\n".join(lines)
