"""The graph encoder: rounds of message passing, then one embedding for the cell (paper section 4, supplement A.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsgae.cells import OPERATIONS, Cells
from vsgae.modules import AGGREGATIONS, MESSAGES, READOUTS, UPDATES
from vsgae.modules.aggregations import LinearAggregation
from vsgae.modules.messages import LinearMessage
from vsgae.refinement import DIRECTIONS, Round, refine

ROWS_AT_ONCE = 2048  # states updated at once where no gradient is wanted: about what a second-level cache holds


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The encoder's choices; the defaults are the paper's.

    Args:
        node_dim: d_n, the dimension of a node's state.
        graph_dim: d_g, the dimension of a cell's embedding.
        rounds: T, the number of rounds.
        direction: ``bidirectional`` (equation 5) or ``forward`` (equation 3: messages along the edges only).
        message, update, aggregation, readout: names in the registries of :mod:`vsgae.modules`.
        share_weights: one set of weights for all rounds instead of one each.
    """

    node_dim: int = 250
    graph_dim: int = 56
    rounds: int = 2
    direction: Literal["bidirectional", "forward"] = "bidirectional"
    message: str = "concat_linear"
    update: str = "gru"
    aggregation: str = "sum"
    readout: str = "gated_sum"
    share_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("node_dim", "graph_dim", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        choices = {
            "direction": ("bidirectional", "forward"),
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
        self.directions = DIRECTIONS if config.direction == "bidirectional" else DIRECTIONS[:1]
        self.embedding = nn.Embedding(len(OPERATIONS), config.node_dim)
        num_weights = 1 if config.share_weights else config.rounds
        self.rounds = nn.ModuleList(PropagationRound(config, len(self.directions)) for _ in range(num_weights))
        self.readout = READOUTS[config.readout](config.node_dim, config.graph_dim)

    def forward(self, cells: Cells) -> Tensor:
        """float32 ``[N, d_g]``."""
        return self.readout(*self.propagate(cells))

    def propagate(self, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
        """The node states after the last round: the distinct ones ``[U, d_n]``, every node's row among them (int64,
        cell after cell), and where each cell begins (int64 ``[N + 1]``)."""
        refinement = refine(cells, self.config.rounds, self.directions)
        h = self.embedding.weight
        for i, round_ in enumerate(refinement.rounds):
            h = self.rounds[i % len(self.rounds)](h, round_)
        return h, refinement.nodes, refinement.offsets


class PropagationRound(nn.Module):
    """One round of message passing, equations (2) to (5).

    ``h_v' = U(h_v, sum over directions of Xi_u M(h_v, h_u))``, with a message module for each direction.

    Where messages are linear and the aggregation is a weighted sum, no edge is ever formed. The message W, the
    aggregation A (a sparse matrix) and the update's map W_ih of the message are three linear maps in a row, and the
    round multiplies them in whichever order needs the fewest operations for the states at hand:

    ========================  =======================================================================
    ``W_ih (A (h W^T))``      few states to update for each that sends: a training batch
    ``A (W_ih (h W^T))``      few states that send: the first round, where they are the five operations
    ``A (h (W_ih W)^T)``      many states of either kind: large batches, the whole space
    ========================  =======================================================================
    """

    def __init__(self, config: EncoderConfig, num_directions: int) -> None:
        super().__init__()
        message_dim = 2 * config.node_dim
        message = MESSAGES[config.message]
        self.messages = nn.ModuleList(message(config.node_dim, message_dim) for _ in range(num_directions))
        self.aggregation = AGGREGATIONS[config.aggregation]()
        self.update = UPDATES[config.update](message_dim, config.node_dim)

    def forward(self, h: Tensor, round_: Round) -> Tensor:
        """States before the round ``[U', d_n]`` -> states after it ``[U, d_n]``."""
        state_term = F.linear(h, self.update.weight_hh, self.update.bias_hh)
        linear = [message for message in self.messages if isinstance(message, LinearMessage)]
        if linear and isinstance(self.aggregation, LinearAggregation):
            message_term = self._linear_message_term(linear, self.aggregation, h, round_)
        else:
            message_term = self._message_term_by_edge(h, round_)
        num_states = len(round_.own)
        size = num_states if torch.is_grad_enabled() else ROWS_AT_ONCE
        parts = []
        for start in range(0, num_states, size):
            rows = slice(start, min(start + size, num_states))
            own = round_.own[rows]
            parts.append(self.update.combine(message_term(rows), F.embedding(own, state_term), F.embedding(own, h)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _message_term_by_edge(self, h: Tensor, round_: Round) -> Callable[[slice], Tensor]:
        """A function from rows of the new states to their ``W_ih m + b_ih``, from one message an edge."""

        def message_term(rows: slice) -> Tensor:
            own, total = round_.own[rows], torch.zeros((), device=h.device)
            for message, neighbours in zip(self.messages, round_.neighbours[:, rows], strict=True):
                target, place = (neighbours >= 0).nonzero(as_tuple=True)
                h_v, h_u = F.embedding(own[target], h), F.embedding(neighbours[target, place], h)
                total = total + self.aggregation(message(h_v, h_u), target, len(own))
            return F.linear(total, self.update.weight_ih, self.update.bias_ih)

        return message_term

    def _linear_message_term(
        self, messages: list[LinearMessage], aggregation: LinearAggregation, h: Tensor, round_: Round
    ) -> Callable[[slice], Tensor]:
        """A function from rows of the new states to their ``W_ih m + b_ih``, without forming an edge.

        Every old state sends S vectors: for each direction one to itself (if the message depends on its receiver) and
        one to its neighbours. W has a block of ``message_dim x d_n`` for each of them.
        """
        w_ih, b_ih = self.update.weight_ih, self.update.bias_ih
        own = messages[0].own
        w = torch.cat([message.weight for message in messages])  # [S, m, d]
        biases = [
            [torch.zeros_like(message.bias)] * own + [message.bias] for message in messages
        ]  # an edge adds it once
        bias = torch.stack([block for blocks in biases for block in blocks])  # [S, m]
        (s, m, d), k, num_old, num_new = w.shape, len(w_ih), len(h), len(round_.own)
        operations = {
            "update last": num_old * d * s * m + num_new * m * k,
            "aggregation last": num_old * d * s * m + num_old * s * m * k,
            "folded": s * k * m * d + num_old * d * s * k,
        }
        order = min(operations, key=operations.__getitem__)
        if order == "folded":
            w, bias = w_ih @ w, bias @ w_ih.T
        sent = F.linear(h, w.flatten(0, 1), bias.flatten()).view(num_old * s, -1)
        if order == "aggregation last":
            sent = F.linear(sent, w_ih)
        bag = _Bag.of(round_, aggregation, own, h.dtype)
        if order == "update last":
            return lambda rows: F.linear(bag.sum(sent, rows), w_ih, b_ih)
        return lambda rows: bag.sum(sent, rows) + b_ih


@dataclass(frozen=True, eq=False)
class _Bag:
    """The matrix A of a round, ``[U, U' S]``, sparse: which sent vectors a new state adds up, and how weighted."""

    indices: Tensor
    weights: Tensor
    offsets: Tensor

    @staticmethod
    def of(round_: Round, aggregation: LinearAggregation, own: bool, dtype: torch.dtype) -> _Bag:
        degree = round_.degree.to(dtype)
        weight = aggregation.weight(degree)
        blocks, weights = [], []
        for d, neighbours in enumerate(round_.neighbours):
            if own:
                blocks.append(torch.where(degree[d] > 0, round_.own, -1)[:, None])
                weights.append((weight[d] * degree[d])[:, None])
            blocks.append(neighbours)
            weights.append(weight[d][:, None].expand_as(neighbours))
        s = len(blocks)
        indices = torch.cat([block * s + i for i, block in enumerate(blocks)], dim=1)
        present = torch.cat(blocks, dim=1) >= 0
        offsets = F.pad(present.sum(1).cumsum(0), (1, 0))
        return _Bag(indices[present], torch.cat(weights, dim=1)[present], offsets)

    def sum(self, sent: Tensor, rows: slice) -> Tensor:
        """``[U' S, D]`` -> ``[len(rows), D]``."""
        indices, weights, offsets = self.indices, self.weights, self.offsets
        if rows != slice(0, len(offsets) - 1):
            offsets = offsets[rows.start : rows.stop + 1]
            inside = slice(int(offsets[0]), int(offsets[-1]))
            indices, weights, offsets = indices[inside], weights[inside], offsets - offsets[0]
        return F.embedding_bag(indices, sent, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)
