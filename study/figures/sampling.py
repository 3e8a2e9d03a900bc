"""Stability regarding sampling: figure 8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import NullLocator

from study.figures.records import fullest, stands_on
from vsgae.sampling import SAMPLING_METHODS

STUDIES = ("sampling", "sampling_reduced")
MARKERS = "osD^vP*"


def figure_8() -> tuple[Drawing, str]:
    study, runs = fullest(STUDIES)
    table = pd.DataFrame(
        {
            "method": [run.params["sampling.method"] for run in runs],
            "share": [float(run.params["sampling.share"]) for run in runs],
            "test_rmse": [run.metrics["test_rmse"] for run in runs],
        }
    )
    epochs = ", ".join(sorted({str(run.epochs) for run in runs}, key=int))
    return draw_stability(table), f"{len(runs)} runs of {study}, {epochs} epochs each. {stands_on(runs)}"


def draw_stability(table: pd.DataFrame) -> Drawing:
    """Args:
    table: a row a run: ``method``, ``share`` of the training cells, ``test_rmse``.
    """
    drawing = Drawing(figsize=(9, 5))
    axes: Sequence[Axes] = drawing.subplots(1, 2)
    shares = np.sort(table["share"].unique())
    methods = [method for method in SAMPLING_METHODS if method in set(table["method"])]
    for panel in axes:
        for i, method in enumerate(methods):
            own = table[table["method"] == method]
            beside = 1.06 ** (i - (len(methods) - 1) / 2)  # so that bars do not hide each other
            by_share = own.groupby("share")["test_rmse"]
            mean, deviation = by_share.mean(), by_share.std(ddof=1)
            panel.plot(own["share"] * beside, own["test_rmse"], ".", color=f"C{i}", markersize=3, alpha=0.5)
            panel.errorbar(
                mean.index * beside,
                mean,
                deviation,
                color=f"C{i}",
                marker=MARKERS[i % len(MARKERS)],
                markersize=4,
                linewidth=1,
                capsize=2,
                label=method,
            )
        panel.set(xscale="log", xlabel="share of the training cells, %", ylabel="test RMSE")
        panel.set_xticks(shares, [f"{100 * share:g}" for share in shares])
        panel.xaxis.set_minor_locator(NullLocator())
    low, high = table["test_rmse"].quantile([0, 0.75])
    axes[0].set_title("mean and sample deviation; each dot is a run")
    axes[1].set_title("the same, up to the third quartile of all runs")
    axes[1].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="upper left", ncols=len(methods), fontsize=8)
    return drawing
