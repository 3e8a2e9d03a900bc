"""``results/report.html``: every table and figure of ``results/`` on one page, which needs no other file.

What is published stands beside what was measured, and each run has a link to MLflow. Nothing is computed for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd
import yaml

from study.figures import FIGURES
from study.figures import FOLDER as FIGURE_FOLDER
from study.page import from_markdown, inline_svg, table
from study.space import PROJECT, TRIALS, Study, load_study, study_files
from study.tables import Published
from study.tracking import Recorded, Tracker, git_commit
from study.trial import OURS, PER_CENT

RESULTS = Path("results")
REPORT = RESULTS / "report.html"
PAPER = "paper"  # what studies of its own configuration call their setting
MLFLOW_UI = "http://127.0.0.1:5000"  # where a bare `mlflow ui` answers

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 0 auto; max-width: 64rem;
  padding: 1rem; overflow-wrap: anywhere; }
h1, h2, h3, h4 { line-height: 1.25; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; padding-bottom: .25rem; }
nav ul { columns: 18rem; padding-left: 1.2rem; }
a { color: #0b57a4; }
code { font-size: .9em; background: #f3f3f3; padding: .1em .25em; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; min-width: 6rem; }
thead th { border-bottom: 2px solid #999; }
tbody th { font-weight: 600; min-width: 9rem; }
figure { margin: 2rem 0; }
figure svg { display: block; width: 100%; min-width: 42rem; height: auto; }
figcaption { font-size: .9rem; color: #444; }
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; width: 100%; overflow-wrap: anywhere; }
  th, td { min-width: 0; padding: .15rem .3rem; }
  tbody th { min-width: 0; }
  figure { break-inside: avoid; }
  figure svg { min-width: 0; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
  nav { display: none; }
}
"""


def write_report() -> Path:
    """Write the page.

    Raises:
        ValueError: there is neither a table nor a figure in ``results/``.
    """
    tables, figures = sorted(RESULTS.glob("*.md")), sorted(FIGURE_FOLDER.glob("*.svg"))
    tables += sorted(path for path in RESULTS.glob("*.csv") if not path.with_suffix(".md").exists())
    if not tables and not figures:
        raise ValueError(
            "there is nothing in results/ yet; python -m study.run STUDY, then python -m study.run figures"
        )
    names = [name for name in FIGURES if FIGURE_FOLDER / f"{name}.svg" in figures]
    names += [path.stem for path in figures if path.stem not in FIGURES]
    sections = {
        "Published and measured": _published_and_measured(),
        "Figures": "\n".join(map(_figure, names)),
        **{f"Table: {path.stem.replace('_', ' ')}": _table(path) for path in tables},
        "The paper, its published code, and this implementation": _document(PROJECT / "docs" / "paper.md"),
        "Runs": _runs(),
    }
    REPORT.write_text(_page({title: body for title, body in sections.items() if body}))
    return REPORT


def _page(sections: dict[str, str]) -> str:
    links = "".join(f'<li><a href="#s{i}">{escape(title)}</a></li>' for i, title in enumerate(sections))
    bodies = "\n".join(
        f'<section id="s{i}"><h2>{escape(title)}</h2>\n{body}</section>'
        for i, (title, body) in enumerate(sections.items())
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>VS-GAE Study: report</title>
<style>{STYLE}</style>
</head>
<body>
<h1>VS-GAE Study: report</h1>
<p>Every table and figure of <code>results/</code>, written by <code>python -m study.run report</code> at commit
<code>{escape(git_commit())}</code>. Each says whose labels, how many cells and which commits it stands on.</p>
<nav><ul>{links}</ul></nav>
{bodies}
</body>
</html>
"""


def _published_and_measured() -> str:
    """A table for each entry of ``results/paper.yaml`` of which something was measured."""
    entries = yaml.safe_load((PROJECT / "results" / "paper.yaml").read_text())
    studies = {name: load_study(name) for name in sorted(study_files())}
    parts = []
    for entry in entries:
        published, rows, labels = Published.read(entry), [], []
        for name, study in studies.items():
            for file in (RESULTS / f"{name}.csv", RESULTS / f"{name}-surrogate.csv"):
                if study.published != entry or not file.exists():
                    continue
                results = pd.read_csv(file)
                notes = results.loc[results["method"].str.startswith("published"), "note"].dropna().unique()
                labels += [f"<li>{escape(file.stem)}: {escape(note)}</li>" for note in notes]
                rows += _compared(published, results, study, file.stem, list(notes))
        if rows:
            head = ["", "published", "measured: mean over n, median", "difference", "in", "setting", "what differs"]
            note = f"<p>{escape(published.note)}</p><ul>{''.join(labels)}</ul>"
            parts.append(f"<h3>{escape(published.source)}</h3>\n{note}\n{table(head, rows)}")
    return "\n".join(parts)


def _compared(
    published: Published, results: pd.DataFrame, study: Study, where: str, notes: Sequence[str]
) -> list[list[str]]:
    """A row for each published figure and setting that was measured.

    Args:
        notes: why the figures cannot be compared.
    """
    ours, measures = results[results["method"] == OURS], TRIALS[study.trains].MEASURES
    columns, rows = ours["configuration"].map(lambda name: study.place(name)[1]), []
    for configuration, figures in published.values.items():
        row_of, column = study.place(configuration)
        same = ours[columns == column]
        for measure, figure in figures.items():
            unit = measures[measure].unit
            there = _number(figure["mean"], unit)
            if "relative_deviation" in figure:
                there += f" ± {figure['relative_deviation']:.1%}"
            if row_of:
                there += f" ({escape(row_of)})"
            for _, row in (same if len(same) else ours).iterrows():
                mean, median, n = row[measure], row[f"{measure}_median"], row[f"{measure}_n"]
                differs = ["labels"] * bool(notes) + ["configuration"] * (row["setting"] != PAPER)
                rows.append(
                    [
                        escape(f"{row['configuration']}: {measures[measure].title}"),
                        there,
                        f"{_number(mean, unit)} (n = {n:.0f}), {_number(median, unit)}",
                        _number(mean - figure["mean"], unit, sign="+"),
                        escape(where),
                        escape(str(row["setting"])),
                        " and ".join(differs) or "nothing known",
                    ]
                )
    return rows


def _number(value: float, unit: str, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f}" + " %" if unit == PER_CENT else f"{value:{sign}.4f}"


def _figure(name: str) -> str:
    figure = FIGURES.get(name)
    title = figure.title if figure else name.replace("_", " ")
    published = f"<figcaption>Published: {escape(figure.published)}</figcaption>" if figure and figure.published else ""
    svg = inline_svg((FIGURE_FOLDER / f"{name}.svg").read_text(), name, title)
    return f'<figure><div class="scroll" tabindex="0">{svg}</div>\n{published}</figure>'


def _table(path: Path) -> str:
    """Of Markdown all but its heading."""
    if path.suffix == ".md":
        _, _, body = path.read_text().partition("\n")
        return from_markdown(body, level=2)
    content = pd.read_csv(path).fillna("")
    rows = [
        [escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row] for row in content.to_numpy()
    ]
    return table(list(content.columns), rows)


def _document(path: Path) -> str:
    _, _, body = path.read_text().partition("\n")
    return from_markdown(body, level=2)


def _runs() -> str:
    """Of every study, with their links."""
    parts = []
    for name in sorted(study_files()):
        runs = sorted(Tracker(name).runs().values(), key=lambda run: run.tags["mlflow.runName"])
        if runs:
            finished = sum(run.finished for run in runs)
            summary = f"{escape(name)}: {len(runs)} runs, {finished} finished"
            parts.append(f"<details open><summary>{summary}</summary>{table(RUN_COLUMNS, _rows(runs))}</details>")
    if not parts:
        return ""
    where = _interface()
    note = f"The links lead to MLflow at {escape(where)}"
    note += ", where <code>mlflow ui</code> in this folder answers." if where == MLFLOW_UI else "."
    return f"<p>{note}</p>\n" + "\n".join(parts)


RUN_COLUMNS = ["run", "state", "epochs", "labels", "commit"]


def _rows(runs: Sequence[Recorded]) -> list[list[str]]:
    return [
        [
            f'<a href="{escape(_interface())}/#/experiments/{run.experiment_id}/runs/{run.run_id}">'
            f"{escape(run.tags['mlflow.runName'])}</a>",
            escape(run.state),
            f"{run.epoch} of {run.epochs}",
            escape(run.tags["label_source"]),
            escape(run.tags["git_commit"][:10]),
        ]
        for run in runs
    ]


def _interface() -> str:
    """Where a browser finds MLflow."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return uri.rstrip("/") if uri.startswith("http") else MLFLOW_UI
