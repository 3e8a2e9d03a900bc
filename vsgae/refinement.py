"""Which nodes of a batch share a state, so that each distinct state is computed once.

Message passing is a function of a node's own state and its neighbours' states. Two nodes with the same operation and
the same operations around them therefore have the same state after one round, whatever their cells, and so on from
round to round (colour refinement). NAS-Bench-101 has 2.9 million nodes but 1,863 distinct states after the first round;
a batch of 128 cells has about 870 nodes and 310 of them. :func:`refine` finds them, once for all cells of a data set:
a batch is then a selection, ``refinement[indices]``. The encoder works on distinct states only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vsgae.cells import OPERATIONS, Cells

DIRECTIONS = ("predecessors", "successors")


@dataclass(frozen=True, eq=False)
class Round:
    """The distinct states after one round, by the states of the round before that they are made from.

    Args:
        own: int64 ``[U]``, ascending: the row of the node's own state before the round.
        senders: int64 ``[U, 8]``, rows of states before the round: the own one, then those of the nodes of a cell.
        counts: float32 ``[U, D, 8]``, how many messages of each the node receives in each direction: as many of the own
            state as there are neighbours, 1 of a neighbour, 0 of another node.
    """

    own: Tensor
    senders: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class Refinement:
    """The rounds of some cells, from the operations to the final states.

    Args:
        rounds: one :class:`Round` a round; the states before the first are the five operations.
        rows: int64 ``[N, 7]``, each node's row among the final states; -1 for padding.
    """

    rounds: list[Round]
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nodes(self) -> Tensor:
        """int64 ``[sum of num_nodes]``: the rows of all nodes, cell after cell."""
        return self.rows[self.rows >= 0]

    @property
    def offsets(self) -> Tensor:
        """int64 ``[N + 1]``: where each cell begins in ``nodes``."""
        return F.pad((self.rows >= 0).sum(1).cumsum(0), (1, 0))

    def __getitem__(self, cells: Tensor) -> Refinement:
        """The refinement of the cells of these indices, int64 ``[M]``, with the states that occur in them only."""
        rows = self.rows[cells]
        mask = rows >= 0
        if not self.rounds:
            return Refinement([], rows)
        states, local = torch.unique(rows[mask], return_inverse=True)
        rows = rows.masked_scatter(mask, local)
        rounds: list[Round] = []
        for i in reversed(range(len(self.rounds))):
            round_ = self.rounds[i]
            own, senders, counts = round_.own[states], round_.senders[states], round_.counts[states]
            if i > 0:  # the operations stay the five that they are
                states, own = torch.unique_consecutive(own, return_inverse=True)
                place = states.new_zeros(len(self.rounds[i - 1].own))
                place[states] = torch.arange(len(states), device=states.device)
                senders = place[senders]
            rounds.insert(0, Round(own, senders, counts))
        return Refinement(rounds, rows)


def refine(cells: Cells, num_rounds: int, directions: tuple[str, ...] = DIRECTIONS) -> Refinement:
    """The distinct states of ``cells`` in ``num_rounds`` rounds of message passing along ``directions``.

    States are told apart by the sum of pseudo-random 64-bit codes of what they are made from: among a million distinct
    states, two have the same sum with a probability below 1e-6.
    """
    mask = cells.node_mask
    nodes = mask.flatten().nonzero().squeeze(1)
    towards = {"predecessors": cells.adjacency.transpose(1, 2), "successors": cells.adjacency}
    adjacency = torch.stack([towards[direction] for direction in directions])  # [D, N, 7, 7]: [.., v, u], u adjoins v
    state, num_states = cells.operations.clamp(min=0), len(OPERATIONS)  # [N, 7]: each node's row among the states
    rounds = []
    for _ in range(num_rounds):
        own_code, *codes = _codes((1 + len(directions)) * num_states, state.device).view(-1, num_states)
        total = own_code[state]
        for code, adjoins in zip(codes, adjacency, strict=True):
            total = total + torch.where(adjoins, code[state][:, None, :], 0).sum(2)
        distinct, rows = torch.unique(total[mask], return_inverse=True)
        first = nodes.new_full((len(distinct),), mask.numel()).scatter_reduce(0, rows, nodes, "amin")
        order = state.flatten()[first].argsort(stable=True)
        first, rows = first[order], order.argsort()[rows]
        own, around = state.flatten()[first], state[first // mask.shape[1]]
        adjacent = adjacency.flatten(1, 2)[:, first].transpose(0, 1).float()
        counts = torch.cat([adjacent.sum(2, keepdim=True), adjacent], dim=2)
        rounds.append(Round(own, torch.cat([own[:, None], around], dim=1), counts))
        state, num_states = torch.zeros_like(state).masked_scatter(mask, rows), len(distinct)
    return Refinement(rounds, state.masked_fill(~mask, -1))


def _codes(num: int, device: torch.device) -> Tensor:
    """``num`` pseudo-random int64: the finaliser of SplitMix64 applied to its counter."""
    x = torch.arange(1, num + 1, device=device) * -0x61C8864680B583EB
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
