"""How well accuracies are predicted, cell by cell: figures 4 and 5, and a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from study.figures.records import Predictions, best_predictions, stands_on
from vsgae.evaluation import regression_metrics

CELLS = 100  # of figure 4
BINS = np.linspace(0, 1, 11)


def figure_4() -> tuple[Drawing, str]:
    return _drawn(draw_sorted)


def figure_5() -> tuple[Drawing, str]:
    return _drawn(draw_errors_by_accuracy)


def predicted_and_true() -> tuple[Drawing, str]:
    return _drawn(draw_density)


def draw_sorted(predictions: Predictions) -> Drawing:
    true, predicted = predictions.true, predictions.predicted
    some = np.random.default_rng(0).permutation(len(true))[:CELLS]
    some = some[np.argsort(true[some], kind="stable")]
    drawing = Drawing(figsize=(9, 4))
    panel = drawing.subplots()
    panel.plot(true[some], "-", color="C1", label="true")
    panel.plot(predicted[some], ".", color="C0", label="predicted")
    panel.set(xlabel=f"{len(some)} random test cells, by true accuracy", ylabel="validation accuracy")
    panel.legend(loc="lower right")
    return drawing


def draw_errors_by_accuracy(predictions: Predictions) -> Drawing:
    squared = (predictions.predicted - predictions.true) ** 2
    place = np.clip(np.digitize(predictions.true, BINS) - 1, 0, len(BINS) - 2)
    groups = [squared[place == i] for i in range(len(BINS) - 1)]
    drawing = Drawing(figsize=(9, 4))
    axes: Sequence[Axes] = drawing.subplots(1, 2)
    filled = [group if len(group) else np.array([np.nan]) for group in groups]
    statistics = {"mean": [group.mean() for group in filled], "variance": [group.var() for group in filled]}
    for panel, (name, heights) in zip(axes, statistics.items(), strict=True):
        bars = panel.bar(BINS[:-1], heights, 0.09, align="edge", color="C0")
        panel.bar_label(bars, [f"{len(group):,}" if len(group) else "" for group in groups], fontsize=7)
        panel.set(
            yscale="log", xlabel="true accuracy (above each bar: test cells)", title=f"{name} of the squared error"
        )
        panel.set_xticks(BINS[::2])
    return drawing


def draw_density(predictions: Predictions) -> Drawing:
    true, predicted = predictions.true, predictions.predicted
    scores = regression_metrics(torch.from_numpy(predicted), torch.from_numpy(true))
    drawing = Drawing(figsize=(9, 3.8))
    axes: Sequence[Axes] = drawing.subplots(1, 2)
    both = np.concatenate([true, predicted])
    ranges = {
        "all test cells": (both.min(), both.max()),
        "98 of 100 test cells": (np.quantile(true, 0.02), both.max()),
    }
    for panel, (title, (low, high)) in zip(axes, ranges.items(), strict=True):
        margin = 0.02 * (high - low)
        extent = (low - margin, high + margin)
        density = panel.hexbin(true, predicted, gridsize=60, bins="log", mincnt=1, extent=extent * 2, cmap="viridis")
        density.set_rasterized(True)
        panel.plot(extent, extent, color="0.4", linewidth=1)
        panel.set(xlim=extent, ylim=extent, aspect="equal", xlabel="true accuracy", ylabel="predicted", title=title)
        drawing.colorbar(density, ax=panel, label="cells", shrink=0.8)
    axes[1].text(
        0.03,
        0.97,
        f"Kendall tau {scores['kendall_tau']:.3f}\nSpearman {scores['spearman']:.3f}\nRMSE {scores['rmse']:.4f}",
        transform=axes[1].transAxes,
        va="top",
    )
    return drawing


def _drawn(draw: Callable[[Predictions], Drawing]) -> tuple[Drawing, str]:
    predictions = best_predictions("table1", "prediction")
    run = predictions.run
    what = (
        f"the {len(predictions.true):,} test cells of the run with the lowest validation error, {predictions.study}: "
        f"{run.tags['mlflow.runName']} (setting {run.tags['setting']})"
    )
    return draw(predictions), f"{what}. {stands_on([run])}"
