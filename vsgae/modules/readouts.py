"""Readouts A(h), equations (6) and (7) and supplement A.1: one embedding for a cell from the states of its nodes.

A new readout is one class here and one line in :data:`READOUTS`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Readout(nn.Module):
    """Begins with ``Linear(d_n -> d_g)`` of every state.

    Args:
        node_dim: d_n, the dimension of a node's state.
        graph_dim: d_g, the dimension of a cell's embedding.
    """

    def __init__(self, node_dim: int, graph_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(node_dim, graph_dim)

    @abstractmethod
    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        """The embeddings of N cells.

        Args:
            h: ``[U, d_n]``, the distinct states.
            nodes: int64, every node's row among them, cell after cell.
            offsets: int64 ``[N + 1]``, where each cell begins in ``nodes``.

        Returns:
            ``[N, d_g]``.
        """


class GatedSum(Readout):
    """``sum_v Linear(d_n -> d_g)(h_v) * sigmoid(Linear(d_n -> 1)(h_v))``, the paper's choice.

    The supplement gives the first layer as d_n x 2 d_n, which cannot be added to a d_g embedding: a slip.
    """

    def __init__(self, node_dim: int, graph_dim: int) -> None:
        super().__init__(node_dim, graph_dim)
        self.gate = nn.Linear(node_dim, 1)

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        values = self.linear(h) * torch.sigmoid(self.gate(h))
        return F.embedding_bag(nodes, values, offsets, mode="sum", include_last_offset=True)


class Sum(Readout):
    """``sum_v Linear(d_n -> d_g)(h_v)``: the paper's without its gate."""

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(nodes, self.linear(h), offsets, mode="sum", include_last_offset=True)


class Mean(Readout):
    """``mean_v Linear(d_n -> d_g)(h_v)``."""

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(nodes, self.linear(h), offsets, mode="mean", include_last_offset=True)


class Max(Readout):
    """``max_v Linear(d_n -> d_g)(h_v)``, of each dimension."""

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(nodes, self.linear(h), offsets, mode="max", include_last_offset=True)


class OutputNode(Readout):
    """``Linear(d_n -> d_g)(h_v)`` of the last node v: the output; of a partial cell in the decoder, the newest node.

    It knows of the cell what messages bring it: with T rounds, what lies at most T edges before the output, and with
    ``direction = backward``, nothing.
    """

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding(nodes[offsets[1:] - 1], self.linear(h))


READOUTS: dict[str, type[Readout]] = {
    "gated_sum": GatedSum,
    "sum": Sum,
    "mean": Mean,
    "max": Max,
    "output_node": OutputNode,
}
