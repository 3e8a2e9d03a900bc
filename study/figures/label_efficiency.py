"""Kendall tau by number of labelled cells."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import NullLocator

from study.figures.records import fullest, stands_on
from study.space import load_study
from study.tables import Published
from vsgae.baselines import BASELINES

STUDY = "label_efficiency"
MARKERS = "osD^v"
TREES = "boosted_trees"


def label_efficiency() -> tuple[Drawing, str]:
    name, runs = fullest([STUDY])
    study, rows = load_study(STUDY), []
    for run in runs:
        row, _ = study.place(run.tags["configuration"])
        labels, seed = run.metrics["train_cells"], run.params["seed"]
        trees = run.metrics[f"baseline_{TREES}_test_kendall_tau"]
        rows.append((row, labels, seed, run.metrics["test_kendall_tau"]))
        rows.append((BASELINES[TREES], labels, seed, trees))
    table = pd.DataFrame(rows, columns=["method", "labels", "seed", "tau"])
    table = table.drop_duplicates(["method", "labels", "seed"])  # the trees are the same in every row of the study
    published = [
        (row, int(column), figures["test_kendall_tau"]["mean"])
        for configuration, figures in Published.read(STUDY).values.items()
        for row, column in [study.place(configuration)]
        if column.isdecimal()  # a share is one of other cells
    ]
    drawing = draw_label_efficiency(table, pd.DataFrame(published, columns=["method", "labels", "tau"]))
    return drawing, f"{len(runs)} runs of {name}. {stands_on(runs)}"


def draw_label_efficiency(table: pd.DataFrame, published: pd.DataFrame) -> Drawing:
    """Args:
    table: a row a run: ``method``, ``labels``, ``tau``.
    published: the same, a row a figure.
    """
    drawing = Drawing(figsize=(7, 4.4))
    panel = drawing.subplots()
    methods = sorted(table["method"].unique(), key=list(BASELINES.values()).__contains__)  # ours first
    for i, method in enumerate(methods):
        by_labels = table[table["method"] == method].groupby("labels")["tau"]
        mean, deviation = by_labels.mean(), by_labels.std(ddof=1)
        panel.errorbar(
            mean.index, mean, deviation, color=f"C{i}", marker=MARKERS[i], markersize=4, capsize=2, label=method
        )
    for i, method in enumerate(published["method"].unique()):
        own = published[published["method"] == method]
        panel.plot(
            own["labels"], own["tau"], MARKERS[i], color="0.4", fillstyle="none", label=f"{method}, as published"
        )
    ticks = sorted(table["labels"].unique())
    panel.set(xscale="log", xlabel="labelled cells", ylabel="Kendall tau on all others")
    panel.set_xticks(ticks, [f"{labels:,.0f}" for labels in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    drawing.legend(*panel.get_legend_handles_labels(), loc="upper left", ncols=3, fontsize=8)
    return drawing
