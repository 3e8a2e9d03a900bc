"""The cells as a data set and in the latent space: figure 3, and the latent space coloured by accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from study.figures.records import fullest, labels_of, shipped_latents, stands_on
from vsgae.sampling import COMPONENTS, principal_components

LABELLED = ("table1", "sampling", "sampling_reduced")  # studies whose labels are shown
BINS = np.linspace(0, 1, 11)


def figure_3() -> tuple[Drawing, str]:
    _, runs = fullest(LABELLED)
    latents, model = shipped_latents()
    drawing = draw_properties(labels_of(runs[0]).values.numpy(), latents)
    return drawing, f"latent space of {model}, all {len(latents):,} cells. {stands_on(runs)}"


def latent_space() -> tuple[Drawing, str]:
    _, runs = fullest(LABELLED)
    latents, model = shipped_latents()
    labels = labels_of(runs[0])
    drawing = draw_latent_space(latents[labels.index.numpy()], labels.values.numpy())
    return drawing, f"latent space of {model}, its labelled cells. {stands_on(runs)}"


def draw_properties(accuracies: np.ndarray, latents: np.ndarray) -> Drawing:
    drawing = Drawing(figsize=(9, 4))
    axes: Sequence[Axes] = drawing.subplots(1, 2)
    counts, _ = np.histogram(accuracies, BINS)
    bars = axes[0].bar(BINS[:-1], counts, 0.09, align="edge", color="C0")
    axes[0].bar_label(bars, [f"{count:,}" if count else "" for count in counts], fontsize=7)
    axes[0].set(yscale="log", xlabel="validation accuracy", ylabel="cells")
    axes[0].set_title(f"{counts[-2:].sum() / counts.sum():.1%} of the cells are in the last two bins")
    axes[0].set_xticks(BINS[::2])

    centred = latents - latents.mean(0, dtype=float)
    variance = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    share = variance / variance.sum()
    number = np.arange(1, len(share) + 1)
    axes[1].bar(number, 100 * share, color="C0", label="of each component")
    axes[1].plot(number, 100 * share.cumsum(), ".-", color="C1", label="of it and those before")
    axes[1].set(xlabel="principal component of the encoder means", ylabel="explained variance, %", ylim=(0, 102))
    most = int(np.searchsorted(share.cumsum(), 0.95)) + 1
    axes[1].set_title(f"the first {COMPONENTS} explain {share[:COMPONENTS].sum():.0%}, the first {most} 95%")
    axes[1].legend(loc="center right")
    return drawing


def draw_latent_space(latents: np.ndarray, accuracies: np.ndarray) -> Drawing:
    points = principal_components(latents)
    low, high = np.quantile(accuracies, [0.05, 0.99])
    drawing = Drawing(figsize=(9, 5.4))
    panel = drawing.subplots()
    mean = panel.hexbin(
        points[:, 0], points[:, 1], C=accuracies, gridsize=70, cmap="viridis", vmin=low, vmax=high, linewidths=0.2
    )
    mean.set_rasterized(True)
    panel.set(
        xlabel="first principal component", ylabel="second", title="mean validation accuracy of the cells in a place"
    )
    panel.grid(visible=False)
    drawing.colorbar(mean, ax=panel, label="validation accuracy, 5th to 99th percentile", extend="both")
    return drawing
