"""Figures of recorded runs, written to ``results/figures/``. Nothing is trained for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from study.tables import Published
from study.tracking import Recorded, Tracker

FOLDER = Path("results", "figures")
STYLES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.hashsalt": "vsgae",  # the same runs give the same file
}


@dataclass(frozen=True)
class Curve:
    """A run and what it recorded of its epochs: one row an epoch, from 1, one column a metric."""

    study: str
    run: Recorded
    epochs: pd.DataFrame

    @property
    def label(self) -> str:
        hours = self.epochs["seconds"].sum() / 3600
        return (
            f"{self.study}: {self.run.tags['mlflow.runName']}, {len(self.epochs)} epochs, "
            f"{hours:.1f} h on {self.run.tags['device']}"
        )


@dataclass(frozen=True)
class Figure:
    """Args:
    title: what it shows.
    studies: whose runs it shows, of each that has recorded an epoch.
    metrics: of an epoch, that it needs.
    draw: what draws it.
    """

    title: str
    studies: tuple[str, ...]
    metrics: tuple[str, ...]
    draw: Callable[[Sequence[Curve]], Drawing]


def write_figures() -> tuple[list[Path], dict[str, str]]:
    """Write every figure that there are runs for, as SVG and PNG.

    Returns:
        The files, and by the name of each other figure the commands that would give it its runs.
    """
    files, missing = [], {}
    for name, figure in FIGURES.items():
        curves = [curve for study in figure.studies for curve in _curves(study, figure.metrics)]
        if not curves:
            missing[name] = " or ".join(f"python -m study.run {study}" for study in figure.studies)
            continue
        FOLDER.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            drawing = figure.draw(curves)
            drawing.suptitle(figure.title, x=0.01, ha="left", fontsize=11)
            drawing.text(0.01, 0.01, _stands_on(curves), fontsize=7, color="0.35")
            for suffix, metadata in ((".svg", {"Date": None}), (".png", {})):
                files.append(FOLDER / f"{name}{suffix}")
                drawing.savefig(files[-1], metadata=metadata)
    return files, missing


def _curves(study: str, metrics: Sequence[str]) -> list[Curve]:
    """Of the study's runs with its own settings, finished or not, that have recorded an epoch."""
    tracker = Tracker(study)
    own = [run for run in tracker.runs().values() if run.tags["overrides"] == "{}" and run.epoch]
    curves = [Curve(study, run, tracker.epochs(run, [*metrics, "seconds"])) for run in own]
    return sorted(curves, key=lambda curve: curve.run.tags["mlflow.runName"])


def _stands_on(curves: Sequence[Curve]) -> str:
    labels = "; ".join(sorted({curve.run.tags["labels"] for curve in curves}))
    commits = ", ".join(sorted({curve.run.tags["git_commit"][:10] for curve in curves}))
    return f"labels: {labels}. commit: {commits}"


def _autoencoder_training(curves: Sequence[Curve]) -> Drawing:
    published = Published.read("table2")
    figures = published.values["text"]
    panels: Mapping[str, tuple[str, str]] = {
        "held_out_reconstruction": ("held-out cells not reconstructed from the mean, %", "test_mean_reconstruction"),
        "prior_validity": ("points of N(0, I) decoded to an invalid cell, %", "test_validity"),
    }
    drawing = Drawing(figsize=(9, 4.4))
    axes: Sequence[Axes] = drawing.subplots(1, 2)
    for panel, (metric, (title, measure)) in zip(axes, panels.items(), strict=True):
        for i, curve in enumerate(curves):
            wrong = 100 * (1 - curve.epochs[metric])
            panel.plot(wrong.index, wrong, STYLES[i % len(STYLES)], marker=".", markersize=4, label=curve.label)
        if measure in figures:
            share = figures[measure]["mean"]
            panel.axhline(100 * (1 - share), color="0.4", linewidth=1, label=f"{published.source}: {share:.2%}")
        panel.set(xscale="log", xlabel="epoch", title=title)
        panel.set_yscale("symlog", linthresh=0.1)
        panel.set_ylim(bottom=0)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.title.set_fontsize(9)
    drawing.legend(
        *axes[-1].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0, 0.94), ncols=1, fontsize=8
    )
    drawing.subplots_adjust(left=0.07, right=0.99, bottom=0.16, top=0.72)
    return drawing


FIGURES = {
    "autoencoder_training": Figure(
        "The autoencoder, epoch by epoch, on 1,000 held-out cells and 1,000 points",
        ("pretrained", "table2"),
        ("held_out_reconstruction", "prior_validity"),
        _autoencoder_training,
    )
}
