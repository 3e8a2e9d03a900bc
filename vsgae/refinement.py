"""Which nodes of a batch share a state, so that each distinct state is computed once.

Message passing is a function of a node's own state and its neighbours' states. Two nodes with the same operation and
the same operations around them therefore have the same state after one round, whatever their cells, and so on from
round to round (colour refinement). NAS-Bench-101 has 2.9 million nodes but 1,863 distinct states after the first round;
a batch of 128 cells has about 870 nodes and 310 of them. :func:`refine` finds them; the encoder works on distinct
states only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vsgae.cells import MAX_NODES, Cells

DIRECTIONS = ("predecessors", "successors")


@dataclass(frozen=True, eq=False)
class Round:
    """The distinct states after one round, by the states of the round before that they are made from.

    Args:
        own: int64 ``[U]``, the row of the node's own state before the round.
        neighbours: int64 ``[D, U, 7]``, for each direction the rows of the neighbours' states before the round, -1
            where there is no neighbour.
    """

    own: Tensor
    neighbours: Tensor

    @property
    def degree(self) -> Tensor:
        """int64 ``[D, U]``: the number of neighbours in each direction."""
        return (self.neighbours >= 0).sum(2)


@dataclass(frozen=True, eq=False)
class Refinement:
    """The rounds of a batch, from the operations to the final states.

    Args:
        rounds: one :class:`Round` a round; the states before the first are the five operations.
        nodes: int64 ``[sum of num_nodes]``, each node's row among the final states, cell after cell.
        offsets: int64 ``[N + 1]``, where each cell begins in ``nodes``.
    """

    rounds: list[Round]
    nodes: Tensor
    offsets: Tensor


def refine(cells: Cells, num_rounds: int, directions: tuple[str, ...] = DIRECTIONS) -> Refinement:
    """The distinct states of ``cells`` in ``num_rounds`` rounds of message passing along ``directions``.

    States are told apart by a 64-bit hash of the multisets that they depend on: among a million distinct states, two
    collide with a probability below 1e-7.
    """
    mask = cells.node_mask
    towards = {"predecessors": cells.adjacency.transpose(1, 2), "successors": cells.adjacency}
    adjacency = torch.stack([towards[direction] for direction in directions])  # [D, N, 7, 7]: [.., v, u], u adjoins v
    state = cells.operations.clamp(min=0)  # [N, 7]: each node's row among the distinct states
    colour = _scramble(state)
    rounds = []
    for _ in range(num_rounds):
        combined = colour
        for d in range(len(directions)):
            around = torch.where(adjacency[d], _scramble(colour + d + 1)[:, None, :], 0).sum(2)
            combined = _scramble(combined * 3 + around)
        colour = combined
        distinct, rows = torch.unique(colour[mask], return_inverse=True)
        places = mask.flatten().nonzero().squeeze(1)
        first = places.new_full((len(distinct),), MAX_NODES * len(cells)).scatter_reduce(0, rows, places, "amin")
        cell, node = first // MAX_NODES, first % MAX_NODES
        neighbours = torch.where(adjacency[:, cell, node], state[cell], -1)
        rounds.append(Round(state[cell, node], neighbours))
        state = torch.zeros_like(state).masked_scatter(mask, rows)
    offsets = torch.cat([cells.num_nodes.new_zeros(1), cells.num_nodes.cumsum(0)])
    return Refinement(rounds, state[mask], offsets)


def _scramble(x: Tensor) -> Tensor:
    """A bijection of int64 that leaves no structure behind: multiplications wrap around, shifts fold high bits down."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
