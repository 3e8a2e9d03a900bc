"""A study, which is a file in ``search_spaces/``, and the trials that it stands for."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ConfigDict

from study.autoencoder import AutoencoderTrial
from study.predictor import PredictorTrial
from study.search import Range, Search
from study.settings import CHECKED, build, flatten, merge
from study.storage import Place, place
from study.trial import Measure, TrialConfig, trial_key

PROJECT = Path(__file__).resolve().parents[1]

TRIALS: dict[str, type[TrialConfig]] = {"predictor": PredictorTrial, "autoencoder": AutoencoderTrial}
"""The kinds of trials, by what a study ``trains``."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial gets: CPU cores, and GPUs where there are any. Up to 1 a GPU may be shared, beyond it is whole."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus <= 0:
            raise ValueError(f"cpus is {self.cpus}; it must be above 0")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus % 1):
            raise ValueError(f"gpus is {self.gpus}; it must be between 0 and 1, or a whole number")

    def where(self, num_gpus: float, gpus_per_trial: float | None) -> Resources:
        """What a trial gets where there are ``num_gpus`` GPUs; ``gpus_per_trial`` stands in for the study's figure."""
        if gpus_per_trial is not None:
            return Resources(cpus=self.cpus, gpus=gpus_per_trial)
        return self if num_gpus else Resources(cpus=self.cpus)

    def trials_at_once(self, num_cpus: float, num_gpus: float) -> int:
        """How many trials that get this fit on ``num_cpus`` cores and ``num_gpus`` GPUs."""
        fit = int(num_cpus // self.cpus)
        if self.gpus:
            fit = min(fit, int(num_gpus // self.gpus if self.gpus > 1 else num_gpus * (1 // self.gpus)))
        return fit


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a study repeats.

    Args:
        row, column: where it is in the study's table; without a grid there is one row of it.
        settings: its own.
    """

    row: str
    column: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.row} {self.column}".strip()

    @property
    def compared(self) -> tuple[str, str]:
        """What is compared with others of its kind, and where: rows in a column; without rows, columns."""
        return (self.row, self.column) if self.row else (self.column, "")


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Which of a study's ``measure`` each row of its table is compared in with the row that is the ``reference``."""

    measure: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """One file of ``search_spaces/``: every configuration, repeated with the seeds 0, 1, ...

    Args:
        name: the file's, without ``.yaml``.
        description: one line, the title of its table.
        trains: the kind of its trials, a name in :data:`TRIALS`.
        base: the settings that all configurations share.
        configurations: by name, the settings of its own.
        grid: by the name of a setting its values, a list, or each under a name of its own; instead of one value there
            may be several settings, such as ``{1 %: {sampling.share: 0.01, training.epochs: 90}}``. A study has
            each configuration with every combination of them. The last one's values are the columns of its table.
        local: what ``--local`` changes, so that a trial is done in minutes; ``--set`` goes before it.
        repeats: trials a configuration, with seeds one after the other.
        first_seed: that of the first of them.
        setting: what the study without ``--set`` is called in its table.
        published: the entry of ``results/paper.yaml`` to compare with, if any.
        compare: the measure that the rows of its table are compared in, and with which, if they are.
        stability: the measure whose deviation over repeats is compared between the rows of its table, if any.
        measures: that its table shows, in their order; by default all of its kind of trials.
        search: in place of configurations, grid and repeats: trials that a sampler draws, one after the other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    name: str
    description: str
    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)
    grid: dict[str, list[Any] | dict[str, Any]] = field(default_factory=dict)
    trains: str = "predictor"
    base: dict[str, Any] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    repeats: int = 1
    first_seed: int = 0
    resources: Resources = field(default_factory=Resources)
    setting: str = "base"
    published: str | None = None
    compare: Compare | None = None
    stability: str | None = None
    measures: list[str] = field(default_factory=list)
    search: Search | None = None

    def __post_init__(self) -> None:
        if self.search is not None and (self.configurations or self.grid or self.repeats != 1):
            raise ValueError("a study has a search, or configurations, grid and repeats")
        if not self.configurations and not self.grid and self.search is None:
            raise ValueError("configurations is empty; a study has at least one, a grid, or a search")
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name} is empty; it must have a value")
        if self.trains not in TRIALS:
            raise ValueError(f"trains is {self.trains!r}; allowed are {', '.join(TRIALS)}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed is {self.first_seed}; it must be at least 0")
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; it must be at least 1")
        measures = TRIALS[self.trains].MEASURES
        if self.stability is not None and self.stability not in measures:
            raise ValueError(f"stability is {self.stability!r}; allowed are {', '.join(measures)}")
        if self.compare is not None:
            rows = dict.fromkeys(configuration.compared[0] for configuration in self.expanded.values())
            for name, allowed in (("measure", measures), ("reference", rows)):
                value = getattr(self.compare, name)
                if value not in allowed:
                    raise ValueError(f"compare.{name} is {value!r}; allowed are {', '.join(allowed)}")
        for name in self.measures:
            if name not in measures:
                raise ValueError(f"measures has {name!r}; allowed are {', '.join(measures)}")

    @property
    def shown(self) -> dict[str, Measure]:
        """The measures of its table, by name."""
        measures = TRIALS[self.trains].MEASURES
        return {name: measures[name] for name in self.measures or measures}

    @cached_property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(own.column for own in self.expanded.values()))

    def place(self, configuration: str) -> tuple[str, str]:
        """Row and column of the table; of a published ``ROW COLUMN`` too, whose row is none of the study's own."""
        if configuration in self.expanded:
            own = self.expanded[configuration]
            return own.row, own.column
        for column in self.columns:
            if configuration.endswith(f" {column}"):
                return configuration.removesuffix(f" {column}"), column
        return "", ""

    @cached_property
    def expanded(self) -> dict[str, Configuration]:
        """By name, the configurations with every combination of the grid's values."""
        axes = [self.configurations or {"": {}}]
        for name, values in self.grid.items():
            named = values if isinstance(values, Mapping) else {str(value): value for value in values}
            axes.append({key: dict(own) if isinstance(own, Mapping) else {name: own} for key, own in named.items()})
        found = {}
        for parts in itertools.product(*(axis.items() for axis in axes)):
            *row, column = (name for name, _ in parts)
            configuration = Configuration(
                row=" ".join(filter(None, row)), column=column, settings=merge(*(own for _, own in parts))
            )
            found[configuration.name] = configuration
        return found


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a study.

    Args:
        index: its number in the study's plan, from 0.
        setting: the name of its row in the table.
        overrides: what ``--set`` changed, by dotted name; ``setting`` in a form that can be planned again.
        data_digest: of what it stands on.
    """

    index: int
    study: str
    configuration: str
    setting: str
    overrides: dict[str, Any]
    config: TrialConfig
    key: str
    data_digest: str

    @property
    def name(self) -> str:
        changed = " ".join(["", *map(_assignment, sorted(self.overrides.items()))])
        return f"{self.configuration}/seed={self.config.seed}{changed}"

    @property
    def place(self) -> Place:
        """Where the trial keeps its checkpoint until it is recorded."""
        return place(self.study, self.key)


@dataclass(frozen=True, kw_only=True)
class PlannedSearch:
    """A study's search under some settings.

    Args:
        search: its settings.
        base: what all of its trials have in common, as a trial.
    """

    search: Search
    base: Trial

    @cached_property
    def name(self) -> str:
        """Of all that determines it but the number of trials: what it is called in Optuna's storage."""
        content = json.dumps([self.search.identity(), self.base.key], sort_keys=True)
        return f"{self.base.study}: {self.base.setting}, {hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @property
    def description(self) -> str:
        halving = "none is stopped early"
        if (settings := self.search.halving) is not None:
            halving = f"after {settings.grace} epochs, and each time there are {settings.reduction} times as many, the "
            halving += f"best of {settings.reduction} go on"
        epochs = self.base.config.epochs
        return f"{self.base.setting}: trials drawn by {self.search.sampler}, at most {epochs} epochs each; {halving}"

    def trial(self, number: int, values: Mapping[str, Any]) -> Trial:
        """The trial with these values of the settings that are searched, as Optuna has them.

        Raises:
            ValueError: they do not go together.
        """
        base = self.base.config
        values = {name: self.search.value(name, value) for name, value in values.items()}
        config = build(type(base), merge(dataclasses.asdict(base), values))
        return dataclasses.replace(
            self.base,
            index=number,
            configuration=f"trial {number}",
            config=config,
            key=trial_key(config, self.base.data_digest),
        )


def load_study(name: str) -> Study:
    """A study by its name in ``search_spaces/``, or by the path of a YAML file.

    A file that says ``like: STUDY`` says only in what it differs from that study's; see :func:`_like`.

    Raises:
        ValueError: there is no such study, or its file is wrong; the message names the setting.
    """
    path = _path(name)
    content = _content(path)
    other = content.pop("like", None)
    if other is not None:
        content = _like(str(other), content, path)
    try:
        return build(Study, {**content, "name": path.stem})
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name}")
        return Path(name)
    known = study_files()
    if name not in known:
        raise ValueError(f"unknown study {name!r}; there are: {', '.join(sorted(known))}")
    return known[name]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} must hold settings; its top level is {type(content).__name__}")
    return content


def _like(other: str, content: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a file says, and what that of the study ``other`` says where it says nothing: of ``base``, ``local``
    and ``search`` setting by setting, of ``configurations`` name by name, of all else as a whole."""
    try:
        theirs = _content(_path(other))
        if "like" in theirs:
            raise ValueError(f"{other} is itself like another study")
    except ValueError as error:
        raise ValueError(f"{path.name}: like: {error}") from None
    both = {**theirs, **content}
    for name, join in (("base", merge), ("local", merge), ("search", merge), ("configurations", dict.__or__)):
        parts = [part[name] for part in (theirs, content) if name in part]
        if all(isinstance(part, dict) for part in parts) and len(parts) == 2:
            both[name] = join(*parts)
    return both


def study_files() -> dict[str, Path]:
    """The studies by name: those of the working directory's ``search_spaces/``, then those of the project."""
    folders = [PROJECT / "search_spaces", Path("search_spaces")]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def plan_trials(study: Study, overrides: Mapping[str, Any], source: str | None = None) -> list[Trial]:
    """All trials of a study under the settings ``overrides``, by configuration and then seed.

    Args:
        source: of the labels, in place of the study's. It is no setting of the table: a row says what was trained, the
            table's head what on.

    Raises:
        ValueError: a setting is unknown or its value wrong, two trials would be the same, or the labels are not there.
    """
    overrides, kind = flatten(overrides), TRIALS[study.trains]
    if "seed" in overrides:
        raise ValueError("seed is set by the study's repeats; choose one of them with --trial")
    if source is not None and kind().source is None:
        raise ValueError(f"{study.name} needs no labels; it takes no --data {source}")
    if kind().source is not None:
        source = overrides.pop("labels.source", source)
    labels = {} if source is None else {"labels.source": source}
    own_settings = {name: configuration.settings for name, configuration in study.expanded.items()}
    plain = {name: build(kind, merge(study.base, own, labels)) for name, own in own_settings.items()}
    configs = {name: build(kind, merge(study.base, own, labels, overrides)) for name, own in own_settings.items()}
    for own in own_settings.values():
        try:
            build(kind, merge(study.base, own, labels, study.local))
        except ValueError as error:
            raise ValueError(f"local of {study.name}: {error}") from None
    changed = {}
    for name in sorted(overrides):
        values = [_get(config, name) for config in configs.values()]
        if values != [_get(config, name) for config in plain.values()]:
            changed[name] = values[0]
    setting = " ".join(map(_assignment, changed.items())) or study.setting
    trials: list[Trial] = []
    for configuration, config in configs.items():
        digest = config.data_digest()
        for seed in range(study.first_seed, study.first_seed + study.repeats):
            seeded = dataclasses.replace(config.resolved(), seed=seed)
            trials.append(
                Trial(
                    index=len(trials),
                    study=study.name,
                    configuration=configuration,
                    setting=setting,
                    overrides=changed,
                    config=seeded,
                    key=trial_key(seeded, digest),
                    data_digest=digest,
                )
            )
    [(key, times)] = Counter(trial.key for trial in trials).most_common(1)
    if times > 1:
        first, second, *_ = [trial.name for trial in trials if trial.key == key]
        raise ValueError(f"{first} and {second} would be the same trial; a study has each trial once")
    return trials


def plan_search(study: Study, overrides: Mapping[str, Any], source: str | None = None) -> PlannedSearch:
    """The study's search; as :func:`plan_trials`, but that ``overrides`` may also have settings of ``search``.

    Raises:
        ValueError: as there; or a setting is searched that does not exist or may not have one of its values, or that is
            an override; or an objective is no metric that its trials may be chosen by.
    """
    assert study.search is not None
    overrides, kind = flatten(overrides), TRIALS[study.trains]
    of_search = {name: value for name, value in overrides.items() if name.partition(".")[0] == "search"}
    [base] = plan_trials(study, {name: overrides[name] for name in overrides.keys() - of_search}, source)
    own = flatten({"search": dataclasses.asdict(study.search)})
    try:
        search = build(Search, merge(own, of_search)["search"])
    except ValueError as error:
        raise ValueError(f"search: {error}") from None
    for name in search.objectives:
        if name not in kind.OBJECTIVES:
            raise ValueError(f"search.objectives has {name}; allowed are {', '.join(kind.OBJECTIVES) or 'none'}")
    for name, domain in search.domains.items():
        if name in overrides:
            raise ValueError(f"{name} is searched; to search it elsewhere, set search.space.{name}")
        for value in (domain.low, domain.high) if isinstance(domain, Range) else domain:
            try:
                build(kind, merge(dataclasses.asdict(base.config), {name: value}))
            except ValueError as error:
                raise ValueError(f"search.space.{name}: {error}") from None
        if isinstance(domain, Range) and not isinstance(own_value := _get(base.config, name), int | float):
            raise ValueError(f"search.space.{name} is a range, and {name} is {own_value!r}; a range is of numbers")
    changed = {
        name: value
        for name, value in of_search.items()
        if name != "search.trials" and (name not in own or own[name] != value)
    }
    if changed:
        changed |= base.overrides
        setting = " ".join(map(_assignment, sorted(changed.items())))
        base = dataclasses.replace(base, overrides=changed, setting=setting)
    return PlannedSearch(search=search, base=base)


def _get(config: TrialConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _assignment(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name}={list(value) if isinstance(value, tuple) else value}"
