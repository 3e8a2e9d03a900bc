"""Aggregations Xi over the messages that a node receives, equations (2) and (4).

A new aggregation is one class here and one line in :data:`AGGREGATIONS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch_geometric.utils import scatter


class LinearAggregation(ABC):
    """A weighted sum of the messages, with one weight for all messages of a node."""

    @abstractmethod
    def weight(self, degree: Tensor) -> Tensor:
        """The weight of each message of a node that receives ``degree`` (any shape, floating point) of them."""

    def __call__(self, messages: Tensor, target: Tensor, num_targets: int) -> Tensor:
        """``[E, D]`` messages to the nodes ``target`` int64 ``[E]`` -> ``[num_targets, D]``; 0 where none arrives."""
        degree = torch.bincount(target, minlength=num_targets).to(messages.dtype)
        return scatter(messages * self.weight(degree)[target, None], target, dim_size=num_targets, reduce="sum")


class Sum(LinearAggregation):
    """The sum, the paper's choice."""

    def weight(self, degree: Tensor) -> Tensor:
        return torch.ones_like(degree)


class Mean(LinearAggregation):
    """The mean; 0 for a node without neighbours."""

    def weight(self, degree: Tensor) -> Tensor:
        return 1 / degree.clamp(min=1)


class Max:
    """The largest value of each dimension; 0 for a node without neighbours."""

    def __call__(self, messages: Tensor, target: Tensor, num_targets: int) -> Tensor:
        """``[E, D]``, int64 ``[E]`` -> ``[num_targets, D]``."""
        return scatter(messages, target, dim_size=num_targets, reduce="max")


AGGREGATIONS: dict[str, type[LinearAggregation] | type[Max]] = {"sum": Sum, "mean": Mean, "max": Max}
