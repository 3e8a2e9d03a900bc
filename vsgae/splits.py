"""Training, validation and test sets (paper sections 7.1 and 7.2); each a function of the cells and a seed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vsgae.cells import Cells
from vsgae.edit_distance import edit_distance, reference_cells

SplitName = Literal["edit_sampled", "zero_shot_6", "zero_shot_7", "random_90_10", "rest"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Args:
    name: which split.

        * ``edit_sampled``: 70 % training, 20 % test, 10 % validation, each drawn in proportion from every stratum
          of cells of one length and one edit distance to that length's reference cell.
        * ``zero_shot_6``: tested on all cells of length 6, trained on those of length 2, 3, 4, 5 and 7.
        * ``zero_shot_7``: tested on all cells of length 7, trained on those of length 2 to 6.
        * ``random_90_10``: 90 % training, 10 % test, uniformly at random; no validation set.
        * ``rest``: a sample of all cells for training, and all others for the test; no validation set. The only one
          whose test cells depend on which are trained on.

        Of the training lengths of a zero-shot split a tenth, drawn by strata, is the validation set: no test cell
        selects anything.
    seed: of the draw; ``rest`` has none of its own.
    """

    name: SplitName = "edit_sampled"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in SPLITS:
            raise ValueError(f"name is {self.name!r}; allowed are {', '.join(SPLITS)}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of cells, int64, ascending, disjoint; together all of them, unless a sample of the training cells leaves
    some out."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        if not len(self.train) or not len(self.test):
            raise ValueError(
                f"a split with {len(self.train)} training and {len(self.test)} test cells; neither may be empty"
            )

    def counts(self) -> dict[str, float]:
        """``train_cells``, ``validation_cells`` and ``test_cells``."""
        return {f"{part}_cells": float(len(getattr(self, part))) for part in ("train", "validation", "test")}


def split(cells: Cells, config: SplitConfig, choose: Callable[[Tensor], Tensor] = lambda every: every) -> Split:
    """Split ``cells``.

    Args:
        choose: of the cells that may be trained on, int64, ascending, those that are, in the same form; by default all.

    Raises:
        ValueError: the training or the test set is empty.
    """
    rng = np.random.default_rng(config.seed)
    everything = np.arange(len(cells))
    if config.name == "rest":
        train = choose(torch.from_numpy(everything))
        return Split(train, train[:0], torch.from_numpy(np.setdiff1d(everything, train.numpy())))
    if config.name == "random_90_10":
        order = rng.permutation(everything)
        cut = round(0.9 * len(cells))
        parts = order[:cut], order[:0], order[cut:]
    else:
        strata = edit_strata(cells)
        if config.name == "edit_sampled":
            train, test, validation = _divide(everything, strata, (7, 2, 1), rng)
        else:
            is_test = cells.num_nodes.numpy(force=True) == int(config.name[-1])
            test = everything[is_test]
            train, validation = _divide(everything[~is_test], strata[~is_test], (9, 1), rng)
        parts = train, validation, test
    candidates, validation, test = (torch.from_numpy(np.sort(part)) for part in parts)
    return Split(choose(candidates), validation, test)


def edit_strata(cells: Cells) -> np.ndarray:
    """int64 ``[N]``: one number for each length and edit distance to the reference cell of that length."""
    distance = edit_distance(cells, reference_cells(cells.num_nodes))
    return (cells.num_nodes * 1000 + distance).numpy(force=True)


def _divide(indices: np.ndarray, strata: np.ndarray, tenths: tuple[int, ...], rng: np.random.Generator) -> list:
    """Divide ``indices`` into parts of so many tenths, each stratum in proportion (permuted blocks).

    The strata are shuffled and laid end to end; of every ten cells in that order, ``tenths`` go to each part at random.
    """
    order = rng.permutation(len(indices))
    order = order[np.argsort(strata[order], kind="stable")]
    blocks = np.tile(np.repeat(np.arange(len(tenths)), tenths), (-(-len(order) // 10), 1))
    part = rng.permuted(blocks, axis=1).ravel()[: len(order)]
    return [indices[order[part == p]] for p in range(len(tenths))]
