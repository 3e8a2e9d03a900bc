"""Which cells to train on, when not all can be (paper section 6): five samplers.

Each takes the cells to choose from, how many, and a random number generator, and returns exactly so many distinct ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.random import Generator
from scipy.spatial import cKDTree
from torch import Tensor

from vsgae.cells import Cells
from vsgae.latents import SHIPPED
from vsgae.splits import edit_strata

SamplingMethod = Literal["length", "edit", "latent", "uniform", "k_means_pp"]
SAMPLING_METHODS = get_args(SamplingMethod)
"""* ``length``: uniformly at random from the cells of each length, in proportion (section 6.1).
* ``edit``: so from the cells of each length and edit distance to that length's reference cell (section 6.1).
* ``latent``: the cells closest to the centres of bins of the latent space (section 6.2).
* ``uniform``: uniformly at random from all cells.
* ``k_means_pp``: far from each other in the latent space, as k-means++ chooses its centres."""
IN_LATENT_SPACE = ("latent", "k_means_pp")
COMPONENTS = 4  # of the latent space (section 6.2)
MOST_BINS = 2**15 - 1  # in a dimension, so that four fit into an int64


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which of the training cells are trained on; by default all.

    Args:
        method: one of :data:`SAMPLING_METHODS`.
        share: of the training cells, in (0, 1]; of 1 the method does not matter.
        size: that many of them, in place of a share.
        latents: the autoencoder whose latent space the methods that are ``IN_LATENT_SPACE`` sample from: ``shipped``,
            the one that comes with this project, or the path of one that
            :meth:`~vsgae.autoencoder.VSGAE.save_pretrained` wrote.
    """

    method: SamplingMethod = "uniform"
    share: float = 1.0
    size: int | None = None
    latents: str = SHIPPED

    def __post_init__(self) -> None:
        if self.method not in SAMPLING_METHODS:
            raise ValueError(f"method is {self.method!r}; allowed are {', '.join(SAMPLING_METHODS)}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")
        if self.size is not None and (self.size < 1 or self.share < 1):
            raise ValueError(f"size is {self.size} and share {self.share}; a size must be at least 1, and has no share")

    @property
    def is_drawn(self) -> bool:
        """A part of the cells, which depends on a seed."""
        return self.share < 1 or self.size is not None

    @property
    def uses_latents(self) -> bool:
        return self.is_drawn and self.method in IN_LATENT_SPACE

    def chosen(self, cells: Cells, seed: int, latents: Tensor | None = None) -> Tensor:
        """int64, ascending: the indices of the chosen ones of ``cells``, at least one; see :func:`sample`."""
        if not self.is_drawn:
            return torch.arange(len(cells))
        size = max(1, round(self.share * len(cells))) if self.size is None else self.size
        return sample(cells, size, self.method, seed, latents)


def sample(cells: Cells, size: int, method: SamplingMethod, seed: int, latents: Tensor | None = None) -> Tensor:
    """int64 ``[size]``, ascending: the indices of the chosen ones of ``cells``.

    Args:
        latents: float ``[N, d_g]``, the encoder means of ``cells``, for the methods that are ``IN_LATENT_SPACE``.

    Raises:
        ValueError: ``size`` is not between 1 and the number of cells, ``method`` unknown, or ``latents`` missing.
    """
    if not 1 <= size <= len(cells):
        raise ValueError(f"size is {size}; it must be between 1 and the number of cells, {len(cells)}")
    if method not in SAMPLING_METHODS:
        raise ValueError(f"method is {method!r}; allowed are {', '.join(SAMPLING_METHODS)}")
    rng = np.random.default_rng(seed)
    if method in IN_LATENT_SPACE:
        if latents is None or len(latents) != len(cells):
            raise ValueError(f"method {method!r} needs the latents of all {len(cells)} cells")
        points = principal_components(latents.numpy(force=True))
        chosen = sample_bins(points, size, rng) if method == "latent" else sample_far_apart(points, size, rng)
    elif method == "uniform":
        chosen = rng.choice(len(cells), size, replace=False)
    else:
        strata = cells.num_nodes.numpy(force=True) if method == "length" else edit_strata(cells)
        chosen = sample_in_proportion(strata, size, rng)
    return torch.from_numpy(np.sort(chosen))


def principal_components(latents: np.ndarray) -> np.ndarray:
    """float64 ``[N, min(d_g, 4)]``: the first principal components, by falling variance."""
    centred = latents - latents.mean(0, dtype=float)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, ::-1][:, :COMPONENTS]


def sample_in_proportion(strata: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """int64 ``[size]``: of every stratum its share, up to one; at random within it.

    The strata are shuffled and laid end to end, and every so-manieth is taken.

    Args:
        strata: int ``[N]``, the stratum of each.
    """
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    return order[((np.arange(size) + rng.random()) * len(strata) / size).astype(int)]


def sample_bins(points: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """int64 ``[size]``: section 6.2 on points of the reduced latent space, float ``[N, D]``.

    About as many bins of one size as are wanted are filled; each gives the point that is closest to its centre. Of too
    many, some are dropped at random; of too few, see :func:`fill_up`.
    """
    bins = search_bins(points, size)
    bin_of, from_centre = assign_bins(points, bins, rng.random((points.shape[1],)))
    order = np.lexsort((from_centre, bin_of))
    is_first = np.diff(bin_of[order], prepend=-1) > 0
    closest = order[is_first]
    if len(closest) >= size:
        return rng.choice(closest, size, replace=False)
    rest = order[~is_first]
    return np.concatenate([closest, rest[fill_up(bin_of[rest], size - len(closest), rng)]])


def search_bins(points: np.ndarray, wanted: int) -> int:
    """The number of bins in a dimension with which about ``wanted`` bins are filled, before they are shifted."""

    def filled(bins: int) -> int:
        return len(np.unique(assign_bins(points, bins, np.zeros(points.shape[1]))[0]))

    low, high = 1, 1
    while high < MOST_BINS and filled(high) < wanted:
        low, high = high, min(2 * high, MOST_BINS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if filled(middle) < wanted else (low, middle)
    return min((low, high), key=lambda bins: abs(filled(bins) - wanted))


def assign_bins(points: np.ndarray, bins: int, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bin of each point, int64 ``[N]`` from 0, and its distance to the bin's centre.

    In every dimension ``bins`` bins of one size span the points, and are moved down by the ``shift``, a proportion of
    that size in [0, 1); a further one at the end takes in what they leave.

    Args:
        points: float ``[N, D]``.
        shift: ``[D]``.
    """
    low = points.min(0)
    width = np.maximum((points.max(0) - low) / bins, np.finfo(float).tiny)
    place = np.minimum((points - low) / width, np.nextafter(bins, 0)) + shift
    index = place.astype(np.int64)
    from_centre = np.linalg.norm((place - index - 0.5) * width, axis=1)
    return np.ravel_multi_index(tuple(index.T), (bins + 1,) * points.shape[1]), from_centre


def fill_up(bin_of: np.ndarray, missing: int, rng: Generator) -> np.ndarray:
    """int64 ``[missing]``: distinct points, a random one of each bin that has any left, again and again; when fewer are
    missing than there are such bins, of bins at random.

    Args:
        bin_of: int ``[N]``, the bin of each point; at least ``missing`` points.
    """
    order = rng.permutation(len(bin_of))
    order = order[np.argsort(bin_of[order], kind="stable")]
    begins = np.flatnonzero(np.diff(bin_of[order], prepend=-1) > 0)
    turn = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    by_turn = np.lexsort((rng.random(len(order)), turn))
    return order[by_turn[:missing]]


def sample_far_apart(points: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """int64 ``[size]``: points far from each other, float ``[N, D]``.

    As k-means++ chooses centres, each with a probability in proportion to its squared distance to the nearest chosen
    one; but in rounds, each of as many as are chosen already (compare k-means||, Bahmani et al. 2012), since a round
    for each point would take N * size distances.
    """
    squared, is_left = np.full(len(points), np.inf), np.ones(len(points), bool)
    newest = rng.integers(len(points), size=1)
    chosen = newest
    while len(chosen) < size:
        is_left[newest] = False
        left = np.flatnonzero(is_left)
        distance, _ = cKDTree(points[newest]).query(points[left], workers=-1)
        squared[left] = np.minimum(squared[left], distance**2)
        # The largest of log(w) + Gumbel noise are a draw without replacement by the weights w; those of points that
        # lie on chosen ones are the least there are.
        score = np.log(np.maximum(squared[left], np.finfo(float).tiny)) + rng.gumbel(size=len(left))
        number = min(len(chosen), size - len(chosen))
        newest = left[np.argpartition(score, -number)[-number:]]
        chosen = np.concatenate([chosen, newest])
    return chosen
