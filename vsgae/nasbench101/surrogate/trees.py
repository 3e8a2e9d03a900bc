"""Boosted regression trees as plain arrays: fitted by scikit-learn, kept and evaluated without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

LEAF = 255  # in place of the number of a feature


@dataclass(frozen=True, eq=False)
class Trees:
    """A constant and the sum of T trees with M nodes in all. A node comes directly before its left child.

    Args:
        base: float64 ``[1]``.
        start: int32 ``[T]``, where the nodes of each tree begin.
        feature: uint8 ``[M]``, the feature that a node compares, or 255 for a leaf.
        value: float32 ``[M]``, what it compares with (the left child is for values up to it), or what a leaf adds.
        right: uint8 ``[M]``, how many nodes further the right child is; 0 for a leaf.
    """

    base: np.ndarray
    start: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, model: GradientBoostingRegressor | GradientBoostingClassifier) -> Trees:
        """The trees of a fitted model; of a classifier of two classes, whose sum is the log-odds of the second.

        Raises:
            ValueError: a tree has more than 255 nodes, or the model more than 255 features.
        """
        trees = [estimator.tree_ for estimator in model.estimators_[:, 0]]
        largest = max(tree.node_count for tree in trees)
        if largest > LEAF or model.n_features_in_ > LEAF:
            raise ValueError(f"{largest} nodes in a tree and {model.n_features_in_} features; at most {LEAF} of each")
        is_leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        threshold = np.concatenate([tree.threshold for tree in trees])
        nearest = threshold.astype(np.float32)  # then the largest that is not above it, for features are float32
        below = np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)
        leaf = model.learning_rate * np.concatenate([tree.value[:, 0, 0] for tree in trees])
        right = np.concatenate([tree.children_right - np.arange(tree.node_count) for tree in trees])
        feature = np.concatenate([tree.feature for tree in trees])
        without_base = cls(
            base=np.zeros(1),
            start=np.cumsum([0, *(tree.node_count for tree in trees[:-1])]).astype(np.int32),
            feature=np.where(is_leaf, LEAF, feature).astype(np.uint8),
            value=np.where(is_leaf, leaf, below).astype(np.float32),
            right=np.where(is_leaf, 0, right).astype(np.uint8),
        )
        some = np.zeros((1, model.n_features_in_), np.float32)
        total = getattr(model, "decision_function", model.predict)(some)
        return replace(without_base, base=total - without_base(some))

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], prefix: str) -> Trees:
        """What :meth:`arrays` gave, from entries whose names begin with ``prefix``."""
        return cls(**{field.name: arrays[f"{prefix}{field.name}"] for field in fields(cls)})

    def arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 ``[N, F]`` -> float64 ``[N]``."""
        columns = np.ascontiguousarray(features.T)
        feature, right = self.feature.tolist(), self.right.tolist()

        def value(node: int) -> np.ndarray | np.float32:
            """Of every row in the subtree below ``node``: all of it at once is faster than each row's own way down."""
            if feature[node] == LEAF:
                return self.value[node]
            goes_left = columns[feature[node]] <= self.value[node]
            return np.where(goes_left, value(node + 1), value(node + right[node]))

        total = np.full(len(features), self.base[0])
        for start in self.start.tolist():
            total += value(start)
        return total
