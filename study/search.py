"""The settings of a search: what a study's file has under ``search``. Optuna's own names, and no Optuna in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from study.settings import CHECKED, build, flatten

Sampler = Literal["tpe", "gp", "random", "nsga2"]
Direction = Literal["maximize", "minimize"]
LIMITED = ("parameters",)
Value = bool | int | float | str | list
BOUNDS = ("low", "high", "log")


@dataclass(frozen=True, kw_only=True)
class Range:
    """Every number from ``low`` to ``high``, both included; with ``log``, each order of magnitude as likely as another.
    A setting that is a whole number is searched among whole numbers."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must not be above high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; with log it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) with epochs as the resource: after ``grace``
    epochs, and each time there are ``reduction`` times as many, only the best of ``reduction`` trials go on."""

    grace: int
    reduction: int = 3

    def __post_init__(self) -> None:
        if self.grace < 1:
            raise ValueError(f"grace is {self.grace}; it must be at least 1")
        if self.reduction < 2:
            raise ValueError(f"reduction is {self.reduction}; it must be at least 2")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a trial may have at most; one that would have more is drawn, but not trained, and not counted."""

    at_most: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """Args:
    objectives: one or two final metrics that no test cell decides, each ``maximize`` or ``minimize``.
    space: by the dotted name of a setting its values, a list or a :class:`Range`.
    trials: how many; ``--trials`` adds to what is recorded.
    sampler: ``tpe``, ``gp``, ``nsga2``, or ``random`` to compare with.
    seed: of the sampler. A trial's draws depend on it, the trial's number and the trials before.
    halving: which trials are stopped early; none without it.
    constraints: by a name in :data:`LIMITED` its limit.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    objectives: dict[str, Direction]
    space: dict[str, Any]
    trials: int
    sampler: Sampler = "tpe"
    seed: int = 0
    halving: Halving | None = None
    constraints: dict[str, Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.objectives) <= 2:
            raise ValueError(f"objectives has {len(self.objectives)}; it must have one or two")
        for name in self.objectives:
            if name.startswith("test_"):
                raise ValueError(f"objectives has {name}; test cells choose nothing, the validation cells do")
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}; it must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")
        if self.halving is not None and self.curve is None:
            raise ValueError("halving needs one objective that begins with best_validation_, whose epochs it compares")
        for name in self.constraints:
            if name not in LIMITED:
                raise ValueError(f"constraints has {name}; allowed is {', '.join(LIMITED)}")
        if not self.domains:
            raise ValueError("space is empty; it must have a setting")

    @property
    def curve(self) -> str | None:
        """The metric of an epoch that says how a trial is doing, if its final value is the one objective."""
        [name, *others] = self.objectives
        return name.removeprefix("best_") if name.startswith("best_validation_") and not others else None

    @cached_property
    def domains(self) -> dict[str, list[Any] | Range]:
        """By the dotted name of each searched setting the values it may have.

        Raises:
            ValueError: these are no list, and no range.
        """
        found: dict[str, Any] = {}
        for name, value in flatten(self.space).items():
            setting, _, bound = name.rpartition(".")
            if bound in BOUNDS:
                found.setdefault(setting, {})[bound] = value
            else:
                found[name] = value
        for name, values in found.items():
            if isinstance(values, Mapping):
                try:
                    found[name] = build(Range, values)
                except ValueError as error:
                    raise ValueError(f"space.{name}: {error}") from None
            elif not (isinstance(values, list) and values and all(isinstance(each, Value) for each in values)):
                raise ValueError(f"space.{name} is {values!r}; it must be a list of values, or have low and high")
        return found

    def value(self, name: str, drawn: Any) -> Any:
        """What Optuna drew for a setting, as the setting's value; see :func:`as_choice`."""
        domain = self.domains[name]
        return drawn if isinstance(domain, Range) else next(each for each in domain if as_choice(each) == drawn)

    def identity(self) -> dict[str, Any]:
        """All but how many trials: with more of them it is the same search."""
        space = {name: asdict(domain) if isinstance(domain, Range) else domain for name, domain in self.domains.items()}
        values = {**asdict(self), "space": space, "trials": None}
        return {name: value for name, value in flatten(values).items() if value is not None}


def as_choice(value: Value) -> bool | int | float | str:
    """A value as Optuna's storage can hold it: a list as its text."""
    return str(value) if isinstance(value, list) else value
