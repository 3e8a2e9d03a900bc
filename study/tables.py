"""From finished runs to ``results/<study>.{csv,md,tex}``.

Rows are methods and settings: the published figures, the baselines if there are any, then VS-GAE under the study's own
setting and under every other. Columns are configurations, and there is a block for each measure; or, where a kind of
trial has its measures in blocks, columns are measures and each configuration is a row. Of a study with a grid, columns
are the last axis, and there is a row for every combination of the others. A figure is the mean over n repeats with its
relative standard deviation, the sample deviation (ddof = 1) over the mean, as in the paper's Table 1, and with the
median, which one repeat that went astray does not move.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import yaml
from pydantic import ConfigDict

from study.comparison import compare_rows, compare_stability
from study.markup import Block, latex, markdown
from study.settings import CHECKED, build
from study.space import PROJECT, Study, Trial, plan_trials
from study.tracking import Recorded
from study.trial import OURS, PER_CENT, Data, TrialConfig

FIGURES = {
    "": "mean over n repeats ± relative standard deviation (sample deviation, ddof = 1, over the mean), median",
    PER_CENT: "mean over n repeats in per cent ± standard deviation in points (sample deviation, ddof = 1), median",
}
"""How figures are written, by their measure's unit."""

STATISTICS = ("", "_relative_std", "_median", "_n")  # of a measure: what is added to its name


@dataclass(frozen=True, kw_only=True)
class Published:
    """An entry of ``results/paper.yaml``: figures (``mean``, perhaps ``relative_deviation``) by configuration (or, as
    ``ROW COLUMN``, in a row of their own) and measure, and the labels that they stand on."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    source: str
    values: dict[str, dict[str, dict[str, float]]]
    labels: dict[str, Any]
    repeats: int | None = None
    note: str = ""

    @staticmethod
    def read(name: str) -> Published:
        entries = yaml.safe_load((PROJECT / "results" / "paper.yaml").read_text())
        if name not in entries:
            raise ValueError(f"published is {name!r}; results/paper.yaml has {', '.join(entries)}")
        return build(Published, entries[name])

    def check(self, kind: type[TrialConfig]) -> None:
        """Raise ValueError if trials of this kind have no such figures."""
        measures = {measure for figures in self.values.values() for measure in figures}
        unknown = sorted(measures - kind.MEASURES.keys())
        if unknown:
            raise ValueError(
                f"the published figures of {self.source} are {', '.join(unknown)}; the trials of this study have "
                f"{', '.join(kind.MEASURES)}"
            )

    def not_comparable(self, data: Data) -> str:
        """Why the figures cannot be compared with those on ``data``; empty where they can."""
        here = data.facts
        different = [f"{name} {here[name]}, not {value}" for name, value in self.labels.items() if here[name] != value]
        return "other labels: " + ", ".join(different) if different else ""


def write_tables(
    study: Study,
    trials: Sequence[Trial],
    runs: Mapping[str, Recorded],
    *,
    command: str,
) -> list[Path]:
    """Write the table as CSV (one row a method, setting and configuration), Markdown and LaTeX; and, where the study
    compares its rows or their stability, each of that as another CSV.

    On predicted labels its files are ``<study>-surrogate*``.

    Args:
        trials: all trials of the study under the setting that was just run.
        runs: what is recorded of the study, by trial key.
        command: the one that writes this table.
    """
    kind = type(trials[0].config)
    shown = settings_to_show(study, trials, runs)
    scores = _scores(kind, shown, runs)
    stands_on = list({trial.config.data().description: trial.config.data() for trial in trials}.values())
    reason = ""
    parts = [_failures(trials, runs), _aggregate(kind, scores)]
    if study.published is not None:
        published = Published.read(study.published)
        reason = "; ".join(dict.fromkeys(filter(None, map(published.not_comparable, stands_on))))
        parts.insert(0, _published(published, reason))
    figures = [f"{measure}{statistic}" for measure in kind.MEASURES for statistic in STATISTICS]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table = table.reindex(columns=["method", "setting", "configuration", "n", *figures, "note"])
    head = {
        "labels": "; ".join(each.description for each in stands_on),
        "command": command,
        "commit": ", ".join(sorted({runs[key].tags["git_commit"] for key in scores["key"]})),
    }
    folder = Path("results")
    folder.mkdir(exist_ok=True)
    predicted = any(each.is_predicted for each in stands_on)
    name = f"{study.name}-surrogate" if predicted else study.name  # never in place of measured results
    files = [folder / f"{name}{suffix}" for suffix in (".csv", ".md", ".tex")]
    table.assign(**head).to_csv(files[0], index=False, float_format="%.6g")
    written_as = "; ".join(FIGURES[unit] for unit in dict.fromkeys(measure.unit for measure in kind.MEASURES.values()))
    counts = _cell_counts(study, kind, scores)
    head |= {f"cells ({' / '.join(kind.CELLS.values())})": counts, "figures": written_as}
    cautions = "; ".join(dict.fromkeys(each.caution for each in stands_on if each.caution))
    head |= ({"caution": cautions} if cautions else {}) | kind.remarks(scores)
    if study.published is not None:
        head["published"] = f"{published.source}. {published.note}"
        if reason:
            head["not comparable"] = f"the published figures stand on {reason}"
    blocks = _blocks(study, kind, table)
    asked = {"comparison": (study.compare, compare_rows), "stability": (study.stability, compare_stability)}
    for title, (measure, compare) in asked.items():
        if measure is None or not len(scores):
            continue
        compared, more, how = compare(study, kind, scores)
        blocks, head = blocks + more, head | how
        if len(compared):
            files.append(folder / f"{name}_{title}.csv")
            compared.to_csv(files[-1], index=False, float_format="%.6g")
    files[1].write_text(markdown(study, blocks + _failed(table), head))
    files[2].write_text(latex(study, blocks, head))
    return files


def settings_to_show(study: Study, trials: Sequence[Trial], runs: Mapping[str, Recorded]) -> dict[str, Sequence[Trial]]:
    """The settings of the table and their trials: the study's own first, the others by name.

    A setting other than that of ``trials`` is shown once all of its trials, on the same labels, are finished.
    """
    shown: dict[str, Sequence[Trial]] = {trials[0].setting: trials}
    for overrides in {"{}", *(run.tags["overrides"] for run in runs.values())}:
        try:
            others = plan_trials(study, json.loads(overrides), trials[0].config.source)
        except ValueError:  # recorded before the study or the code changed: no longer one of its settings
            continue
        pairs = zip(others, trials, strict=True)
        same_labels = all(other.config.stands_on_the_same_as(trial.config) for other, trial in pairs)
        if same_labels and all(trial.key in runs and runs[trial.key].finished for trial in others):
            shown.setdefault(others[0].setting, others)
    return dict(sorted(shown.items(), key=lambda item: (item[0] != study.setting, item[0])))


def _scores(
    kind: type[TrialConfig], shown: Mapping[str, Sequence[Trial]], runs: Mapping[str, Recorded]
) -> pd.DataFrame:
    """One row a finished trial and method, baselines first.

    A baseline that is the same in several trials is shown once.
    """
    rows: list[dict[str, Any]] = []
    for prefix, method in kind.METHODS.items():
        seen = set()
        for setting, trials in shown.items():
            for trial in trials:
                if trial.key not in runs or not runs[trial.key].finished:
                    continue
                if prefix and trial.config.baselines_depend_on in seen:
                    continue
                seen.add(trial.config.baselines_depend_on)
                metrics = runs[trial.key].metrics
                rows.append(
                    {
                        "key": trial.key,
                        "trial": trial.name,
                        "method": method,
                        "setting": setting,
                        "configuration": trial.configuration,
                        "seed": trial.config.seed,
                    }
                    | {measure: metrics.get(f"{prefix}{measure}", math.nan) for measure in kind.MEASURES}
                    | {cost: math.nan if prefix else metrics.get(cost, math.nan) for cost in kind.COSTS}
                    | {count: metrics[count] for count in kind.CELLS}
                )
    return pd.DataFrame(
        rows, columns=None if rows else ["key", "trial", "method", "setting", "configuration", *kind.MEASURES]
    )


def _aggregate(kind: type[TrialConfig], scores: pd.DataFrame) -> pd.DataFrame:
    """One row a method, setting and configuration: n trials, and every measure's statistics over those that have it."""
    groups = scores.groupby(["method", "setting", "configuration"], sort=False)
    table = groups.size().rename("n").to_frame()
    for measure in kind.MEASURES:
        mean, deviation = groups[measure].mean(), groups[measure].std(ddof=1)
        columns = mean, deviation / mean.abs(), groups[measure].median(), groups[measure].count()
        for statistic, column in zip(STATISTICS, columns, strict=True):
            table[f"{measure}{statistic}"] = column
    return table.reset_index()


def _published(published: Published, reason: str) -> pd.DataFrame:
    method = "published, not comparable" if reason else "published"
    repeats = math.nan if published.repeats is None else published.repeats
    rows = [
        {
            "method": method,
            "setting": published.source,
            "configuration": configuration,
            "n": repeats,
            "note": reason,
        }
        | {measure: figure["mean"] for measure, figure in figures.items()}
        | {f"{measure}_relative_std": figure.get("relative_deviation", math.nan) for measure, figure in figures.items()}
        | {f"{measure}_n": repeats for measure in figures}
        for configuration, figures in published.values.items()
    ]
    return pd.DataFrame(rows)


def _failures(trials: Sequence[Trial], runs: Mapping[str, Recorded]) -> pd.DataFrame:
    """One row a failed trial, with its error."""
    failed = [trial for trial in trials if trial.key in runs and runs[trial.key].status == "FAILED"]
    rows = [
        {"method": "failed", "setting": trial.setting, "configuration": trial.configuration}
        | {"note": f"seed {trial.config.seed}: {runs[trial.key].tags['error']}"}
        for trial in failed
    ]
    return pd.DataFrame(rows)


def _cell_counts(study: Study, kind: type[TrialConfig], scores: pd.DataFrame) -> str:
    """Of every column, and of a configuration or another setting where it differs."""
    counts: dict[str, str] = {}
    for _, row in scores.iterrows():
        numbers = " / ".join(f"{row[count]:,.0f}" for count in kind.CELLS)
        if counts.setdefault(study.expanded[row["configuration"]].column, numbers) != numbers:
            counts[f"{row['configuration']}, {row['setting']}"] = numbers
    return "; ".join(f"{name}: {numbers}" for name, numbers in counts.items())


def _blocks(study: Study, kind: type[TrialConfig], table: pd.DataFrame) -> list[Block]:
    figures = table[table["method"] != "failed"].reset_index(drop=True)
    labels = figures["method"] + ", " + figures["setting"]
    is_baseline = figures["method"].isin([method for prefix, method in kind.METHODS.items() if prefix])
    first = figures["setting"][is_baseline].head(1)  # its split is that of every setting without a baseline of its own
    labels = labels.where(~(is_baseline & figures["setting"].isin(first)), figures["method"])
    if any(measure.block for measure in kind.MEASURES.values()):
        return _blocks_of_measures(study, kind, figures, labels)
    figures[["row", "column"]] = [study.place(name) for name in figures["configuration"]]
    if figures.loc[is_baseline, "row"].nunique() == 1:  # the same in all rows
        figures.loc[is_baseline, "row"] = ""
    labels += (", " + figures["row"]).where(figures["row"] != "", "")
    blocks = []
    for name, measure in study.shown.items():
        rows = []
        for label in labels.unique():
            part = figures[(labels == label) & figures[name].notna()].set_index("column")
            if len(part):
                cells = (_cell(kind, part.loc[c], name) if c in part.index else "-" for c in study.columns)
                rows.append([label, *cells])
        blocks.append(Block(measure.title, study.columns, rows))
    return blocks


def _failed(table: pd.DataFrame) -> list[Block]:
    failed = table[table["method"] == "failed"]
    rows = failed[["configuration", "setting", "note"]].to_numpy().tolist()
    return [Block("Failed trials", ["setting", "error"], rows, corner="configuration")] if rows else []


def _blocks_of_measures(study: Study, kind: type[TrialConfig], figures: pd.DataFrame, labels: pd.Series) -> list[Block]:
    """A row a method, configuration and setting; a column a measure."""
    ours = (figures["method"] == OURS) & (figures["setting"] == study.setting)
    labels = labels.where(~ours, OURS) + ", " + figures["configuration"]
    blocks = []
    for title in dict.fromkeys(measure.block for measure in study.shown.values()):
        measures = {name: measure for name, measure in study.shown.items() if measure.block == title}
        rows = [
            [label, *(_cell(kind, row, name) for name in measures)]
            for label, (_, row) in zip(labels, figures.iterrows(), strict=True)
            if row[list(measures)].notna().any()
        ]
        blocks.append(Block(title, [measure.title for measure in measures.values()], rows))
    return blocks


def _cell(kind: type[TrialConfig], row: pd.Series, name: str) -> str:
    if math.isnan(row[name]):
        return "-"
    return kind.MEASURES[name].show(*(row[f"{name}{statistic}"] for statistic in STATISTICS))
