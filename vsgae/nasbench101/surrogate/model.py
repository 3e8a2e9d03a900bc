"""The surrogate of NAS-Bench-101's validation accuracies: predicted, not measured.

In the manner of NAS-Bench-301 (Siems et al. 2020), for every cell and budget: boosted trees for the accuracy, its
deviation, and the chance of a failed run. ``docs/surrogate.md`` is its model card.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, ndtr, ndtri
from tqdm import tqdm

from vsgae.cells import Cells
from vsgae.files import replacing
from vsgae.nasbench101.surrogate.features import surrogate_features
from vsgae.nasbench101.surrogate.trees import Trees
from vsgae.nasbench101.tfrecord import EPOCHS

SHIPPED = Path(__file__).with_name("surrogate.npz")
VERSION = 1  # of the features and of how the fitted arrays are used; to be raised when either changes
CHANCE_LEVEL = 0.11  # up to here an accuracy on ten classes counts as a failed run: 0.1 and three standard errors
VALIDATION_IMAGES = 9984  # an accuracy is a multiple of one over it
BLOCK = 2**15  # cells at a time: their features take some 20 MB


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is predicted of N cells' training runs, float64 ``[N]`` each.

    Args:
        mean: the accuracy to expect of a run that does not fail, in [0, 1].
        run_deviation: from run to run of the same cell, among those that do not fail.
        model_deviation: of the cell's own mean from ``mean``: how far off the surrogate is.
        failure: the chance that a run fails.
        accuracy: to expect of any run, failed or not.
    """

    mean: np.ndarray
    run_deviation: np.ndarray
    model_deviation: np.ndarray
    failure: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True, eq=False)
class Budget:
    r"""The runs of one number of epochs. With :math:`t = -\log(1 - accuracy)`, a run that does not fail has
    :math:`t = location + scale \cdot \epsilon`, where the distribution of :math:`\epsilon` depends on the location.

    Args:
        location: trees for the location.
        scale: trees for the logarithm of the scale.
        failure: trees for the log-odds of failing, before calibration.
        calibration: float64 ``[2]``, the log-odds are the first times ``failure`` plus the second.
        centers: float64 ``[B]``, ascending: locations at which the distribution of epsilon is known.
        residuals: float64 ``[B, Q]``, its quantiles there, at (0.5, 1.5, ..., Q - 0.5) / Q.
        failed: float64 ``[F]``, ascending: accuracies of failed runs, each as likely as another.
        loading: float64 ``[1]``, the share of the cell in the deviation of a run, as a correlation in [0, 1].
    """

    location: Trees
    scale: Trees
    failure: Trees
    calibration: np.ndarray
    centers: np.ndarray
    residuals: np.ndarray
    failed: np.ndarray
    loading: np.ndarray

    @classmethod
    def read(cls, arrays: dict[str, np.ndarray], prefix: str) -> Budget:
        parts: dict[str, Any] = {}
        for field in fields(cls):
            name = f"{prefix}{field.name}"
            parts[field.name] = arrays[name] if name in arrays else Trees.read(arrays, f"{name}/")
        return cls(**parts)

    def arrays(self) -> dict[str, np.ndarray]:
        flat: dict[str, np.ndarray] = {}
        for field in fields(self):
            part = getattr(self, field.name)
            if isinstance(part, Trees):
                flat |= {f"{field.name}/{name}": array for name, array in part.arrays().items()}
            else:
                flat[field.name] = part
        return flat

    def at(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 ``[N, F]`` -> location, scale and chance of failing, float64 ``[N]`` each."""
        slope, intercept = self.calibration
        failure = expit(slope * self.failure(features) + intercept)
        return self.location(features), np.exp(self.scale(features)), failure

    def epsilon(self, location: np.ndarray, quantile: np.ndarray) -> np.ndarray:
        """float64 ``[N]`` and ``[N, R]`` in (0, 1) -> ``[N, R]``; linear between what is known, constant beyond."""
        last = np.array(self.residuals.shape) - 1
        across = np.interp(location, self.centers, np.arange(len(self.centers)))[:, None]
        along = np.clip(quantile * self.residuals.shape[1] - 0.5, 0, last[1])
        row, column = across.astype(int), along.astype(int)
        right, below = np.minimum(column + 1, last[1]), np.minimum(row + 1, last[0])
        across, along = across - row, along - column
        upper = (1 - along) * self.residuals[row, column] + along * self.residuals[row, right]
        lower = (1 - along) * self.residuals[below, column] + along * self.residuals[below, right]
        return (1 - across) * upper + across * lower


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Predicts and draws validation accuracies of any cell for 4, 12, 36 and 108 epochs.

    What a cell has of its own beyond the features, it keeps over repeats and budgets: the ranks of two runs among those
    that were to be expected have the correlation ``loading * loading`` (a Gaussian copula with one factor).

    Args:
        budgets: by the number of epochs.
        failure_loading: float64 ``[1]``, the like for failing.
        features: names of the features that the trees compare, in their order.
        digest: the SHA-256 of the file and of the version of this code.
    """

    budgets: dict[int, Budget]
    failure_loading: np.ndarray
    features: list[str]
    digest: str = ""

    @classmethod
    def load(cls, path: str | Path = SHIPPED) -> Surrogate:
        """What :meth:`save` wrote; by default the surrogate that comes with this package.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or no surrogate.
        """
        digest = hashlib.sha256(Path(path).read_bytes() + f" {VERSION}".encode()).hexdigest()
        try:
            with np.load(path) as file:
                arrays = dict(file)
            budgets = {epochs: Budget.read(arrays, f"{epochs}/") for epochs in EPOCHS}
            return cls(budgets, arrays["failure_loading"], arrays["features"].tolist(), digest)
        except (AttributeError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is no surrogate, or damaged: {error}") from error

    def save(self, path: str | Path) -> None:
        """As NumPy arrays, without pickle."""
        arrays: dict[str, Any] = {
            f"{epochs}/{name}": array
            for epochs, budget in self.budgets.items()
            for name, array in budget.arrays().items()
        }
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, features=self.features, failure_loading=self.failure_loading, **arrays)

    def predict(self, cells: Cells, epochs: int = 108) -> Prediction:
        """What to expect of the runs of so many epochs; for cells of NAS-Bench-101.

        Raises:
            ValueError: ``epochs`` is not 4, 12, 36 or 108.
        """
        budget = self._budget(epochs)
        quantiles = levels(budget.residuals.shape[1])
        parts = []
        for _, location, scale, failure in self._blocks(budget, cells):
            epsilon = budget.epsilon(location, np.broadcast_to(quantiles, (len(location), len(quantiles))))
            runs = _accuracy(location, scale, epsilon)
            mean, deviation = runs.mean(1), runs.std(1)
            own = budget.loading[0]
            accuracy = (1 - failure) * mean + failure * budget.failed.mean()
            parts.append((mean, np.sqrt(1 - own**2) * deviation, own * deviation, failure, accuracy))
        return Prediction(*map(np.concatenate, zip(*parts, strict=True))) if parts else Prediction(*np.empty((5, 0)))

    def draw(self, cells: Cells, epochs: int = 108, repeats: int = 3, seed: int = 0) -> np.ndarray:
        """float64 ``[N, repeats]``: accuracies of as many runs of every cell, drawn.

        Args:
            seed: the same seed, cells in the same order and repeats give the same draws; with other ``epochs`` and all
                else the same, the runs are of the same cells, each better or worse than expected as the loadings say.
                The labels of a study are drawn for the whole space: see :func:`~vsgae.nasbench101.labels.load_labels`.

        Raises:
            ValueError: ``epochs`` is not 4, 12, 36 or 108, or ``repeats`` is below 1.
        """
        budget = self._budget(epochs)
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}; it must be at least 1")
        of_cells, of_runs = np.random.default_rng([seed, 0]), np.random.default_rng([seed, epochs])
        cell = of_cells.standard_normal((2, len(cells), 1))
        run = of_runs.standard_normal((2, len(cells), repeats))
        failed_with = budget.failed[of_runs.integers(len(budget.failed), size=(len(cells), repeats))]
        rank = _share(cell[0], run[0], budget.loading[0])
        luck = _share(cell[1], run[1], self.failure_loading[0])
        drawn = np.empty((len(cells), repeats))
        for block, location, scale, failure in self._blocks(budget, cells):
            epsilon = budget.epsilon(location, ndtr(rank[block]))
            trained = _accuracy(location, scale, epsilon)
            drawn[block] = np.where(luck[block] < ndtri(failure)[:, None], failed_with[block], trained)
        return np.rint(drawn * VALIDATION_IMAGES) / VALIDATION_IMAGES

    def _blocks(self, budget: Budget, cells: Cells) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Of every block of cells its place, and their location, scale and chance of failing. Of equal cells in a row,
        the first is computed."""
        with tqdm(desc="surrogate", total=len(cells), unit=" cells", delay=2, leave=False, disable=None) as bar:
            for begin in range(0, len(cells), BLOCK):
                block = slice(begin, min(begin + BLOCK, len(cells)))
                part = cells[block]
                is_new = torch.cat([torch.ones(1, dtype=torch.bool), ~part[1:].equal(part[:-1])]).numpy()
                features = surrogate_features(part[np.flatnonzero(is_new)])
                if list(features) != self.features:
                    raise ValueError("the features of this version are not those that the surrogate was fitted to")
                which = np.cumsum(is_new) - 1
                location, scale, failure = budget.at(np.stack(list(features.values()), 1))
                yield block, location[which], scale[which], failure[which]
                bar.update(block.stop - begin)

    def _budget(self, epochs: int) -> Budget:
        if epochs not in self.budgets:
            raise ValueError(f"epochs is {epochs!r}; it must be one of {', '.join(map(str, self.budgets))}")
        return self.budgets[epochs]


@cache
def shipped_surrogate() -> Surrogate:
    """The surrogate that comes with this package, loaded once."""
    return Surrogate.load()


def levels(number: int) -> np.ndarray:
    """0.5, 1.5, ... over ``number``: at which a distribution's quantiles are kept."""
    return (np.arange(number) + 0.5) / number


def _accuracy(location: np.ndarray, scale: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    """float64 ``[N]``, ``[N]``, ``[N, R]`` -> ``[N, R]``, of runs that do not fail: what would come out below the
    chance level is reflected at it."""
    least = -np.log1p(-CHANCE_LEVEL)
    return -np.expm1(-(least + np.abs(location[:, None] + scale[:, None] * epsilon - least)))


def _share(cell: np.ndarray, run: np.ndarray, loading: float) -> np.ndarray:
    """Standard normal, of what belongs to the cell and what to the run."""
    return loading * cell + np.sqrt(1 - loading**2) * run
