"""Which of the encoder's choices matter: the rows of an ablation against the paper's configuration."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Drawing

from study.comparison import to_compare
from study.figures.records import UnavailableError, fullest, stands_on
from study.predictor import PredictorTrial
from study.space import load_study
from study.statistics import LEVEL, Comparison, compare

STUDIES = ("ablation", "ablation_reduced")
MARKERS = "osDv^P"
ROW = 0.26  # inches


def ablation() -> tuple[Drawing, str]:
    name, runs = fullest(STUDIES)
    study = load_study(name)
    assert study.compare is not None
    measure, reference = PredictorTrial.MEASURES[study.compare.measure], study.compare.reference
    runs = [run for run in runs if run.tags["configuration"] in study.expanded]  # not of a row that is gone
    values = to_compare(
        study,
        measure,
        [run.tags["configuration"] for run in runs],
        [int(run.params["seed"]) for run in runs],
        [run.metrics[study.compare.measure] for run in runs],
    )
    result = compare(values, reference, higher_is_better=measure.higher_is_better)
    if result is None:
        raise UnavailableError(f"no finished run of {reference} and another row; python -m study.run {name}")
    parameters = values.assign(parameters=[run.metrics["parameters"] for run in runs]).groupby("group")["parameters"]
    counted = f"{values['undefined'].sum()} without a {measure.title} count as {measure.undefined:g}"
    foot = f"{len(runs)} runs of {name}, {counted}; {LEVEL:.0%} BCa bootstrap intervals. {stands_on(runs)}"
    return draw_ablation(result, parameters.mean(), measure.title), foot


def draw_ablation(result: Comparison, parameters: pd.Series, measure: str) -> Drawing:
    """A line a row, by mean rank, which no single failure moves far; with a mark a task, and one for all of them.

    Args:
        parameters: the number of weights, by row.
        measure: its title.
    """
    groups = result.groups.sort_values("mean_rank", ascending=False, kind="stable")
    place = pd.Series(range(len(groups)), groups.index, dtype=float)
    drawing = Drawing(figsize=(9, 1 + ROW * len(groups)))
    panel = drawing.subplots()
    tasks = list(dict.fromkeys(result.blocks.index.get_level_values(1)))
    parts = {task: result.blocks.xs(task, level=1).drop(result.reference) for task in tasks}
    parts["all tasks"] = groups.drop(result.reference)
    for i, (task, own) in enumerate(parts.items()):
        is_all = i == len(tasks)
        away = (own["difference"] - own["difference_low"], own["difference_high"] - own["difference"])
        panel.errorbar(
            own["difference"],
            place[own.index] + (0 if is_all else 0.18 * ((len(tasks) - 1) / 2 - i)),
            xerr=[side.fillna(0) for side in away],
            linestyle="none",
            color="black" if is_all else f"C{i}",
            marker="|" if is_all else MARKERS[i % len(MARKERS)],
            markersize=12 if is_all else 3.5,
            linewidth=2 if is_all else 0.8,
            alpha=1 if is_all else 0.7,
            zorder=3 if is_all else 2,
            label=task,
        )
    panel.axvline(0, color="0.4", linewidth=0.8)
    panel.set_yticks(place, [f"{name}  ({parameters[name] / 1e6:.2f} M)" for name in groups.index])
    for label, is_like_best in zip(panel.get_yticklabels(), result.is_like_best[groups.index], strict=True):
        label.set_fontweight("bold" if is_like_best else "normal")
    panel.set_ylim(-0.7, len(groups) - 0.3)
    panel.set(xlabel=f"{measure}, minus that of {result.reference}, mean over pairs of one seed")
    panel.set_title(
        f"bold: not distinguishable from {result.best}, which ranks best; in brackets the number of weights", loc="left"
    )
    drawing.legend(*panel.get_legend_handles_labels(), loc="upper left", ncols=len(parts), fontsize=8)
    return drawing
