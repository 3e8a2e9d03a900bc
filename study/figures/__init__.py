"""Figures of recorded runs, written to ``results/figures/``. Nothing is trained for them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Drawing

from study.figures import ablation, label_efficiency, latent_space, predictions, sampling, search, training
from study.figures.records import UnavailableError

FOLDER = Path("results", "figures")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "svg.hashsalt": "vsgae",  # the same runs give the same file
}
TITLE, LINE = 0.32, 0.14  # inches: the title, and a line of the text at the foot
LETTERS = 18  # of it in an inch


@dataclass(frozen=True)
class Figure:
    """Args:
    title: what it shows.
    draw: draws it, and says what it stands on.
    published: what the paper has in its place.
    """

    title: str
    draw: Callable[[], tuple[Drawing, str]]
    published: str = ""


FIGURES = {
    "figure3": Figure(
        "Figure 3: the cells by accuracy, and the variance of the latent space",
        latent_space.figure_3,
        "about 98.8 % of the cells in the last two bins, and about 16 significant dimensions; on the labels of the "
        "official release, and of an autoencoder in the paper's configuration.",
    ),
    "figure4": Figure(
        "Figure 4: predicted and true accuracy",
        predictions.figure_4,
        "accurate cells are predicted with little error, inaccurate ones mostly as such, if not exactly.",
    ),
    "figure5": Figure(
        "Figure 5: squared error by true accuracy",
        predictions.figure_5,
        "mean and variance are largest where accuracy is low or intermediate, which few cells are.",
    ),
    "figure6": Figure(
        "Figure 6: training and validation error by epoch",
        training.figure_6,
        "50 epochs, with a best validation RMSE of about 0.0487, on the labels of the official release.",
    ),
    "figure7": Figure(
        "Figure 7: zero-shot. By epoch the validation error; the test cells are scored once, at the chosen epoch",
        training.figure_7,
        "the test error of every epoch, not the validation error. With 7 nodes unseen it rises before it falls.",
    ),
    "figure8": Figure(
        "Figure 8: test error by sampling method and share of the training cells",
        sampling.figure_8,
        "latent sampling is the most stable, and edit sampling no more so than sampling by length; without a test.",
    ),
    "ablation": Figure(
        "Ablation: what one change of the paper's configuration does to how well test cells are ranked",
        ablation.ablation,
    ),
    "label_efficiency": Figure(
        "Kendall tau by number of labelled cells: mean and sample deviation over repeats",
        label_efficiency.label_efficiency,
    ),
    "latent_space": Figure("The latent space in its first two principal components", latent_space.latent_space),
    "predicted_and_true": Figure("Predicted against true accuracy", predictions.predicted_and_true),
    "autoencoder_training": Figure(
        "The autoencoder, epoch by epoch, on 1,000 held-out cells and 1,000 points", training.autoencoder_training
    ),
    "tune_history": Figure("The search: trial by trial, and the best so far at equal budget", search.tune_history),
    "tune_importance": Figure("The search: which settings matter", search.tune_importance),
    "tune_pareto": Figure("The search: the objective against training time", search.tune_pareto),
}


def write_figures() -> tuple[list[Path], dict[str, str]]:
    """Write every figure that there are runs for, as SVG and PNG.

    Returns:
        The files, and by the name of each other figure what is missing and the commands that give it.
    """
    files, missing = [], {}
    for name, figure in FIGURES.items():
        with mpl.rc_context(STYLE):
            try:
                drawing, stands_on = figure.draw()
            except UnavailableError as error:
                missing[name] = str(error)
                continue
            FOLDER.mkdir(parents=True, exist_ok=True)
            frame(drawing, figure.title, stands_on)
            for suffix, metadata in ((".svg", {"Date": None}), (".png", {})):
                files.append(FOLDER / f"{name}{suffix}")
                drawing.savefig(files[-1], metadata=metadata)
    return files, missing


def frame(drawing: Drawing, title: str, stands_on: str) -> None:
    """The title and the drawing's legend above, and what it stands on below, each in a room of its own."""
    width, height = drawing.get_size_inches()
    lines = textwrap.wrap(stands_on, int(width * LETTERS))
    legends = sum(legend.get_window_extent().height for legend in drawing.legends) / drawing.dpi
    above, below = TITLE + legends, 0.1 + LINE * len(lines)
    height += above + below
    drawing.set_size_inches(width, height)
    drawing.suptitle(title, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=11).set_in_layout(False)
    drawing.text(0.01, 0.06 / height, "\n".join(lines), va="bottom", fontsize=7, color="0.35").set_in_layout(False)
    for legend in drawing.legends:
        legend.set_in_layout(False)
        legend.set_bbox_to_anchor((0, 1 - TITLE / height), transform=drawing.transFigure)
    engine = drawing.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, below / height, 1, 1 - (above + below) / height))  # type: ignore[call-arg]
