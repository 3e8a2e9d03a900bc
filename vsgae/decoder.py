"""The sequential decoder: from a point of the latent space to a cell, node by node (paper section 5.1, supplement A.2).

A step takes the partial cell of t nodes, t = 1, 2, ...: :class:`GraphProp` propagates the states of its nodes and sums
them up, :class:`AddNode` draws the operation of node t, :class:`InitNode` gives it a state, :class:`AddEdges` draws
which of the earlier nodes lead to it. The cell ends with an output node, or when it is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vsgae.cells import INPUT, MAX_NODES, OPERATIONS, OUTPUT, PADDING, Cells
from vsgae.encoder import EncoderConfig, Folded, Propagation
from vsgae.modules import READOUTS
from vsgae.modules.readouts import Readout
from vsgae.refinement import Round

POINTS_AT_ONCE = 1024  # decoded together: about what the caches hold


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Where the paper's published code departs from its text; the defaults are the text.

    Args:
        edge_loss: ``sum`` over the candidate edges of a step, or their ``mean`` (published code).
        first_edge: the edge from the input to node 1 is ``predicted``, or ``given``: always there, without a loss
            (published code).
        init_node_readout: InitNode sees the ``shared`` summary of the partial cell, or one with its ``own`` weights
            (published code).
        single_node: the first step's cell of one node is ``propagated`` and read out like any other, or ``passed``
            through, its state unchanged and the readout's gate left out (published code).
    """

    edge_loss: Literal["sum", "mean"] = "sum"
    first_edge: Literal["predicted", "given"] = "predicted"
    init_node_readout: Literal["shared", "own"] = "shared"
    single_node: Literal["propagated", "passed"] = "propagated"

    def __post_init__(self) -> None:
        choices = {
            "edge_loss": ("sum", "mean"),
            "first_edge": ("predicted", "given"),
            "init_node_readout": ("shared", "own"),
            "single_node": ("propagated", "passed"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")


class GraphProp(nn.Module):
    """The states and the summary of a partial cell, equation (8): the encoder's rounds and readout with own weights."""

    def __init__(self, config: EncoderConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        self.passes_single_node = decoder.single_node == "passed"
        self.directions, self.num_rounds = config.directions, config.rounds
        self.rounds = Propagation(config)
        readout = READOUTS[config.readout]
        self.readout = readout(config.node_dim, config.graph_dim)
        self.init_node_readout = None
        if decoder.init_node_readout == "own":
            self.init_node_readout = readout(config.node_dim, config.graph_dim)

    def forward(self, h: Tensor, adjacency: Tensor, folded: list[Folded | None]) -> tuple[Tensor, Tensor, Tensor]:
        """States ``[N, t, d_n]`` and edges bool ``[N, t, t]`` -> states ``[N, t, d_n]``, summaries ``[N, d_g]`` for
        AddNode and AddEdges, and for InitNode.

        Args:
            folded: the rounds' weights, multiplied once for all steps of a batch by ``rounds.fold()``.
        """
        n, t, d = h.shape
        passes = t == 1 and self.passes_single_node
        states = h.reshape(n * t, d)
        if not passes:
            states = self.rounds(states, [_as_round(adjacency, self.directions)] * self.num_rounds, folded)
        summary = self._summary(self.readout, states, t, gated=not passes)
        for_init_node = summary
        if self.init_node_readout is not None:
            for_init_node = self._summary(self.init_node_readout, states, t, gated=not passes)
        return states.view(n, t, d), summary, for_init_node

    @staticmethod
    def _summary(readout: Readout, states: Tensor, t: int, gated: bool) -> Tensor:
        if not gated:
            return readout.linear(states)
        nodes = torch.arange(len(states), device=states.device)
        return readout(states, nodes, torch.arange(0, len(states) + 1, t, device=states.device))


class AddNode(nn.Module):
    """Logits of the new node's operation, equation (9)."""

    def __init__(self, graph_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * graph_dim, graph_dim)
        self.logits = nn.Linear(graph_dim, len(OPERATIONS))

    def forward(self, z: Tensor, summary: Tensor) -> Tensor:
        """``[N, d_g]`` and ``[N, d_g]`` -> ``[N, 5]``."""
        return self.logits(F.relu(self.hidden(torch.cat([z, summary], 1))))


class InitNode(nn.Module):
    """The new node's state, equation (10); without a summary f_startNode, that of the input node."""

    def __init__(self, node_dim: int, graph_dim: int, num_summaries: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear((1 + num_summaries) * graph_dim + node_dim, graph_dim + node_dim)
        self.state = nn.Linear(graph_dim + node_dim, node_dim)

    def forward(self, *inputs: Tensor) -> Tensor:
        """z ``[N, d_g]``, the summary ``[N, d_g]`` if there is one, L[operation] ``[N, d_n]`` -> ``[N, d_n]``."""
        return self.state(F.relu(self.hidden(torch.cat(inputs, 1))))


class AddEdges(nn.Module):
    """Logits of the edges from the earlier nodes to the new one, equations (12) and (13)."""

    def __init__(self, node_dim: int, graph_dim: int) -> None:
        super().__init__()
        self.sizes = (2 * node_dim + 2 * graph_dim - node_dim, node_dim)
        self.hidden = nn.Linear(2 * node_dim + 2 * graph_dim, node_dim + graph_dim)
        self.score = nn.Linear(node_dim + graph_dim, 1)

    def forward(self, new: Tensor, earlier: Tensor, z: Tensor, summary: Tensor) -> Tensor:
        """``[N, d_n]``, ``[N, t, d_n]``, ``[N, d_g]``, ``[N, d_g]`` -> ``[N, t]``.

        The first layer is applied to what a cell's edges share once a cell, not once an edge.
        """
        of_cell, of_node = self.hidden.weight.split(self.sizes, 1)
        shared = F.linear(torch.cat([new, z, summary], 1), of_cell, self.hidden.bias)
        return self.score(F.relu(shared[:, None] + F.linear(earlier, of_node))).squeeze(2)


@dataclass(frozen=True, eq=False)
class Decoded:
    """N cells, and the logarithm of the probability with which each was drawn, float32 ``[N]``."""

    cells: Cells
    log_likelihood: Tensor


class Decoder(nn.Module):
    """Latent points to cells.

    The embedding of the operations is drawn from N(0, 1), as the encoder's, and is its own.
    """

    def __init__(self, config: EncoderConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        d, g = config.node_dim, config.graph_dim
        self.config = decoder
        self.embedding = nn.Embedding(len(OPERATIONS), d)
        self.start_node = InitNode(d, g, num_summaries=0)
        self.graph_prop = GraphProp(config, decoder)
        self.add_node = AddNode(g)
        self.init_node = InitNode(d, g)
        self.add_edges = AddEdges(d, g)

    def losses(self, z: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
        """The node loss L_V and the edge loss L_E of each cell under teacher forcing, float32 ``[N]`` in nats.

        With ``edge_loss = sum``, ``-(L_V + L_E)`` is the log-likelihood of the cell, as :meth:`decode` draws it.

        Args:
            z: ``[N, d_g]``.
            cells: whose edges lead to later nodes.
        """
        order = cells.num_nodes.argsort(descending=True, stable=True)  # the cells of a step are then the first ones
        z, cells = z[order], cells[order]
        longer = cells.num_nodes[:, None] > torch.arange(MAX_NODES, device=z.device)
        node, edge = z.new_zeros(2, len(cells)).unbind()
        h, folded = self._start(z)[:, None], self.graph_prop.rounds.fold()
        for t, active in list(enumerate(longer.sum(0).tolist()))[1:]:
            if not active:
                break
            z, h, adjacency, operation = z[:active], h[:active], cells.adjacency[:active], cells.operations[:active, t]
            h, summary, for_init_node = self.graph_prop(h, adjacency[:, :t, :t], folded)
            step_node = F.cross_entropy(self.add_node(z, summary), operation, reduction="none")
            new = self.init_node(z, for_init_node, self.embedding(operation))
            padding = (0, len(cells) - active)
            node = node + F.pad(step_node, padding)
            if not self._is_given(t):
                present = adjacency[:, :t, t].to(z.dtype)
                logits = self.add_edges(new, h, z, summary)
                step_edge = F.binary_cross_entropy_with_logits(logits, present, reduction="none").sum(1)
                edge = edge + F.pad(step_edge / t if self.config.edge_loss == "mean" else step_edge, padding)
            h = torch.cat([h, new[:, None]], 1)
        back = order.argsort()
        return node[back], edge[back]

    @torch.no_grad()
    def decode(
        self, z: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False, max_nodes: int = MAX_NODES
    ) -> Decoded:
        """Draw a cell for every point.

        Args:
            z: ``[N, d_g]``.
            generator: of the draws; torch's own by default.
            greedy: take the most likely operation and every edge that is more likely than not.
            max_nodes: where a cell ends that has no output node by then, 2 to 7.

        Returns:
            Cells whose edges lead to later nodes; whether they are valid is another matter.
        """
        if not 2 <= max_nodes <= MAX_NODES:
            raise ValueError(f"max_nodes is {max_nodes}; it must be between 2 and {MAX_NODES}")
        parts = [self._decode(part, generator, greedy, max_nodes) for part in z.split(POINTS_AT_ONCE)]
        cells = Cells.concatenate([part.cells for part in parts])
        return Decoded(cells, torch.cat([part.log_likelihood for part in parts]))

    def _decode(self, z: Tensor, generator: torch.Generator | None, greedy: bool, max_nodes: int) -> Decoded:
        n, device = len(z), z.device
        operations = torch.full((n, MAX_NODES), PADDING, device=device)
        operations[:, 0] = INPUT
        adjacency = torch.zeros(n, MAX_NODES, MAX_NODES, dtype=torch.bool, device=device)
        num_nodes = torch.ones(n, dtype=torch.int64, device=device)
        log_likelihood = z.new_zeros(n)
        growing, h, folded = torch.arange(n, device=device), self._start(z)[:, None], self.graph_prop.rounds.fold()
        for t in range(1, max_nodes):
            h, summary, for_init_node = self.graph_prop(h, adjacency[growing, :t, :t], folded)
            log_probability = self.add_node(z, summary).log_softmax(1)
            if greedy:
                operation = log_probability.argmax(1)
            else:
                operation = torch.multinomial(log_probability.exp(), 1, generator=generator).squeeze(1)
            new = self.init_node(z, for_init_node, self.embedding(operation))
            logits = self.add_edges(new, h, z, summary)
            if self._is_given(t):
                present = torch.ones_like(logits, dtype=torch.bool)
                edge = z.new_zeros(len(z))
            else:
                drawn = torch.full_like(logits, 0.5)
                if not greedy:
                    drawn = torch.rand(logits.shape, generator=generator, device=device)
                present = drawn < logits.sigmoid()
                edge = F.binary_cross_entropy_with_logits(logits, present.to(z.dtype), reduction="none").sum(1)
            operations[growing, t], adjacency[growing, :t, t], num_nodes[growing] = operation, present, t + 1
            log_likelihood[growing] += log_probability.gather(1, operation[:, None]).squeeze(1) - edge
            goes_on = (operation != OUTPUT).nonzero().squeeze(1)
            if not len(goes_on):
                break
            growing, z, h = growing[goes_on], z[goes_on], torch.cat([h, new[:, None]], 1)[goes_on]
        return Decoded(Cells(operations, adjacency, num_nodes), log_likelihood)

    def _is_given(self, t: int) -> bool:
        """Whether the edges of step t are known without a draw."""
        return t == 1 and self.config.first_edge == "given"

    def _start(self, z: Tensor) -> Tensor:
        """The state of the input node, ``[N, d_n]``."""
        return self.start_node(z, self.embedding.weight[INPUT].expand(len(z), -1))


def _as_round(adjacency: Tensor, directions: tuple[str, ...]) -> Round:
    """A round of message passing in N cells of t nodes with a state of its own each, bool ``[N, t, t]``."""
    n, t, _ = adjacency.shape
    own = torch.arange(n * t, device=adjacency.device)
    places = torch.arange(MAX_NODES, device=adjacency.device).clamp(max=t - 1)
    senders = torch.cat([own[:, None], (own // t * t)[:, None] + places], 1)
    towards = {"predecessors": adjacency.transpose(1, 2), "successors": adjacency}
    adjoins = torch.stack([towards[direction] for direction in directions], 2).reshape(n * t, -1, t).float()
    counts = F.pad(torch.cat([adjoins.sum(2, keepdim=True), adjoins], 2), (0, MAX_NODES - t))
    return Round(senders, counts)
