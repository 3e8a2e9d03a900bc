"""Message modules M(h_v, h_u), equations (2) and (4) and supplement A.1: what node v receives along an edge from u.

Each has weights of its own for every direction in which messages go. A new message is one class here and one line in
:data:`MESSAGES`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearMessage(nn.Module):
    """A message that is linear in the states of the edge's two nodes, so that sums need no edges:

    ``sum_u M(h_v, h_u) = deg(v) W_own h_v + W_neighbour sum_u h_u + deg(v) b``.

    It is ``nn.Linear`` of the concatenated states, with its initialisation; the weights are stored in the form in which
    the encoder multiplies them: ``[d_n, directions, 2 or 1 states, message_dim]``.

    Args:
        node_dim: d_n, the dimension of a node's state.
        message_dim: the dimension of a message.
        num_directions: the number of directions in which messages go, 1 or 2.
    """

    sees_receiver: bool  #: whether the message depends on the receiving node's state

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__()
        blocks = 2 if self.sees_receiver else 1
        self.weight = nn.Parameter(torch.empty(node_dim, num_directions, blocks, message_dim))
        self.bias = nn.Parameter(torch.empty(num_directions, message_dim))
        bound = (blocks * node_dim) ** -0.5
        for direction in range(num_directions):
            weight = torch.empty(blocks, message_dim, node_dim).uniform_(-bound, bound)
            self.weight.data[:, direction] = weight.permute(2, 0, 1)
            self.bias.data[direction].uniform_(-bound, bound)

    def forward(self, h_v: Tensor, h_u: Tensor, direction: int) -> Tensor:
        """``[E, d_n]``, ``[E, d_n]`` -> ``[E, message_dim]``."""
        weight = self.weight[:, direction]
        message = torch.addmm(self.bias[direction], h_u, weight[:, -1])
        return message + h_v @ weight[:, 0] if self.sees_receiver else message


class ConcatLinear(LinearMessage):
    """``Linear(2 d_n -> message_dim)([h_v, h_u])``, the paper's choice."""

    sees_receiver = True


class NeighbourLinear(LinearMessage):
    """``Linear(d_n -> message_dim)(h_u)``: the receiving node does not see itself in the message."""

    sees_receiver = False


class ConcatMLP(nn.Module):
    """``Linear(ReLU(Linear([h_v, h_u])))``, two layers of width message_dim. Not linear: computed edge by edge."""

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * node_dim, message_dim), nn.ReLU(), nn.Linear(message_dim, message_dim))
            for _ in range(num_directions)
        )

    def forward(self, h_v: Tensor, h_u: Tensor, direction: int) -> Tensor:
        """``[E, d_n]``, ``[E, d_n]`` -> ``[E, message_dim]``."""
        return self.layers[direction](torch.cat([h_v, h_u], dim=1))


MESSAGES: dict[str, type[nn.Module]] = {
    "concat_linear": ConcatLinear,
    "neighbour_linear": NeighbourLinear,
    "concat_mlp": ConcatMLP,
}
