"""One trial: a configuration in, metrics epoch by epoch and a model out. No Ray and no MLflow in it."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
from pydantic import ConfigDict
from torch import nn

from study.settings import CHECKED, flatten, merge
from vsgae.splits import SplitConfig

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Part of every trial's key. Raise it when a change of the code changes the results of an unchanged configuration."""

CHECKPOINT, MODEL, CONFIG = "checkpoint.pt", "model.safetensors", "config.json"

OURS = "VS-GAE"
PER_CENT = "per cent"

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """What a trial stands on.

    Args:
        description: one line for a reader: whose labels, which, of how many cells.
        facts: what a published figure must have in common with it to be comparable: source, metric, epochs, cells.
        caution: what a reader of its tables must know; empty if nothing.
        is_predicted: these labels are a model's.
    """

    description: str
    facts: Mapping[str, Any]
    caution: str = ""
    is_predicted: bool = False


@dataclass(frozen=True)
class Measure:
    """How a final metric is shown in tables.

    Args:
        title: its name.
        block: where a table has a column a measure, the block of the table that it is in.
        unit: of a number, none; or ``PER_CENT``, of a share in [0, 1].
        higher_is_better: or lower.
        undefined: what a trial whose value is not a number counts as where rows are compared; none: not at all.
    """

    title: str
    block: str = ""
    unit: str = ""
    higher_is_better: bool = False
    undefined: float = math.nan

    def show(self, mean: float, relative_deviation: float, median: float, n: float) -> str:
        """``0.0205 ± 3.4 % (n = 3, median 0.0200)``; a deviation in per cent is relative to the mean, one of per cents
        is in points."""
        if self.unit == PER_CENT:
            figure, middle = f"{100 * mean:.2f} %", f"{100 * median:.2f} %"
            spread = f" ± {100 * mean * relative_deviation:.2f}"
        else:
            figure, middle = f"{mean:.4f}", f"{median:.4f}"
            spread = f" ± {100 * relative_deviation:.1f} %"
        if math.isnan(relative_deviation):
            spread = ""
        of = f" (n = {n:.0f}{f', median {middle}' if n > 2 and not math.isnan(median) else ''})" if n >= 1 else ""
        return f"{figure}{spread}{of}"


@dataclass(frozen=True, kw_only=True)
class TrialConfig(ABC):
    """All that a trial depends on, how it is run, and what is said of it. A subclass is a kind of trial; a study's
    ``trains`` names it.

    Args:
        split: of the cells; it has a seed of its own.
        seed: of the weights, the order of batches, and every other draw.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    MEASURES: ClassVar[Mapping[str, Measure]]
    """The final metrics that tables show."""
    METHODS: ClassVar[Mapping[str, str]]
    """The methods that a trial scores, by the prefix of their metrics: baselines first, the model last."""
    CELLS: ClassVar[Mapping[str, str]] = {
        "train_cells": "training",
        "validation_cells": "validation",
        "test_cells": "test",
    }
    """The final metrics that count cells, and what a table's head calls them."""
    COSTS: ClassVar[Mapping[str, str]] = {"parameters": "parameters", "training_seconds": "training, s"}
    """The final metrics that say what a model takes, and what a comparison calls them."""
    OBJECTIVES: ClassVar[tuple[str, ...]] = ()
    """The final metrics that a search may choose by: no test cell has a part in them."""
    FILES: ClassVar[tuple[str, ...]] = (MODEL, CONFIG)
    """What a finished trial leaves in its directory."""

    split: SplitConfig = field(default_factory=SplitConfig)
    seed: int = 0

    @property
    @abstractmethod
    def epochs(self) -> int:
        """That it trains for."""

    @property
    @abstractmethod
    def curve(self) -> str:
        """The metric of an epoch that says how the trial is doing; lower is better."""

    @abstractmethod
    def data(self) -> Data:
        """What it stands on, loaded if need be.

        Raises:
            ValueError: it is not there, or damaged.
        """

    @property
    def source(self) -> str | None:
        """Of its labels, as ``--data`` names it; None for a trial without labels."""
        return None

    def data_digest(self) -> str:
        """Of what it stands on, without loading it."""
        return "no labels"

    @property
    def baselines_depend_on(self) -> Hashable:
        """Beside the data: trials with the same have the same baselines."""
        return self.split

    def resolved(self) -> Self:
        """The same trial for a process that works in another directory."""
        return self

    def stands_on_the_same_as(self, other: TrialConfig) -> bool:
        return self.source == other.source

    def settings(self) -> dict[str, Any]:
        """As nested dictionaries, without where anything lies on this machine."""
        return asdict(self)

    @abstractmethod
    def run(self, directory: Path, device: str = "cpu") -> Iterator[dict[str, float]]:
        """Train, evaluate once, and leave ``FILES`` in ``directory``.

        Run again with the same directory, it goes on after the last finished epoch, having yielded the finished ones
        again.

        Yields:
            For every epoch a dictionary with ``epoch`` (from 1) and its metrics; last, without ``epoch``, the final
            metrics, of which none has the name of an epoch's.
        """

    def write_config(self, directory: Path, **more: Any) -> None:
        """Leave the settings, and what else there is to say of the model, as JSON; it has no infinite numbers."""
        values = {
            name: str(value) if isinstance(value, float) and math.isinf(value) else value
            for name, value in flatten(self.settings()).items()
        }
        (directory / CONFIG).write_text(json.dumps(merge(values, more), indent=2) + "\n")

    @abstractmethod
    def network(self) -> nn.Module:
        """Its model, before training."""

    def parameters(self) -> int:
        """How many weights its model has; none is made for it."""
        with torch.device("meta"):
            return sum(weight.numel() for weight in self.network().parameters())

    @abstractmethod
    def progress(self, metrics: Mapping[str, float]) -> str:
        """An epoch in one line."""

    @staticmethod
    @abstractmethod
    def scores(metrics: Mapping[str, float]) -> str:
        """The final metrics in one line."""

    @staticmethod
    @abstractmethod
    def report(metrics: Mapping[str, float]) -> str:
        """The final metrics in several lines."""

    @staticmethod
    def remarks(scores: pd.DataFrame) -> dict[str, str]:
        """What a reader of a table must be told, by title.

        Args:
            scores: one row a finished trial and method: ``trial`` (its name), ``method`` and the measures.
        """
        return {}


def timed(training: Generator[dict[str, float], None, T]) -> Generator[dict[str, float], None, tuple[T, float]]:
    """The same training; beside its result, the sum of its epochs' ``seconds``."""
    seconds = 0.0
    while True:
        try:
            metrics = next(training)
        except StopIteration as end:
            return end.value, seconds
        seconds += metrics["seconds"]
        yield metrics


def trial_key(config: TrialConfig, data_digest: str) -> str:
    """16 hexadecimal digits that name the trial by what determines its result.

    Of the configuration only what differs from the defaults: a setting that a later version adds, with today's
    behaviour as its default, leaves the keys of today's trials as they are.
    """
    defaults = flatten(type(config)().settings())
    changed = {name: value for name, value in flatten(config.settings()).items() if value != defaults[name]}
    content = {"config": changed, "labels": data_digest, "schema": SCHEMA_VERSION}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
