"""Message modules M(h_v, h_u), equations (2) and (4) and supplement A.1: what node v receives along an edge from u.

A new message is one class here and one line in :data:`MESSAGES`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearMessage(nn.Module):
    """A message that is linear in the states of the edge's two nodes, so that sums need no edges:

    ``sum_u M(h_v, h_u) = deg(v) W_own h_v + W_neighbour sum_u h_u + deg(v) b``.

    It is ``nn.Linear`` of the concatenated states, with its initialisation; the weight is stored in blocks, one
    a state, in the form in which the encoder multiplies it.

    Args:
        node_dim: d_n, the dimension of a node's state.
        message_dim: the dimension of a message.
    """

    own: bool  #: whether the message depends on the receiving node's own state

    def __init__(self, node_dim: int, message_dim: int) -> None:
        super().__init__()
        blocks = 2 if self.own else 1
        bound = (blocks * node_dim) ** -0.5
        self.weight = nn.Parameter(torch.empty(blocks, message_dim, node_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(message_dim).uniform_(-bound, bound))

    def forward(self, h_v: Tensor, h_u: Tensor) -> Tensor:
        """``[E, d_n]``, ``[E, d_n]`` -> ``[E, message_dim]``."""
        message = F.linear(h_u, self.weight[-1], self.bias)
        return message + F.linear(h_v, self.weight[0]) if self.own else message


class ConcatLinear(LinearMessage):
    """``Linear(2 d_n -> message_dim)([h_v, h_u])``, the paper's choice."""

    own = True


class NeighbourLinear(LinearMessage):
    """``Linear(d_n -> message_dim)(h_u)``: the receiving node does not see itself in the message."""

    own = False


class ConcatMLP(nn.Module):
    """``Linear(ReLU(Linear([h_v, h_u])))``, two layers of width message_dim. Not linear: computed edge by edge."""

    def __init__(self, node_dim: int, message_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * node_dim, message_dim)
        self.out = nn.Linear(message_dim, message_dim)

    def forward(self, h_v: Tensor, h_u: Tensor) -> Tensor:
        """``[E, d_n]``, ``[E, d_n]`` -> ``[E, message_dim]``."""
        return self.out(torch.relu(self.hidden(torch.cat([h_v, h_u], dim=1))))


MESSAGES: dict[str, type[nn.Module]] = {
    "concat_linear": ConcatLinear,
    "neighbour_linear": NeighbourLinear,
    "concat_mlp": ConcatMLP,
}
