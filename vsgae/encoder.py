"""The graph encoder: rounds of message passing, then one embedding for the cell (paper section 4, supplement A.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsgae.cells import MAX_NODES, OPERATIONS, Cells
from vsgae.modules import AGGREGATIONS, MESSAGES, READOUTS, UPDATES
from vsgae.modules.aggregations import LinearAggregation
from vsgae.modules.messages import LinearMessage
from vsgae.refinement import DIRECTIONS, Refinement, Round, refine

ROWS_AT_ONCE = 2048  # states updated at once where no gradient is wanted: about what a second-level cache holds
SENT_IF_DENSE = 64  # vectors sent in a round up to which they are summed by a dense matrix


_DIRECTIONS = {"bidirectional": DIRECTIONS, "forward": DIRECTIONS[:1], "backward": DIRECTIONS[1:]}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The encoder's choices; the defaults are the paper's.

    Args:
        node_dim: d_n, the dimension of a node's state.
        graph_dim: d_g, the dimension of a cell's embedding.
        rounds: T, the number of rounds.
        direction: of messages: ``bidirectional`` (equation 5), ``forward`` (equation 3: along the edges only) or
            ``backward`` (against them only).
        message, update, aggregation, readout: names in the registries of :mod:`vsgae.modules`.
        share_weights: one set of weights for all rounds instead of one each.
    """

    node_dim: int = 250
    graph_dim: int = 56
    rounds: int = 2
    direction: Literal["bidirectional", "forward", "backward"] = "bidirectional"
    message: str = "concat_linear"
    update: str = "gru"
    aggregation: str = "sum"
    readout: str = "gated_sum"
    share_weights: bool = False

    @property
    def directions(self) -> tuple[str, ...]:
        """Those of :data:`~vsgae.refinement.DIRECTIONS` along which messages come."""
        return _DIRECTIONS[self.direction]

    def __post_init__(self) -> None:
        for name in ("node_dim", "graph_dim", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        choices: dict[str, Collection[str]] = {
            "direction": _DIRECTIONS,
            "message": MESSAGES,
            "update": UPDATES,
            "aggregation": AGGREGATIONS,
            "readout": READOUTS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")


class Encoder(nn.Module):
    """Cells to embeddings; invariant under a relabelling of a cell's nodes.

    Node states start as a learned embedding of the operation, drawn from N(0, 1).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.directions = config.directions
        self.embedding = nn.Embedding(len(OPERATIONS), config.node_dim)
        self.rounds = Propagation(config)
        self.readout = READOUTS[config.readout](config.node_dim, config.graph_dim)

    def refine(self, cells: Cells) -> Refinement:
        """The distinct states of ``cells`` in this encoder: found once where the same cells are encoded often."""
        return refine(cells, self.config.rounds, self.directions)

    def forward(self, cells: Cells | Refinement) -> Tensor:
        """float32 ``[N, d_g]``, of cells or of a selection from what :meth:`refine` gave.

        Raises:
            ValueError: the refinement of an encoder with other rounds or directions.
        """
        refinement = self.refine(cells) if isinstance(cells, Cells) else cells
        return self.readout(self.propagate(refinement), refinement.nodes, refinement.offsets)

    def propagate(self, refinement: Refinement) -> Tensor:
        """The distinct final states, float32 ``[U, d_n]``.

        Raises:
            ValueError: as :meth:`forward`.
        """
        if (len(refinement.rounds), refinement.directions) != (self.config.rounds, self.directions):
            raise ValueError(
                f"a refinement of {len(refinement.rounds)} rounds with messages from {_and(refinement.directions)}; "
                f"this encoder has {self.config.rounds} with messages from {_and(self.directions)}"
            )
        return self.rounds(self.embedding.weight, refinement.rounds)


@dataclass(frozen=True, eq=False)
class Folded:
    """``W_ih W`` of a round: ``weight`` ``[directions, states * d_n, k]`` and ``bias`` ``[directions, k]``."""

    weight: Tensor
    bias: Tensor


class PropagationRound(nn.Module):
    """One round of message passing, equations (2) to (5).

    ``h_v' = U(h_v, sum over directions of Xi_u M(h_v, h_u))``, with a message module for each direction.

    Where messages are linear and the aggregation is a weighted sum, no edge is ever formed. The message W, the
    aggregation A (a sparse matrix) and the update's map W_ih of the message are three linear maps in a row, and the
    round multiplies them in whichever order needs the fewest operations for the states at hand:

    ================  ====================  =====================================================================
    update last       ``W_ih (A (h W))``    few states to update for each that sends: a training batch
    aggregation last  ``A (W_ih (h W))``    few states that send: the first round, where they are five operations
    folded            ``A (h (W_ih W))``    many states of either kind: large batches, the whole space
    ================  ====================  =====================================================================

    Where no two nodes share a state, as in the decoder, and :meth:`fold` has multiplied the weights once for all rounds
    with them, it is ``(A h) (W_ih W)``: a node to which no message comes in a direction then costs nothing there.
    """

    def __init__(self, config: EncoderConfig, num_directions: int) -> None:
        super().__init__()
        message_dim = 2 * config.node_dim
        self.message = MESSAGES[config.message](config.node_dim, message_dim, num_directions)
        self.aggregation = AGGREGATIONS[config.aggregation](message_dim)
        self.update = UPDATES[config.update](message_dim, config.node_dim)

    def fold(self) -> Folded | None:
        """The weights ``W_ih W``, where messages are linear and the aggregation is a weighted sum."""
        if not (isinstance(self.message, LinearMessage) and isinstance(self.aggregation, LinearAggregation)):
            return None
        weight = F.linear(self.message.weight, self.update.weight_ih)  # [d, directions, states, k]
        bias = F.linear(self.message.bias, self.update.weight_ih)
        return Folded(weight.permute(1, 2, 0, 3).flatten(1, 2).contiguous(), bias)

    def forward(self, h: Tensor, round_: Round, folded: Folded | None = None) -> Tensor:
        """States before the round ``[U', d_n]`` -> states after it ``[U, d_n]``, or of the width that the update gives.

        Args:
            folded: what :meth:`fold` gave, where it serves several rounds with the same weights. Then U' is U, and each
                state's row before the round is its row after it.
        """
        seen = self.update.seen(h)
        if isinstance(self.message, LinearMessage) and isinstance(self.aggregation, LinearAggregation):
            if folded is None:
                message_term = self._linear_message_term(self.message, self.aggregation, seen, round_)
            else:
                message_term = _folded_message_term(self.message, self.aggregation, seen, round_, folded)
        else:
            message_term = self._message_term_by_edge(seen, round_)
        state_term = self.update.state_term(seen)
        num_states, own = len(round_), round_.own
        size = max(num_states, 1) if torch.is_grad_enabled() else ROWS_AT_ONCE
        parts = []
        for start in range(0, max(num_states, 1), size):
            rows = slice(start, min(start + size, num_states))
            if folded is None:
                parts.append(self.update.combine(message_term(rows), state_term, h, own[rows]))
            else:
                parts.append(self.update.combine(message_term(rows), state_term[rows], h[rows], None))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _message_term_by_edge(self, h: Tensor, round_: Round) -> Callable[[slice], Tensor]:
        """A function from rows of the new states to their ``W_ih m``, from one message an edge."""

        def message_term(rows: slice) -> Tensor:
            own, neighbours, total = round_.own[rows], round_.senders[rows, 1:], torch.zeros((), device=h.device)
            for direction, counts in enumerate(round_.counts[rows, :, 1:].unbind(1)):
                target, place = counts.nonzero(as_tuple=True)
                h_v, h_u = F.embedding(own[target], h), F.embedding(neighbours[target, place], h)
                total = total + self.aggregation(self.message(h_v, h_u, direction, target), target, len(own))
            return F.linear(total, self.update.weight_ih)

        return message_term

    def _linear_message_term(
        self, message: LinearMessage, aggregation: LinearAggregation, h: Tensor, round_: Round
    ) -> Callable[[slice], Tensor]:
        """A function from rows of the new states to their ``W_ih m``, without forming an edge.

        Every old state sends S vectors: for each direction one to itself (if the message depends on its receiver) and
        one to its neighbours. W has a block of ``d_n x message_dim`` for each of them.
        """
        w, w_ih = message.weight.flatten(1, 2), self.update.weight_ih  # [d, S, m], [k, m]
        bias = F.pad(message.bias[:, None], (0, 0, int(message.sees_receiver), 0))  # once an edge: with the neighbour
        bias = bias.flatten(0, 1)  # [S, m]
        (d, s, m), k, num_old, num_new = w.shape, len(w_ih), len(h), len(round_)
        order = _cheapest_order(d, s, m, k, num_old, num_new)
        if order == "folded":
            w, bias = F.linear(w, w_ih), F.linear(bias, w_ih)
        sent = torch.addmm(bias.flatten(), h, w.flatten(1)).view(num_old * s, w.shape[2])
        if order == "aggregation last":
            sent = F.linear(sent, w_ih)
        received = _received(sent, round_, aggregation, message.sees_receiver)
        if order == "update last":
            return lambda rows: F.linear(received(rows), w_ih)
        return received


class Propagation(nn.ModuleList):
    """The rounds of an encoder or a decoder, one after the other: with the same weights, or each with its own."""

    def __init__(self, config: EncoderConfig) -> None:
        num_weights = 1 if config.share_weights else config.rounds
        super().__init__(PropagationRound(config, len(config.directions)) for _ in range(num_weights))

    def fold(self) -> list[Folded | None]:
        """:meth:`PropagationRound.fold` of each."""
        return [cast(PropagationRound, round_).fold() for round_ in self]

    def forward(self, h: Tensor, rounds: Sequence[Round], folded: Sequence[Folded | None] | None = None) -> Tensor:
        """States before the first of ``rounds`` ``[U', d_n]`` -> after the last ``[U, d_n]``.

        Args:
            folded: what :meth:`fold` gave, see :meth:`PropagationRound.forward`.
        """
        for i, round_ in enumerate(rounds):
            number = i % len(self)
            h = self[number](h, round_, None if folded is None else folded[number])
        return cast(PropagationRound, self[-1]).update.seen(h)


def _and(directions: tuple[str, ...]) -> str:
    return " and ".join(directions)


def _folded_message_term(
    message: LinearMessage, aggregation: LinearAggregation, h: Tensor, round_: Round, folded: Folded
) -> Callable[[slice], Tensor]:
    """A function from rows of the new states to their ``W_ih m``; the states are summed before they are multiplied."""
    counts = round_.counts.to(h.dtype)
    weights = counts * aggregation.weight(counts[:, :, :1])  # [U, directions, 8]
    total = h.new_zeros(len(round_), folded.bias.shape[1])
    for direction, (weight, bias) in enumerate(zip(folded.weight, folded.bias, strict=True)):
        receivers = weights[:, direction, 0].nonzero().squeeze(1)
        if not len(receivers):
            continue
        of_own, of_neighbours = weights[receivers, direction].split([1, MAX_NODES], 1)
        present = of_neighbours != 0
        sums = F.embedding_bag(
            round_.senders[receivers, 1:][present],
            h,
            F.pad(present.sum(1).cumsum(0), (1, 0)),
            mode="sum",
            per_sample_weights=of_neighbours[present],
            include_last_offset=True,
        )
        if message.sees_receiver:
            sums = torch.cat([of_own * F.embedding(round_.own[receivers], h), sums], 1)
        total = total.index_add(0, receivers, torch.addmm(of_own * bias, sums, weight).to(total.dtype))
    return lambda rows: total[rows]


def _cheapest_order(d: int, s: int, m: int, k: int, num_old: int, num_new: int) -> str:
    """The order of the products (see :class:`PropagationRound`) with the fewest multiplications."""
    multiplications = {
        "update last": num_old * d * s * m + num_new * m * k,
        "aggregation last": num_old * d * s * m + num_old * s * m * k,
        "folded": s * k * m * d + num_old * d * s * k,
    }
    return min(multiplications, key=multiplications.__getitem__)


def _received(
    sent: Tensor, round_: Round, aggregation: LinearAggregation, sees_receiver: bool
) -> Callable[[slice], Tensor]:
    """A function from rows of the new states to these rows of ``A sent``; A is ``[U, U' S]``, sent ``[U' S, width]``.

    A is dense where few vectors are sent, as in the first round, and sparse otherwise.
    """
    counts = round_.counts.to(sent.dtype)
    weights = counts * aggregation.weight(counts[:, :, :1])  # [U, directions, 8]; where it is 0, nothing is sent
    senders = round_.senders[:, None]  # [U, 1, 8]
    if not sees_receiver:
        weights, senders = weights[:, :, 1:], senders[:, :, 1:]
    num_directions, s = weights.shape[1], weights.shape[1] * (1 + sees_receiver)
    block = torch.arange(s, device=sent.device).view(num_directions, -1)[:, [0] * sees_receiver + [-1] * MAX_NODES]
    weights, indices = weights.flatten(1), (senders * s + block).flatten(1)
    if len(sent) <= SENT_IF_DENSE:
        a = sent.new_zeros(len(weights), len(sent)).scatter_add_(1, indices, weights)
        return lambda rows: a[rows] @ sent
    present = weights.flatten().nonzero().squeeze(1)
    indices, offsets = indices.flatten()[present], F.pad((weights != 0).sum(1).cumsum(0), (1, 0))
    weights = weights.flatten()[present]

    def received(rows: slice) -> Tensor:
        bounds = offsets[rows.start : rows.stop + 1]
        inside = slice(int(bounds[0]), int(bounds[-1]))
        return F.embedding_bag(
            indices[inside],
            sent,
            bounds - bounds[0],
            mode="sum",
            per_sample_weights=weights[inside],
            include_last_offset=True,
        )

    return received
