"""How the surrogate is fitted to measured cells, one run of each at every budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import least_squares
from scipy.special import expit, ndtri
from scipy.stats import rankdata
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from vsgae.cells import Cells
from vsgae.nasbench101.labels import OFFICIAL, SURROGATE, LabelConfig, load_labels
from vsgae.nasbench101.space import load_space
from vsgae.nasbench101.surrogate.features import surrogate_features
from vsgae.nasbench101.surrogate.model import CHANCE_LEVEL, Budget, Surrogate, levels
from vsgae.nasbench101.surrogate.trees import Trees
from vsgae.nasbench101.tfrecord import EPOCHS

FOLDS = 5  # every cell's residual is that of trees that have not seen it
BINS, QUANTILES, FAILED = 12, 101, 101  # of the tables of residuals and of failed runs
FAILURES_OF = {4: 4, 12: 12, 36: 36, 108: 36}
"""The budget whose failures the classifier learns: at 108 epochs they are too few (0.1 % of the runs), and most cells
that fail there do so at 36 epochs too. The calibration is each budget's own."""

_COMMON = {"learning_rate": 0.06, "subsample": 0.6, "max_features": 0.2, "random_state": 0}
_LOCATION = {"loss": "huber", "alpha": 0.97, "n_estimators": 600, "max_depth": 6, "min_samples_leaf": 8}
_SCALE = {"n_estimators": 100, "max_depth": 3, "min_samples_leaf": 50}
_FAILURE = {"n_estimators": 200, "max_depth": 4, "min_samples_leaf": 30}


@dataclass(frozen=True, eq=False)
class Measured:
    """N cells with one measured run at every budget.

    Args:
        accuracy: float64 ``[N, 4]``, for 4, 12, 36 and 108 epochs.
        held_out: bool ``[N]``, which cells the surrogate is not fitted to.
    """

    cells: Cells
    accuracy: np.ndarray
    held_out: np.ndarray

    @classmethod
    def read(cls, table: str) -> Measured:
        """Of a measured table that has ``validation_accuracy`` at every budget.

        A tenth of the cells is held out, by their module hashes: those whose last eight hexadecimal digits, as a
        number, are divisible by ten.

        Raises:
            ValueError: as :func:`~vsgae.nasbench101.labels.load_labels`, or ``table`` names another source.
        """
        if table in (OFFICIAL, SURROGATE):
            raise ValueError(f"table is {table!r}; it must be the path of a table of measured cells")
        labels = [load_labels(LabelConfig(source=table, epochs=epochs)) for epochs in EPOCHS]
        hashes = load_space().hashes.take(labels[0].index.numpy()).to_pylist()
        held_out = np.array([int(text[-8:], 16) % 10 == 0 for text in hashes])
        accuracy = np.stack([each.values.double().numpy() for each in labels], 1)
        return cls(labels[0].cells, accuracy, held_out)

    def __getitem__(self, index: np.ndarray) -> Measured:
        return Measured(self.cells[index], self.accuracy[index], self.held_out[index])


def fit(measured: Measured, jobs: int = -1) -> Surrogate:
    """The surrogate fitted to all of ``measured`` but the cells held out. It takes some three minutes on two cores.

    Args:
        jobs: processes at a time; -1: as many as there are cores.

    Raises:
        ValueError: at some budget no run failed, or every one.
    """
    measured = measured[np.flatnonzero(~measured.held_out)]
    columns = surrogate_features(measured.cells)
    features = np.stack(list(columns.values()), 1)
    failed = measured.accuracy <= CHANCE_LEVEL
    for epochs, share in zip(EPOCHS, failed.mean(0), strict=True):
        if share in (0, 1):
            raise ValueError(f"{share:.0%} of the runs of {epochs} epochs failed; some must, and some must not")
    target = -np.log1p(-measured.accuracy)
    location = [_fit(_regressor(_LOCATION), features, t, ~f, jobs) for t, f in zip(target.T, failed.T, strict=True)]
    log_residual = [np.log(np.abs(t - each.unseen) + 1e-4) for t, each in zip(target.T, location, strict=True)]
    scale = [_fit(_regressor(_SCALE), features, r, ~f, jobs) for r, f in zip(log_residual, failed.T, strict=True)]
    everywhere = np.ones(len(features), bool)
    failure = {
        epochs: _fit(_classifier, features, failed[:, EPOCHS.index(epochs)], everywhere, jobs)
        for epochs in dict.fromkeys(FAILURES_OF.values())
    }
    budgets, ranks, chances = {}, [], []
    for column, epochs in enumerate(EPOCHS):
        runs, odds = ~failed[:, column], failure[FAILURES_OF[epochs]]
        epsilon = (target[:, column] - location[column].unseen) / np.exp(scale[column].unseen)
        centers, residuals = _residuals(location[column].unseen[runs], epsilon[runs])
        calibration = _calibration(odds.unseen, failed[:, column])
        budgets[epochs] = Budget(
            location=location[column].trees,
            scale=scale[column].trees,
            failure=odds.trees,
            calibration=calibration,
            centers=centers,
            residuals=residuals,
            failed=np.quantile(measured.accuracy[failed[:, column], column], levels(FAILED), method="nearest"),
            loading=np.zeros(1),
        )
        ranks.append(np.where(runs, epsilon, np.nan))
        chances.append(expit(calibration[0] * odds.unseen + calibration[1]))
    loadings = _loadings(np.stack(ranks, 1))
    budgets = {
        epochs: replace(budget, loading=loading[None])
        for (epochs, budget), loading in zip(budgets.items(), loadings, strict=True)
    }
    together = failed[:, EPOCHS.index(36)] & failed[:, EPOCHS.index(108)]
    failure_loading = _failure_loading(chances[EPOCHS.index(36)], chances[EPOCHS.index(108)], int(together.sum()))
    return Surrogate(budgets, np.array([failure_loading]), list(columns))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Trees fitted to all rows that were chosen, and for every row what trees say that have not seen it."""

    trees: Trees
    unseen: np.ndarray


def _regressor(settings: dict[str, Any]) -> Callable[[], GradientBoostingRegressor]:
    return lambda: GradientBoostingRegressor(**_COMMON, **settings)


def _classifier() -> GradientBoostingClassifier:
    return GradientBoostingClassifier(**_COMMON, **_FAILURE)


def _fit(make: Callable[[], Any], features: np.ndarray, target: np.ndarray, rows: np.ndarray, jobs: int) -> _Fitted:
    """``rows`` bool ``[N]``: those to fit."""
    fold = np.arange(len(features)) % FOLDS
    parts = [rows, *(rows & (fold != number) for number in range(FOLDS))]

    def trees(part: np.ndarray) -> Trees:
        return Trees.of(make().fit(features[part], target[part]))

    everything, *others = Parallel(jobs)(delayed(trees)(part) for part in parts)
    unseen = np.empty(len(features))
    for number, other in enumerate(others):
        unseen[fold == number] = other(features[fold == number])
    return _Fitted(everything, unseen)


def _residuals(location: np.ndarray, epsilon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centres of bins of equally many locations, and the quantiles of epsilon in each."""
    bins = np.array_split(location.argsort(), BINS)
    centers = np.array([np.median(location[part]) for part in bins])
    return centers, np.stack([np.quantile(epsilon[part], levels(QUANTILES)) for part in bins])


def _calibration(log_odds: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Slope and intercept of a logistic regression without a penalty (Platt scaling)."""
    model = LogisticRegression(C=np.inf).fit(log_odds[:, None], failed)
    return np.array([model.coef_[0, 0], model.intercept_[0]])


def _loadings(epsilon: np.ndarray) -> np.ndarray:
    """float64 ``[N, 4]``, NaN for a failed run -> ``[4]``: the loadings whose products come nearest to the correlations
    of the normal scores of different budgets. Runs of different budgets share the cell and nothing else."""
    epsilon = epsilon[~np.isnan(epsilon).any(1)]
    scores = ndtri((rankdata(epsilon, axis=0) - 0.5) / len(epsilon))
    first, second = np.triu_indices(epsilon.shape[1], 1)
    correlation = np.corrcoef(scores.T)[first, second]
    start = np.full(epsilon.shape[1], 0.5)
    return least_squares(lambda own: own[first] * own[second] - correlation, start, bounds=(0, 1)).x


def _failure_loading(first: np.ndarray, second: np.ndarray, together: int) -> float:
    """The loading with which runs that fail with these chances fail ``together`` in about as many cells as they did."""
    rng = np.random.default_rng(0)
    cell, runs = rng.standard_normal((100, len(first))), rng.standard_normal((2, 100, len(first)))
    limits = ndtri(np.stack([first, second]))

    def count(loading: float) -> float:
        first_fails, second_fails = loading * cell + np.sqrt(1 - loading**2) * runs < limits[:, None]
        return (first_fails & second_fails).sum() / len(cell)

    candidates: Sequence[float] = np.linspace(0, 0.95, 20).tolist()
    return min(candidates, key=lambda loading: abs(count(loading) - together))
