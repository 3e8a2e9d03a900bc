"""Searches: their history, which settings matter, and what the objective costs."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullFormatter

from study.figures.records import UnavailableError, stands_on
from study.proposals import DESCRIPTION, OBJECTIVES
from study.search_records import COST, EARLY, complete, front, importance, recorded_searches, trials_table
from study.tracking import Recorded, Tracker

SEARCH = "tune"
MARKERS = "osD^v"


def tune_history() -> tuple[Drawing, str]:
    searches, table, stands = _recorded()
    return draw_history(table, *_objective(searches)), stands


def tune_importance() -> tuple[Drawing, str]:
    searches, table, stands = _recorded()
    shares, n = importance(searches, table)
    if not shares:
        raise UnavailableError(f"fewer than two complete trials; python -m study.run {SEARCH}")
    return draw_importance(shares), f"fANOVA on {n} complete trials, none that was stopped early. {stands}"


def tune_pareto() -> tuple[Drawing, str]:
    searches, table, stands = _recorded()
    return draw_pareto(table, *_objective(searches)), stands


def _recorded() -> tuple[list[optuna.Study], pd.DataFrame, str]:
    """The searches, their trials, and what they stand on.

    Raises:
        UnavailableError: no trial is complete.
    """
    runs = Tracker(SEARCH).runs()
    searches = recorded_searches(SEARCH)
    table = trials_table(searches, runs)
    if not len(table) or not len(complete(table, _objective(searches)[0])):
        raise UnavailableError(f"no complete trial; python -m study.run {SEARCH}")
    drawn: list[Recorded] = [runs[key] for key in table["key"] if key in runs]
    return searches, table, f"{'; '.join(str(each.user_attrs[DESCRIPTION]) for each in searches)}. {stands_on(drawn)}"


def _objective(searches: list[optuna.Study]) -> tuple[str, str]:
    objectives: Mapping[str, str] = searches[0].user_attrs[OBJECTIVES]
    return next(iter(objectives.items()))


def draw_history(table: pd.DataFrame, objective: str, direction: str) -> Drawing:
    """Each trial's objective by its number, where it was stopped early its last one; and the best so far, by the number
    of trials and by the epochs that they were trained.

    Args:
        table: see :func:`~study.search_records.trials_table`.
    """
    drawing = Drawing(figsize=(9, 4))
    axes: list[Axes] = list(drawing.subplots(1, 3))
    for i, (setting, part) in enumerate(table.groupby("setting", sort=False)):
        ordered = part.sort_values("trial").reset_index(drop=True)
        ordered["number"], ordered["spent"] = ordered.index + 1, ordered["epochs"].cumsum()
        final = complete(ordered, objective)
        early = ordered[ordered["state"] == EARLY]
        best = final[objective].cummin() if direction == "minimize" else final[objective].cummax()
        name = f"{part['sampler'].iloc[0]} ({setting})" if setting != part["sampler"].iloc[0] else str(setting)
        axes[0].plot(
            final["number"], final[objective], MARKERS[i % len(MARKERS)], color=f"C{i}", markersize=4, label=name
        )
        axes[0].plot(early["number"], early["last"], "x", color=f"C{i}", markersize=4, alpha=0.6)
        if not len(final):
            continue
        for panel, by in zip(axes[1:], ("number", "spent"), strict=True):
            over = [*final[by], ordered[by].iloc[-1]]
            panel.step(over, [*best, *best.tail(1)], where="post", color=f"C{i}", linewidth=1.5)
    axes[0].set(xlabel="trial", ylabel=objective, title="complete, or x: stopped early, its last")
    axes[1].set(xlabel="trials", title="best so far, by trials")
    axes[2].set(xlabel="epochs trained by all of them", title="best so far, by epochs")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="upper left", ncols=3, fontsize=8)
    return drawing


def draw_importance(shares: Mapping[str, float]) -> Drawing:
    """Args:
    shares: by setting, largest first.
    """
    drawing = Drawing(figsize=(7, 0.8 + 0.26 * len(shares)))
    panel = drawing.subplots()
    panel.barh(list(shares), list(shares.values()), color="C0")
    panel.invert_yaxis()
    panel.set(xlabel="share of the objective's variance that the setting explains by itself")
    return drawing


def draw_pareto(table: pd.DataFrame, objective: str, direction: str) -> Drawing:
    """Complete trials by training time, and the front of all."""
    drawing = Drawing(figsize=(7, 4.4))
    panel = drawing.subplots()
    for i, (setting, part) in enumerate(table.groupby("setting", sort=False)):
        final = complete(part, objective)
        panel.plot(
            final[COST], final[objective], MARKERS[i % len(MARKERS)], color=f"C{i}", markersize=4, label=str(setting)
        )
    best = front(table, objective, direction)
    panel.step(best[COST], best[objective], where="post", color="0.3", linewidth=1, zorder=0)
    panel.plot(best[COST], best[objective], "o", fillstyle="none", color="0.3", markersize=9, label="front")
    panel.set(xscale="log", xlabel="seconds of training", ylabel=objective)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    drawing.legend(*panel.get_legend_handles_labels(), loc="upper left", ncols=4, fontsize=8)
    return drawing
