"""Readouts A(h), equations (6) and (7) and supplement A.1: one embedding for a cell from the states of its nodes.

Each takes the distinct states ``h`` ``[U, d_n]``, every node's row among them (``nodes`` int64) and where each cell
begins (``offsets`` int64 ``[N + 1]``), and gives ``[N, d_g]``. A new readout is one class here and one line in
:data:`READOUTS`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedSum(nn.Module):
    """``sum_v Linear(d_n -> d_g)(h_v) * sigmoid(Linear(d_n -> 1)(h_v))``, the paper's choice.

    The supplement gives the first layer as d_n x 2 d_n, which cannot be added to a d_g embedding: a slip.
    """

    def __init__(self, node_dim: int, graph_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(node_dim, graph_dim)
        self.gate = nn.Linear(node_dim, 1)

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        values = self.linear(h) * torch.sigmoid(self.gate(h))
        return F.embedding_bag(nodes, values, offsets, mode="sum", include_last_offset=True)


class Mean(nn.Module):
    """``mean_v Linear(d_n -> d_g)(h_v)``."""

    def __init__(self, node_dim: int, graph_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(node_dim, graph_dim)

    def forward(self, h: Tensor, nodes: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(nodes, self.linear(h), offsets, mode="mean", include_last_offset=True)


Readout = GatedSum | Mean

READOUTS: dict[str, type[Readout]] = {"gated_sum": GatedSum, "mean": Mean}
