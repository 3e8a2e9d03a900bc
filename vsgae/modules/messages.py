"""Message modules M(h_v, h_u), equations (2) and (4) and supplement A.1: what node v receives along an edge from u.

Each tells the directions apart in which messages go, most by weights of their own for each. A new message is one class
here and one line in :data:`MESSAGES`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.utils import softmax

from vsgae.modules.aggregations import SLOPE


class Message(nn.Module):
    """What the encoder asks of a message.

    Args:
        node_dim: d_n, the dimension of a node's state.
        message_dim: the dimension of a message, 2 d_n.
        num_directions: the number of directions in which messages go, 1 or 2.
    """

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, h_v: Tensor, h_u: Tensor, direction: int, target: Tensor) -> Tensor:
        """The messages of E edges in one direction.

        Args:
            h_v: ``[E, d_n]``, the states of the receiving nodes.
            h_u: ``[E, d_n]``, the states of their neighbours.
            direction: 0, or 1 where there are two.
            target: int64 ``[E]``, which node receives: for messages that depend on the node's others.

        Returns:
            ``[E, message_dim]``.
        """


class LinearMessage(Message):
    """A message that is linear in the states of the edge's two nodes, so that sums need no edges:

    ``sum_u M(h_v, h_u) = deg(v) W_own h_v + W_neighbour sum_u h_u + deg(v) b``.

    The weights are stored in the form in which the encoder multiplies them: ``weight`` ``[d_n, directions, 2 or 1
    states, message_dim]`` and ``bias`` ``[directions, message_dim]``.
    """

    sees_receiver: bool  #: whether the message depends on the receiving node's state
    weight: Tensor
    bias: Tensor

    def forward(self, h_v: Tensor, h_u: Tensor, direction: int, target: Tensor) -> Tensor:
        weight = self.weight[:, direction]
        message = torch.addmm(self.bias[direction], h_u, weight[:, -1])
        return message + h_v @ weight[:, 0] if self.sees_receiver else message


class LearnedLinear(LinearMessage):
    """``nn.Linear`` of the concatenated states, with its initialisation."""

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__(node_dim, message_dim, num_directions)
        blocks = 2 if self.sees_receiver else 1
        self.weight = nn.Parameter(torch.empty(node_dim, num_directions, blocks, message_dim))
        self.bias = nn.Parameter(torch.empty(num_directions, message_dim))
        bound = (blocks * node_dim) ** -0.5
        for direction in range(num_directions):
            weight = torch.empty(blocks, message_dim, node_dim).uniform_(-bound, bound)
            self.weight.data[:, direction] = weight.permute(2, 0, 1)
            self.bias.data[direction].uniform_(-bound, bound)


class ConcatLinear(LearnedLinear):
    """``Linear(2 d_n -> message_dim)([h_v, h_u])``, the paper's choice."""

    sees_receiver = True


class NeighbourLinear(LearnedLinear):
    """``Linear(d_n -> message_dim)(h_u)``: the receiving node does not see itself in the message."""

    sees_receiver = False


class NeighbourState(LinearMessage):
    """``h_u`` itself, without weights, as in GIN (Xu et al. 2019): the state is put into the half of the message that
    is the direction's own, so that a node's sums over predecessors and over successors are told apart.

    GIN's ``(1 + eps) h_v`` is no message: every update but ``replace`` has a linear map of the node's own state. As a
    linear message with fixed weights it is as fast as ``neighbour_linear``. With one direction the second half of the
    message is 0, and the update's weights of it idle.
    """

    sees_receiver = False

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__(node_dim, message_dim, num_directions)
        eye = torch.eye(message_dim)[: num_directions * node_dim].view(num_directions, node_dim, 1, message_dim)
        self.register_buffer("weight", eye.transpose(0, 1).contiguous(), persistent=False)
        self.register_buffer("bias", torch.zeros(num_directions, message_dim), persistent=False)


class ConcatMLP(Message):
    """``Linear(ReLU(Linear([h_v, h_u])))``, two layers of width message_dim. Not linear: computed edge by edge."""

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__(node_dim, message_dim, num_directions)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * node_dim, message_dim), nn.ReLU(), nn.Linear(message_dim, message_dim))
            for _ in range(num_directions)
        )

    def forward(self, h_v: Tensor, h_u: Tensor, direction: int, target: Tensor) -> Tensor:
        return self.layers[direction](torch.cat([h_v, h_u], dim=1))


class GATv2(Message):
    """``alpha_vu (W_u h_u + b)``, where alpha is the softmax over all neighbours u of v of the scores

    ``e(h_v, h_u) = a LeakyReLU(W_v h_v + W_u h_u + b)`` (Brody et al. 2022, equation 7), with one head.

    Summed up, the messages are GATv2's layer before its activation. Not linear: computed edge by edge.
    """

    def __init__(self, node_dim: int, message_dim: int, num_directions: int) -> None:
        super().__init__(node_dim, message_dim, num_directions)
        directions = range(num_directions)
        self.receiver = nn.ModuleList(nn.Linear(node_dim, message_dim, bias=False) for _ in directions)
        self.neighbour = nn.ModuleList(nn.Linear(node_dim, message_dim) for _ in directions)
        self.score = nn.ModuleList(nn.Linear(message_dim, 1, bias=False) for _ in directions)

    def forward(self, h_v: Tensor, h_u: Tensor, direction: int, target: Tensor) -> Tensor:
        value = self.neighbour[direction](h_u)
        score = self.score[direction](F.leaky_relu(self.receiver[direction](h_v) + value, SLOPE))
        return softmax(score, target) * value


MESSAGES: dict[str, type[Message]] = {
    "concat_linear": ConcatLinear,
    "neighbour_linear": NeighbourLinear,
    "neighbour_state": NeighbourState,
    "concat_mlp": ConcatMLP,
    "gatv2": GATv2,
}
