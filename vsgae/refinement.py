"""Which nodes of some cells share a state, so that each distinct state is computed once.

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

from vsgae.cells import MAX_NODES, OPERATIONS, Cells

DIRECTIONS = ("predecessors", "successors")


@dataclass(frozen=True, eq=False)
class Round:
    """The distinct states after one round, by the states of the round before that they are made from.

    Args:
        senders: int64 ``[U, 8]``, rows of states before the round: the own one, ascending from state to state, then
            those of the nodes of a cell.
        counts: float32 ``[U, directions, 8]``, how many messages of each the node receives in each direction: as many
            of the own state as there are neighbours, 1 of a neighbour, 0 of another node.
    """

    senders: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.senders)

    @property
    def own(self) -> Tensor:
        """int64 ``[U]``: the row of the node's own state before the round."""
        return self.senders[:, 0]


@dataclass(frozen=True, eq=False)
class Refinement:
    """The rounds of some cells, from the operations to the final states.

    Args:
        rounds: one :class:`Round` a round; the states before the first are the five operations.
        rows: int64 ``[N, 7]``, each node's row among the final states; -1 for padding.
        directions: those of :data:`DIRECTIONS` from which messages come.
    """

    rounds: list[Round]
    rows: Tensor
    directions: tuple[str, ...]

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
        states, local = torch.unique(rows[mask], return_inverse=True)
        rows = rows.masked_scatter(mask, local)
        rounds: list[Round] = []
        for i in reversed(range(len(self.rounds))):
            senders, counts = self.rounds[i].senders[states], self.rounds[i].counts[states]
            if i > 0:  # the operations stay the five that they are
                states = torch.unique_consecutive(senders[:, 0])
                place = states.new_zeros(len(self.rounds[i - 1]))
                place[states] = torch.arange(len(states), device=states.device)
                senders = place[senders]
            rounds.insert(0, Round(senders, counts))
        return Refinement(rounds, rows, self.directions)


def refine(cells: Cells, num_rounds: int, directions: tuple[str, ...] = DIRECTIONS) -> Refinement:
    """The distinct states of ``cells`` in ``num_rounds`` rounds of message passing along ``directions``.

    States are told apart by the sum of pseudo-random 64-bit codes of what they are made from: among a million distinct
    states, two have the same sum with a probability below 1e-6.

    Raises:
        ValueError: no round.
    """
    if num_rounds < 1:
        raise ValueError(f"num_rounds is {num_rounds}; it must be at least 1")
    mask = cells.node_mask
    nodes = mask.flatten().nonzero().squeeze(1)
    towards = {"predecessors": cells.adjacency.transpose(1, 2), "successors": cells.adjacency}
    adjacency = torch.stack([towards[direction] for direction in directions])  # [D, N, 7, 7]: [.., v, u], u adjoins v
    state, num_states = cells.operations.clamp(min=0), len(OPERATIONS)  # [N, 7]: each node's row among the states
    rounds = []
    for _ in range(num_rounds):
        generator = torch.Generator().manual_seed(0)
        shape = (1 + len(directions), num_states)
        codes = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator).to(state.device)
        total = codes[0][state]
        for code, adjoins in zip(codes[1:], adjacency, strict=True):
            total = total + torch.where(adjoins, code[state][:, None, :], 0).sum(2)
        distinct, rows = torch.unique(total[mask], return_inverse=True)
        first = nodes.new_full((len(distinct),), mask.numel()).scatter_reduce(0, rows, nodes, "amin")
        order = state.flatten()[first].argsort(stable=True)
        first, rows = first[order], order.argsort()[rows]
        cell, node = first // MAX_NODES, first % MAX_NODES
        own, around = state[cell, node], state[cell]
        adjacent = adjacency[:, cell, node].transpose(0, 1).float()
        counts = torch.cat([adjacent.sum(2, keepdim=True), adjacent], dim=2)
        rounds.append(Round(torch.cat([own[:, None], around], dim=1), counts))
        state, num_states = torch.zeros_like(state).masked_scatter(mask, rows), len(distinct)
    return Refinement(rounds, state.masked_fill(~mask, -1), directions)
