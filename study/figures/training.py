"""Training, epoch by epoch: figures 6 and 7, and the autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullFormatter

from study.figures.records import Curve, curves_by_setting, curves_of, stands_on
from study.tables import Published

STYLES = ("-", "--", ":", "-.")
ERRORS = {"train_rmse": ("training error", "C1", "--"), "validation_rmse": ("validation error", "C0", "-")}


def autoencoder_training() -> tuple[Drawing, str]:
    curves = curves_of(("pretrained", "table2"), ("held_out_reconstruction", "prior_validity"))
    return draw_autoencoder(curves), stands_on(curve.run for curve in curves)


def figure_6() -> tuple[Drawing, str]:
    return _predictor_training({"prediction": "all lengths seen"})


def figure_7() -> tuple[Drawing, str]:
    return _predictor_training({"zero-shot-6": "zero-shot, 6 nodes", "zero-shot-7": "zero-shot, 7 nodes"})


def draw_autoencoder(curves: Sequence[Curve]) -> Drawing:
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
    drawing.legend(*axes[-1].get_legend_handles_labels(), loc="upper left", fontsize=8)
    return drawing


def draw_errors(panels: Mapping[str, Sequence[Curve]]) -> Drawing:
    """A panel a title: of each run the errors by epoch, and its test error at the epoch that validation chose."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    drawing = Drawing(figsize=(9, 0.6 + 3.4 * rows))
    axes = list(drawing.subplots(rows, columns, squeeze=False).flat)
    for panel, (title, curves) in zip(axes, panels.items(), strict=False):
        for i, curve in enumerate(curves):
            for metric, (name, colour, style) in ERRORS.items():
                panel.plot(curve.epochs[metric], style, color=colour, linewidth=1, label=name if not i else None)
            if curve.run.finished:
                _mark_test_error(panel, curve, is_first=not i)
        panel.set(yscale="log", xlabel="epoch", ylabel="RMSE", title=f"{title}, {len(curves)} runs")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
    for panel in axes[len(panels) :]:
        panel.remove()
    drawing.legend(*drawing.axes[0].get_legend_handles_labels(), loc="upper left", fontsize=8, ncols=4)
    return drawing


def _mark_test_error(panel: Axes, curve: Curve, *, is_first: bool) -> None:
    metrics = curve.run.metrics
    label = "test error at the epoch chosen on the validation cells" if is_first else None
    panel.plot(metrics["best_epoch"], metrics["test_rmse"], "D", color="C3", markersize=4, label=label)
    constant = metrics["baseline_constant_test_rmse"]
    panel.axhline(constant, color="0.4", linewidth=1, label="constant predictor, test cells" if is_first else None)


def _predictor_training(configurations: Mapping[str, str]) -> tuple[Drawing, str]:
    study = "table1"
    by_setting = curves_by_setting(study, list(configurations), list(ERRORS))
    panels = {
        f"{title}: {setting}": [curve for curve in curves if curve.run.tags["configuration"] == configuration]
        for setting, curves in by_setting.items()
        for configuration, title in configurations.items()
    }
    runs = [curve.run for curves in by_setting.values() for curve in curves]
    drawing = draw_errors({title: curves for title, curves in panels.items() if curves})
    return drawing, f"{len(runs)} runs of {study}. {stands_on(runs)}"
