"""The paper's encoder written once more, edge by edge, on torch_geometric's ``MessagePassing``.

It shares no code with :mod:`vsgae.encoder`: tests compare the two, and ``benchmarks/encoder.py`` times one against the
other. ``PerEdgePredictor.like`` takes over a predictor's weights, and ``in_per_edge_form`` renames its gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MessagePassing, global_add_pool, global_mean_pool

from vsgae.predictor import AccuracyPredictor, PredictorConfig


class _LinearOf(nn.Module):
    """``Linear`` of the receiving and the sending state, or of the sending one alone."""

    def __init__(self, node_dim: int, message_dim: int, own: bool) -> None:
        super().__init__()
        self.own = own
        self.linear = nn.Linear((1 + own) * node_dim, message_dim)

    def forward(self, h_v: Tensor, h_u: Tensor) -> Tensor:
        return self.linear(torch.cat([h_v, h_u], dim=1) if self.own else h_u)


class _MLPOf(nn.Module):
    def __init__(self, node_dim: int, message_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * node_dim, message_dim)
        self.out = nn.Linear(message_dim, message_dim)

    def forward(self, h_v: Tensor, h_u: Tensor) -> Tensor:
        return self.out(self.hidden(torch.cat([h_v, h_u], dim=1)).relu())


class _Along(MessagePassing):
    """The messages along the edges in one direction, aggregated."""

    def __init__(self, message_module: nn.Module, aggregation: str, flow: str) -> None:
        super().__init__(aggr=aggregation, flow=flow)
        self.module = message_module

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, h=h)

    def message(self, h_i: Tensor, h_j: Tensor) -> Tensor:
        return self.module(h_i, h_j)


class _Round(nn.Module):
    def __init__(self, d: int, message: str, update: str, aggregation: str, flows: list[str]) -> None:
        super().__init__()
        make = {
            "concat_linear": lambda: _LinearOf(d, 2 * d, True),
            "neighbour_linear": lambda: _LinearOf(d, 2 * d, False),
            "concat_mlp": lambda: _MLPOf(d, 2 * d),
        }[message]
        self.messages = nn.ModuleList(make() for _ in flows)
        self.along = [_Along(module, aggregation, flow) for module, flow in zip(self.messages, flows, strict=True)]
        self.update = {"gru": nn.GRUCell, "elman": nn.RNNCell}[update](2 * d, d)

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        received = sum(along(h, edge_index) for along in self.along)
        return self.update(received, h)


class _Readout(nn.Module):
    def __init__(self, d: int, d_g: int, readout: str) -> None:
        super().__init__()
        self.linear = nn.Linear(d, d_g)
        self.gate = nn.Linear(d, 1) if readout == "gated_sum" else None

    def forward(self, h: Tensor, batch: Tensor) -> Tensor:
        if self.gate is None:
            return global_mean_pool(self.linear(h), batch)
        return global_add_pool(self.linear(h) * self.gate(h).sigmoid(), batch)


class _Encoder(nn.Module):
    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        c = config.encoder
        flows = ["source_to_target", "target_to_source"][: 2 if c.direction == "bidirectional" else 1]
        self.num_rounds = c.rounds
        self.embedding = nn.Embedding(5, c.node_dim)
        self.rounds = nn.ModuleList(
            _Round(c.node_dim, c.message, c.update, c.aggregation, flows)
            for _ in range(1 if c.share_weights else c.rounds)
        )
        self.readout = _Readout(c.node_dim, c.graph_dim, c.readout)

    def forward(self, batch: Batch) -> Tensor:
        h = self.embedding(batch.x)
        for t in range(self.num_rounds):
            h = self.rounds[t % len(self.rounds)](h, batch.edge_index)
        return self.readout(h, batch.batch)


class PerEdgePredictor(nn.Module):
    """``AccuracyPredictor``, edge by edge, on a torch_geometric ``Batch`` of ``Cells.to_data()``."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        widths = [config.encoder.graph_dim, *config.hidden, 1]
        layers: list[nn.Module] = []
        for i in range(len(widths) - 1):
            layers += [nn.Linear(widths[i], widths[i + 1])] + ([nn.ReLU()] if i < len(widths) - 2 else [])
        self.mlp = nn.Sequential(*layers)

    @staticmethod
    def like(predictor: AccuracyPredictor) -> PerEdgePredictor:
        """The same function of a cell."""
        model = PerEdgePredictor(predictor.config).to(next(predictor.parameters()).dtype)
        model.load_state_dict(in_per_edge_form(predictor.state_dict()))
        return model

    def forward(self, batch: Batch) -> Tensor:
        return self.mlp(self.encoder(batch))[:, 0]


def in_per_edge_form(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights or gradients of an ``AccuracyPredictor`` under the names and in the shapes of a ``PerEdgePredictor``.

    The predictor stacks the directions of a linear message, and its blocks for the two states of an edge.
    """
    result = {}
    for name, value in tensors.items():
        round_, _, rest = name.partition(".message.")
        if rest == "weight":
            for d, blocks in enumerate(value.unbind(1)):  # [d_n, 2 or 1 states, message_dim]
                result[f"{round_}.messages.{d}.linear.weight"] = blocks.transpose(0, 1).flatten(0, 1).T
        elif rest == "bias":
            for d, bias in enumerate(value):
                result[f"{round_}.messages.{d}.linear.bias"] = bias
        elif rest:  # layers.<direction>.<0 or 2>.<weight or bias>
            _, d, layer, kind = rest.split(".")
            result[f"{round_}.messages.{d}.{'hidden' if layer == '0' else 'out'}.{kind}"] = value
        else:
            result[name] = value
    return result
