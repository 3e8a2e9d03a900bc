"""How good the surrogate is, on measured cells that it was not fitted to; the tables of ``docs/surrogate.md``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp

from vsgae.cells import Cells
from vsgae.evaluation import regression_metrics
from vsgae.nasbench101.space import load_space
from vsgae.nasbench101.surrogate.fitting import Measured
from vsgae.nasbench101.surrogate.model import CHANCE_LEVEL, Surrogate
from vsgae.nasbench101.tfrecord import EPOCHS

LENGTHS = {"2 to 7": (2, 7), "2 to 5": (2, 5), "6": (6, 6), "7": (7, 7)}
RUNS = 64  # drawn of a cell where the mean of all its runs is wanted
SIMULATED = 199  # sets of measured runs
PEERS = 99  # drawn of a cell to rank a measured run among
BINS = np.array([0, CHANCE_LEVEL, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.93, 0.94, 1])


def errors(surrogate: Surrogate, measured: Measured) -> pd.DataFrame:
    """One row a budget and length: errors on the held-out cells, beside the limits that the runs' noise sets.

    The constant is the mean of the cells fitted to. The limits (``at least``, of the ratio to it, and the ceiling of
    tau) score a predictor that knows every cell's own mean (of 64 drawn runs) against one drawn run of it, averaged
    over ten draws: what could be reached if the surrogate's distribution were the true one. Since its deviation from
    run to run is an upper bound, so is the first limit, and the ceiling is a lower bound.
    """
    rows = []
    for epochs, cells, accuracy, fitted in _held_out(measured):
        predicted = surrogate.predict(cells, epochs).accuracy
        runs = [surrogate.draw(cells, epochs, RUNS + 1, seed) for seed in range(10)]
        for length, chosen in _by_length(cells):
            constant = np.sqrt(np.mean((accuracy[chosen] - fitted.mean()) ** 2))
            scores = _score(predicted[chosen], accuracy[chosen])
            ceilings = [_score(run[chosen, :-1].mean(1), run[chosen, -1]) for run in runs]
            spreads = [np.sqrt(np.mean((run[chosen, -1] - fitted.mean()) ** 2)) for run in runs]
            trained = chosen & (accuracy > CHANCE_LEVEL)
            error, spread = (predicted - accuracy)[trained], (accuracy - fitted.mean())[trained]
            rows.append(
                {
                    "epochs": epochs,
                    "nodes": length,
                    "cells": chosen.sum(),
                    "RMSE": scores["rmse"],
                    "of the constant's": scores["rmse"] / constant,
                    "at least": np.mean([c["rmse"] / s for c, s in zip(ceilings, spreads, strict=True)]),
                    "without failed runs": np.sqrt(np.mean(error**2) / np.mean(spread**2)),
                    "MAE": scores["mae"],
                    "R²": scores["r2"],
                    "Kendall tau": scores["kendall_tau"],
                    "its ceiling": np.mean([c["kendall_tau"] for c in ceilings]),
                }
            )
    return pd.DataFrame(rows)


def calibration(surrogate: Surrogate, measured: Measured) -> pd.DataFrame:
    """One row a budget and length: how well deviation and chance of failing fit the held-out cells.

    Of the runs that did not fail, the mean of (accuracy - mean) / predicted deviation, which should be 0, its standard
    deviation (ddof = 1), which should be 1, and the share inside the central 50 % and 90 % of drawn runs; of all runs,
    the number that failed and the number expected.
    """
    rows = []
    for epochs, cells, accuracy, _ in _held_out(measured):
        predicted = surrogate.predict(cells, epochs)
        deviation = np.hypot(predicted.run_deviation, predicted.model_deviation)
        trained = accuracy > CHANCE_LEVEL
        standardised = (accuracy - predicted.mean) / deviation
        # 99 copies of a cell are 99 cells to the surrogate: each draws what it has of its own
        runs = surrogate.draw(cells[np.repeat(np.arange(len(cells)), PEERS)], epochs, 1).reshape(len(cells), PEERS)
        runs[runs <= CHANCE_LEVEL] = np.nan
        rank = ((runs < accuracy[:, None]).sum(1) + 0.5) / (np.isfinite(runs).sum(1) + 1)
        for length, chosen in _by_length(cells):
            part = chosen & trained
            rows.append(
                {
                    "epochs": epochs,
                    "nodes": length,
                    "cells": chosen.sum(),
                    "predicted deviation": deviation[part].mean(),
                    "from run to run": predicted.run_deviation[part].mean(),
                    "mean": standardised[part].mean(),
                    "standardised": standardised[part].std(ddof=1),
                    "inside 50 %": (np.abs(rank - 0.5) < 0.25)[part].mean(),
                    "inside 90 %": (np.abs(rank - 0.5) < 0.45)[part].mean(),
                    "failed": (chosen & ~trained).sum(),
                    "failures expected": predicted.failure[chosen].sum(),
                }
            )
    return pd.DataFrame(rows)


def distributions(surrogate: Surrogate, measured: Measured) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drawn runs against measured ones, by budget and length: Kolmogorov-Smirnov tests with the share at chance level,
    and a histogram (per cent of the runs).

    Of the held-out cells 64 runs each are drawn. They are of the same cells as the measured ones, so that the test's p
    is that of 199 simulated sets of measured runs, drawn too. Of the whole space one run a cell is drawn, which is
    compared with all of ``measured``, a uniform sample of the space of which nine tenths were fitted to.
    """
    space = load_space().cells
    index = np.flatnonzero(measured.held_out)
    held_out, copies = measured.cells[index], np.repeat(np.arange(len(index)), RUNS + SIMULATED)
    tests, histograms = [], {}
    for column, epochs in enumerate(EPOCHS):
        accuracy = measured.accuracy[:, column]
        runs = surrogate.draw(held_out[copies], epochs, 1).reshape(len(index), -1)
        drawn, simulated = runs[:, :RUNS], runs[:, RUNS:]
        for length, chosen in _by_length(held_out):
            pair = drawn[chosen].ravel(), accuracy[index][chosen]
            found = ks_2samp(*pair).statistic
            by_chance = [ks_2samp(pair[0], other).statistic for other in simulated[chosen].T]
            p = (1 + np.sum(np.array(by_chance) >= found)) / (1 + SIMULATED)
            tests.append(_test(epochs, "held out", length, *pair, found, p))
        drawn = surrogate.draw(space, epochs, 1)[:, 0]
        for (length, chosen), (_, of_sample) in zip(_by_length(space), _by_length(measured.cells), strict=True):
            pair = drawn[chosen], accuracy[of_sample]
            test = ks_2samp(*pair)
            tests.append(_test(epochs, "space", length, *pair, test.statistic, test.pvalue))
            for kind, values in zip(("drawn", "measured"), pair, strict=True):
                counts = np.histogram(values, BINS)[0]
                histograms[f"{epochs}, {length}, {kind}"] = 100 * counts / len(values)
    edges = [f"{low:g} to {high:g}" for low, high in pairwise(BINS)]
    return pd.DataFrame(tests), pd.DataFrame(histograms, index=edges).T.rename_axis("epochs, nodes").reset_index()


def _test(
    epochs: int, cells: str, length: str, drawn: np.ndarray, measured: np.ndarray, statistic: float, p: float
) -> dict[str, object]:
    return {
        "epochs": epochs,
        "cells": cells,
        "nodes": length,
        "measured runs": len(measured),
        "largest difference": statistic,
        "p": p,
        "at chance level, drawn": f"{(drawn <= CHANCE_LEVEL).mean():.3%}",
        "measured": f"{(measured <= CHANCE_LEVEL).mean():.3%}",
    }


def _score(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    return regression_metrics(torch.from_numpy(predicted), torch.from_numpy(true))


def _held_out(measured: Measured) -> Iterator[tuple[int, Cells, np.ndarray, np.ndarray]]:
    """By budget: its epochs, the held-out cells and their accuracies, and those of the cells fitted to."""
    cells = measured.cells[np.flatnonzero(measured.held_out)]
    for column, epochs in enumerate(EPOCHS):
        accuracy = measured.accuracy[:, column]
        yield epochs, cells, accuracy[measured.held_out], accuracy[~measured.held_out]


def _by_length(cells: Cells) -> Iterator[tuple[str, np.ndarray]]:
    nodes = cells.num_nodes.numpy()
    for name, (least, most) in LENGTHS.items():
        yield name, (nodes >= least) & (nodes <= most)
