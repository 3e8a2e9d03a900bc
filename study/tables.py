"""From finished runs to ``results/<study>.{csv,md,tex}``.

Rows are methods and settings: the published figures, the two baselines, then VS-GAE under the study's own setting and
under every other; columns are configurations, and there is a block for each measure. A figure is the mean over n
repeats with its relative standard deviation, the sample deviation (ddof = 1) over the mean, as in the paper's Table 1,
and with the median, which one repeat that went astray does not move.
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

from study.settings import CHECKED, build
from study.space import PROJECT, Study, Trial, plan_trials
from study.tracking import Recorded
from vsgae.baselines import BASELINES
from vsgae.nasbench101.labels import SURROGATE, LabelConfig, Labels

MEASURES = {
    "test_rmse": "Test RMSE",
    "best_validation_rmse": "Validation RMSE at the chosen epoch",
    "test_kendall_tau": "Test Kendall tau",
    "test_rmse_ratio": "Test RMSE over that of the constant predictor",
}
"""The blocks of the table: final metrics of a trial, and their titles."""

MODEL = "VS-GAE"
FIGURES = "mean over n repeats ± relative standard deviation (sample deviation, ddof = 1, over the mean), median"
PREDICTED = "these labels come from boosted trees on cell features, which favours the baseline of that kind"
STATISTICS = ("", "_relative_std", "_median", "_n")  # of a measure: what is added to its name


@dataclass(frozen=True, kw_only=True)
class Published:
    """An entry of ``results/paper.yaml``: figures by configuration, and the labels that they stand on."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    source: str
    values: dict[str, dict[str, float]]
    labels: dict[str, Any]
    repeats: int = 1
    note: str = ""

    @staticmethod
    def read(name: str) -> Published:
        entries = yaml.safe_load((PROJECT / "results" / "paper.yaml").read_text())
        if name not in entries:
            raise ValueError(f"published is {name!r}; results/paper.yaml has {', '.join(entries)}")
        return build(Published, entries[name])

    def not_comparable(self, labels: Labels) -> str:
        """Why the figures cannot be compared with those on ``labels``; empty where they can."""
        config = labels.config
        here = {"source": Path(config.source).name, "metric": config.metric, "epochs": config.epochs}
        here["cells"] = len(labels.cells)
        different = [f"{name} {here[name]}, not {value}" for name, value in self.labels.items() if here[name] != value]
        return "other labels: " + ", ".join(different) if different else ""


def write_tables(
    study: Study,
    trials: Sequence[Trial],
    runs: Mapping[str, Recorded],
    labels: Mapping[LabelConfig, Labels],
    *,
    command: str,
) -> list[Path]:
    """Write the table as CSV (one row a method, setting and configuration), Markdown and LaTeX.

    On predicted labels its files are ``<study>-surrogate.*``.

    Args:
        trials: all trials of the study under the setting that was just run.
        runs: what is recorded of the study, by trial key.
        command: the one that writes this table.
    """
    shown = settings_to_show(study, trials, runs)
    scores = _scores(shown, runs)
    stands_on = [labels[trial.config.labels] for trial in trials]
    reason = ""
    parts = [_failures(trials, runs), _aggregate(scores)]
    if study.published is not None:
        published = Published.read(study.published)
        reason = "; ".join(dict.fromkeys(filter(None, map(published.not_comparable, stands_on))))
        parts.insert(0, _published(published, reason))
    figures = [f"{measure}{statistic}" for measure in MEASURES for statistic in STATISTICS]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table = table.reindex(columns=["method", "setting", "configuration", "n", *figures, "note"])
    head = {
        "labels": "; ".join(dict.fromkeys(each.description for each in stands_on)),
        "command": command,
        "commit": ", ".join(sorted({runs[key].tags["git_commit"] for key in scores["key"]})),
    }
    folder = Path("results")
    folder.mkdir(exist_ok=True)
    predicted = any(each.config.source == SURROGATE for each in stands_on)
    name = f"{study.name}-{SURROGATE}" if predicted else study.name  # never in place of measured results
    files = [folder / f"{name}{suffix}" for suffix in (".csv", ".md", ".tex")]
    table.assign(**head).to_csv(files[0], index=False, float_format="%.6g")
    head |= {"cells (training / validation / test)": _cell_counts(scores), "figures": FIGURES}
    if predicted:
        head["caution"] = PREDICTED
    astray = scores[(scores["method"] == MODEL) & scores["test_kendall_tau"].isna()]
    if len(astray):
        num_trials = (scores["method"] == MODEL).sum()
        head["constant predictions"] = (
            f"{len(astray)} of the {num_trials} VS-GAE trials ended in the same prediction for every cell; they count "
            f"in the errors, but have no Kendall tau: {', '.join(astray['trial'])}"
        )
    if study.published is not None:
        head["published"] = f"{published.source}. {published.note}"
        if reason:
            head["not comparable"] = f"the published figures stand on {reason}"
    files[1].write_text(_markdown(study, table, head))
    files[2].write_text(_latex(study, table, head))
    return files


def settings_to_show(study: Study, trials: Sequence[Trial], runs: Mapping[str, Recorded]) -> dict[str, Sequence[Trial]]:
    """The settings of the table and their trials: the study's own first, the others by name.

    A setting other than that of ``trials`` is shown once all of its trials, on the same labels, are finished.
    """
    shown: dict[str, Sequence[Trial]] = {trials[0].setting: trials}
    for overrides in {"{}", *(run.tags["overrides"] for run in runs.values())}:
        try:
            others = plan_trials(study, json.loads(overrides), trials[0].config.labels.source)
        except ValueError:  # recorded before the study or the code changed: no longer one of its settings
            continue
        same_labels = [trial.config.labels for trial in others] == [trial.config.labels for trial in trials]
        if same_labels and all(trial.key in runs and runs[trial.key].finished for trial in others):
            shown.setdefault(others[0].setting, others)
    return dict(sorted(shown.items(), key=lambda item: (item[0] != study.setting, item[0])))


def _scores(shown: Mapping[str, Sequence[Trial]], runs: Mapping[str, Recorded]) -> pd.DataFrame:
    """One row a finished trial and method, baselines first.

    A baseline depends on labels and split alone: it is the same in every repeat and setting, and shown once.
    """
    rows: list[dict[str, Any]] = []
    for baseline, method in [*BASELINES.items(), ("", MODEL)]:
        splits = set()
        for setting, trials in shown.items():
            for trial in trials:
                if trial.key not in runs or not runs[trial.key].finished:
                    continue
                if baseline and trial.config.split in splits:
                    continue
                splits.add(trial.config.split)
                metrics = runs[trial.key].metrics
                names = {measure: f"baseline_{baseline}_{measure}" if baseline else measure for measure in MEASURES}
                rows.append(
                    {
                        "key": trial.key,
                        "trial": trial.name,
                        "method": method,
                        "setting": setting,
                        "configuration": trial.configuration,
                    }
                    | {measure: metrics.get(name, math.nan) for measure, name in names.items()}
                    | {f"{part}_cells": metrics[f"{part}_cells"] for part in ("train", "validation", "test")}
                )
    return pd.DataFrame(
        rows, columns=None if rows else ["key", "trial", "method", "setting", "configuration", *MEASURES]
    )


def _aggregate(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a method, setting and configuration: n trials, and every measure's statistics over those that have it."""
    groups = scores.groupby(["method", "setting", "configuration"], sort=False)
    table = groups.size().rename("n").to_frame()
    for measure in MEASURES:
        mean, deviation = groups[measure].mean(), groups[measure].std(ddof=1)
        columns = mean, deviation / mean.abs(), groups[measure].median(), groups[measure].count()
        for statistic, column in zip(STATISTICS, columns, strict=True):
            table[f"{measure}{statistic}"] = column
    return table.reset_index()


def _published(published: Published, reason: str) -> pd.DataFrame:
    method = "published, not comparable" if reason else "published"
    rows = [
        {
            "method": method,
            "setting": published.source,
            "configuration": configuration,
            "n": published.repeats,
            "test_rmse": value["mean"],
            "test_rmse_relative_std": value.get("relative_deviation", math.nan),
            "test_rmse_n": published.repeats,
            "note": reason,
        }
        for configuration, value in published.values.items()
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


def _cell_counts(scores: pd.DataFrame) -> str:
    counts = scores.drop_duplicates("configuration")
    return "; ".join(
        f"{row.configuration}: {row.train_cells:,.0f} / {row.validation_cells:,.0f} / {row.test_cells:,.0f}"
        for row in counts.itertuples()
    )


def _blocks(study: Study, table: pd.DataFrame) -> dict[str, list[list[str]]]:
    """By title, the rows of every block: a label, then a cell for each configuration."""
    figures = table[table["method"] != "failed"]
    labels = figures["method"] + ", " + figures["setting"]
    is_baseline = figures["method"].isin(list(BASELINES.values()))
    first = figures["setting"][is_baseline].head(1)  # its split is that of every setting without a baseline of its own
    labels = labels.where(~(is_baseline & figures["setting"].isin(first)), figures["method"])
    blocks = {}
    for measure, title in MEASURES.items():
        rows = []
        for label in labels.unique():
            part = figures[(labels == label) & figures[measure].notna()].set_index("configuration")
            if len(part):
                cells = [_cell(part.loc[name], measure) if name in part.index else "-" for name in study.configurations]
                rows.append([label, *cells])
        blocks[title] = rows
    return blocks


def _cell(row: pd.Series, measure: str) -> str:
    relative = row[f"{measure}_relative_std"]
    spread = "" if math.isnan(relative) else f" ± {100 * relative:.1f} %"
    n, median = row[f"{measure}_n"], row[f"{measure}_median"]
    middle = f", median {median:.4f}" if n > 2 and not math.isnan(median) else ""
    return f"{row[measure]:.4f}{spread} (n = {n:.0f}{middle})"


def _markdown(study: Study, table: pd.DataFrame, head: Mapping[str, str]) -> str:
    lines = [f"# {study.name}", "", study.description, ""]
    lines += [f"* {name}: {f'`{text}`' if name == 'command' else text}" for name, text in head.items()]
    for title, rows in _blocks(study, table).items():
        lines += ["", f"## {title}", ""]
        lines += [_row(["", *study.configurations]), _row(["---"] * (1 + len(study.configurations)))]
        lines += map(_row, rows)
    failed = table[table["method"] == "failed"]
    if len(failed):
        lines += ["", "## Failed trials", "", _row(["configuration", "setting", "error"]), _row(["---"] * 3)]
        lines += map(_row, failed[["configuration", "setting", "note"]].to_numpy().tolist())
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _latex(study: Study, table: pd.DataFrame, head: Mapping[str, str]) -> str:
    width = 1 + len(study.configurations)
    lines = [f"% {name}: {' '.join(text.split())}" for name, text in {"study": study.description, **head}.items()]
    lines += [f"\\begin{{tabular}}{{l{'c' * len(study.configurations)}}}", "\\toprule"]
    lines.append(_latex_row(["", *study.configurations]))
    for title, rows in _blocks(study, table).items():
        lines += ["\\midrule", f"\\multicolumn{{{width}}}{{l}}{{{_escaped(title)}}} \\\\"]
        lines += map(_latex_row, rows)
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + " \\\\"


def _escaped(text: str) -> str:
    for plain, escaped in {"%": "\\%", "_": "\\_", "&": "\\&", "#": "\\#", "±": "$\\pm$"}.items():
        text = text.replace(plain, escaped)
    return text
