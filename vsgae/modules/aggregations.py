"""Aggregations Xi over the messages that a node receives in one direction, equations (2) and (4).

A new aggregation is one class here and one line in :data:`AGGREGATIONS`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import AttentionalAggregation
from torch_geometric.utils import scatter

SLOPE = 0.2  # of LeakyReLU below 0 where messages are scored, as in GATv2


class Aggregation(nn.Module):
    """Whatever the order of the messages, the result is the same: nodes that receive equal messages share a state.

    Args:
        message_dim: D, the dimension of a message.
    """

    def __init__(self, message_dim: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, messages: Tensor, target: Tensor, num_targets: int) -> Tensor:
        """``[E, D]`` messages to the nodes ``target`` int64 ``[E]`` -> ``[num_targets, D]``; 0 where none arrives."""


class LinearAggregation(Aggregation):
    """A weighted sum of the messages, with one weight for all messages of a node."""

    @abstractmethod
    def weight(self, degree: Tensor) -> Tensor:
        """The weight of each message of a node that receives ``degree`` (any shape, floating point) of them."""

    def forward(self, messages: Tensor, target: Tensor, num_targets: int) -> Tensor:
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


class Max(Aggregation):
    """The largest value of each dimension; 0 for a node without neighbours."""

    def forward(self, messages: Tensor, target: Tensor, num_targets: int) -> Tensor:
        return scatter(messages, target, dim_size=num_targets, reduce="max")


class Attention(Aggregation):
    """``sum_u softmax_u(a LeakyReLU(m_u)) m_u``, with a learned vector a for all directions.

    Of the message ``concat_linear`` the score is that of GATv2 (Brody et al. 2022, equation 7); see also the message
    ``gatv2``, where the state of the neighbour alone is summed.
    """

    def __init__(self, message_dim: int) -> None:
        super().__init__(message_dim)
        score = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Linear(message_dim, 1, bias=False))
        self.attention = AttentionalAggregation(score)

    def forward(self, messages: Tensor, target: Tensor, num_targets: int) -> Tensor:
        return self.attention(messages, target, dim_size=num_targets)


AGGREGATIONS: dict[str, type[Aggregation]] = {"sum": Sum, "mean": Mean, "max": Max, "attention": Attention}
