"""The paper's models written once more, edge by edge, on torch_geometric's ``MessagePassing``.

They share no code with :mod:`vsgae`: tests compare the two, and ``benchmarks/`` times one against the other.
``PerEdgePredictor.like`` and ``PerEdgeVSGAE.like`` take over weights, and ``in_per_edge_form`` renames gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.nn import Aggregation, MessagePassing, global_add_pool, global_max_pool, global_mean_pool

from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.cells import Cells
from vsgae.predictor import AccuracyPredictor, PredictorConfig


class _LinearOf(nn.Module):
    """``Linear`` of the receiving and the sending state, or of the sending one alone."""

    def __init__(self, node_dim: int, message_dim: int, own: bool) -> None:
        super().__init__()
        self.own = own
        self.linear = nn.Linear((1 + own) * node_dim, message_dim)

    def forward(self, h_v: Tensor, h_u: Tensor, index: Tensor) -> Tensor:
        return self.linear(torch.cat([h_v, h_u], dim=1) if self.own else h_u)


class _StateOf(nn.Module):
    """The sending state, first or last in the message and 0 elsewhere."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last

    def forward(self, h_v: Tensor, h_u: Tensor, index: Tensor) -> Tensor:
        zero = torch.zeros_like(h_u)
        return torch.cat([zero, h_u] if self.last else [h_u, zero], dim=1)


class _MLPOf(nn.Module):
    def __init__(self, node_dim: int, message_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * node_dim, message_dim)
        self.out = nn.Linear(message_dim, message_dim)

    def forward(self, h_v: Tensor, h_u: Tensor, index: Tensor) -> Tensor:
        return self.out(self.hidden(torch.cat([h_v, h_u], dim=1)).relu())


def _shares(scores: Tensor, index: Tensor) -> Tensor:
    """Of each edge ``[E, 1]``: the exponential of its score over the sum of those to the same node."""
    return scores.exp() / ((index[:, None] == index).to(scores.dtype) @ scores.exp())


class _GATv2Of(nn.Module):
    def __init__(self, node_dim: int, message_dim: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(node_dim, message_dim, bias=False)
        self.neighbour = nn.Linear(node_dim, message_dim)
        self.score = nn.Linear(message_dim, 1, bias=False)

    def forward(self, h_v: Tensor, h_u: Tensor, index: Tensor) -> Tensor:
        scores = self.score(F.leaky_relu(self.receiver(h_v) + self.neighbour(h_u), 0.2))
        return _shares(scores, index) * self.neighbour(h_u)


class _Attention(Aggregation):
    def __init__(self, message_dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(message_dim, 1, bias=False)

    def forward(self, x: Tensor, index: Tensor, ptr: None = None, dim_size: int = 0, dim: int = 0) -> Tensor:
        parts = _shares(self.score(F.leaky_relu(x, 0.2)), index) * x
        return x.new_zeros(dim_size, x.shape[1]).index_add(0, index, parts)


class _Along(MessagePassing):
    """The messages along the edges in one direction, aggregated."""

    def __init__(self, message_module: nn.Module, aggregation: str | Aggregation, flow: str) -> None:
        super().__init__(aggr=aggregation, flow=flow)
        self.module = message_module

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, h=h)

    def message(self, h_i: Tensor, h_j: Tensor, index: Tensor) -> Tensor:
        return self.module(h_i, h_j, index)


class _MLPUpdate(nn.Module):
    def __init__(self, message_dim: int, d: int) -> None:
        super().__init__()
        self.weight_ih, self.bias_ih = nn.Linear(message_dim, 2 * d).parameters()
        self.weight_hh, self.bias_hh = nn.Linear(d, 2 * d).parameters()
        self.out = nn.Linear(2 * d, d)

    def forward(self, received: Tensor, h: Tensor) -> Tensor:
        hidden = F.linear(received, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        return h + self.out(hidden.relu())


class _ReplacingUpdate(nn.Module):
    def __init__(self, message_dim: int, d: int) -> None:
        super().__init__()
        self.weight_ih, self.bias_ih = nn.Linear(message_dim, d).parameters()

    def forward(self, received: Tensor, h: Tensor) -> Tensor:
        return F.linear(received, self.weight_ih, self.bias_ih)


_UPDATES = {
    "gru": nn.GRUCell,
    "elman": nn.RNNCell,
    "lstm": nn.LSTMCell,
    "residual_mlp": _MLPUpdate,
    "replace": _ReplacingUpdate,
}


class _Round(nn.Module):
    def __init__(self, d: int, message: str, update: str, aggregation: str, flows: list[str]) -> None:
        super().__init__()
        make = {
            "concat_linear": lambda place: _LinearOf(d, 2 * d, True),
            "neighbour_linear": lambda place: _LinearOf(d, 2 * d, False),
            "neighbour_state": lambda place: _StateOf(last=place == 1),
            "concat_mlp": lambda place: _MLPOf(d, 2 * d),
            "gatv2": lambda place: _GATv2Of(d, 2 * d),
        }[message]
        self.messages = nn.ModuleList(make(place) for place in range(len(flows)))
        self.attention = _Attention(2 * d) if aggregation == "attention" else None
        aggregate = self.attention or aggregation
        self.along = [_Along(module, aggregate, flow) for module, flow in zip(self.messages, flows, strict=True)]
        self.update = _UPDATES[update](2 * d, d)

    def forward(self, h: Tensor, memory: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        received = sum(along(h, edge_index) for along in self.along)
        if isinstance(self.update, nn.LSTMCell):
            return self.update(received, (h, memory))
        return self.update(received, h), memory


class _Readout(nn.Module):
    def __init__(self, d: int, d_g: int, readout: str) -> None:
        super().__init__()
        self.linear = nn.Linear(d, d_g)
        self.gate = nn.Linear(d, 1) if readout == "gated_sum" else None
        self.pool = {"mean": global_mean_pool, "max": global_max_pool, "output_node": _last}.get(
            readout, global_add_pool
        )

    def forward(self, h: Tensor, batch: Tensor) -> Tensor:
        return self.pool(self.linear(h) * (1 if self.gate is None else self.gate(h).sigmoid()), batch)


def _last(values: Tensor, batch: Tensor) -> Tensor:
    return torch.stack([values[batch == graph][-1] for graph in batch.unique()])


class _Encoder(nn.Module):
    def __init__(self, config: PredictorConfig | VSGAEConfig) -> None:
        super().__init__()
        c = config.encoder
        along, against = "source_to_target", "target_to_source"
        flows = {"bidirectional": [along, against], "forward": [along], "backward": [against]}[c.direction]
        self.num_rounds = c.rounds
        self.embedding = nn.Embedding(5, c.node_dim)
        self.rounds = nn.ModuleList(
            _Round(c.node_dim, c.message, c.update, c.aggregation, flows)
            for _ in range(1 if c.share_weights else c.rounds)
        )
        self.readout = _Readout(c.node_dim, c.graph_dim, c.readout)

    def forward(self, batch: Batch) -> Tensor:
        return self.readout(self.propagate(self.embedding(batch.x), batch.edge_index), batch.batch)

    def propagate(self, h: Tensor, edge_index: Tensor) -> Tensor:
        memory = torch.zeros_like(h)
        for t in range(self.num_rounds):
            h, memory = self.rounds[t % len(self.rounds)](h, memory, edge_index)
        return h


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


class _TwoLayers(nn.Module):
    def __init__(self, names: tuple[str, str], widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.names = names
        for name, before, after in zip(names, widths[:2], widths[1:], strict=True):
            self.add_module(name, nn.Linear(before, after))

    def forward(self, *inputs: Tensor) -> Tensor:
        first, second = (getattr(self, name) for name in self.names)
        return second(first(torch.cat(inputs, dim=1)).relu())


class _Decoder(nn.Module):
    def __init__(self, config: VSGAEConfig) -> None:
        super().__init__()
        d, g = config.encoder.node_dim, config.encoder.graph_dim
        self.embedding = nn.Embedding(5, d)
        self.start_node = _TwoLayers(("hidden", "state"), (g + d, g + d, d))
        self.graph_prop = _Encoder(config)
        del self.graph_prop.embedding
        self.add_node = _TwoLayers(("hidden", "logits"), (2 * g, g, 5))
        self.init_node = _TwoLayers(("hidden", "state"), (2 * g + d, g + d, d))
        self.add_edges = _TwoLayers(("hidden", "score"), (2 * d + 2 * g, d + g, 1))


class PerEdgeVSGAE(nn.Module):
    """``VSGAE`` with the text's settings, step by step and edge by edge."""

    def __init__(self, config: VSGAEConfig) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.encoder = _Encoder(config)
        self.log_variance = _Readout(config.encoder.node_dim, config.encoder.graph_dim, config.encoder.readout)
        self.decoder = _Decoder(config)

    @staticmethod
    def like(model: VSGAE) -> PerEdgeVSGAE:
        other = PerEdgeVSGAE(model.config).to(next(model.parameters()).dtype)
        other.load_state_dict(in_per_edge_form(model.state_dict()))
        return other

    def loss(self, graphs: list[list[Data]], noise: Tensor) -> Tensor:
        """Of cells given as by :func:`prefixes`, with the noise of the reparameterisation ``[N, d_g]``."""
        whole = Batch.from_data_list([prefixes[-1] for prefixes in graphs])
        h = self.encoder.propagate(self.encoder.embedding(whole.x), whole.edge_index)
        mean, log_variance = self.encoder.readout(h, whole.batch), self.log_variance(h, whole.batch)
        z = mean + noise * (0.5 * log_variance).exp()
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        decoder = self.decoder
        states = decoder.start_node(z, decoder.embedding.weight[:1].expand(len(z), -1))  # of all nodes, cell after cell
        active, reconstruction, t = list(range(len(graphs))), z.new_zeros(()), 1
        while active:
            partial = Batch.from_data_list([graphs[i][t - 1] for i in active])
            states = decoder.graph_prop.propagate(states, partial.edge_index)
            summary, here = decoder.graph_prop.readout(states, partial.batch), z[active]
            operations = torch.tensor([int(graphs[i][t].x[t]) for i in active])
            logits = decoder.add_node(here, summary)
            reconstruction = reconstruction + F.cross_entropy(logits, operations, reduction="sum")
            new = decoder.init_node(here, summary, decoder.embedding(operations))
            each = partial.batch
            scores = decoder.add_edges(new[each], here[each], summary[each], states)[:, 0]
            present = torch.cat([graphs[i][t].into_last for i in active]).to(scores.dtype)
            reconstruction = reconstruction + F.binary_cross_entropy_with_logits(scores, present, reduction="sum")
            goes_on = torch.tensor([len(graphs[i]) > t + 1 for i in active])
            states = torch.cat([states.view(len(active), t, -1), new[:, None]], 1)[goes_on].flatten(0, 1)
            active, t = [i for i, more in zip(active, goes_on.tolist(), strict=True) if more], t + 1
        return (reconstruction + self.alpha * kl) / len(graphs)


def prefixes(graph: Data) -> list[Data]:
    """The partial cells of 1, 2, ... nodes, each with the edges into its last node, bool ``[t - 1]``."""
    parts = []
    for t in range(1, len(graph.x) + 1):
        inside = graph.edge_index[:, (graph.edge_index < t).all(0)]
        into_last = torch.zeros(t - 1, dtype=torch.bool)
        into_last[inside[0, inside[1] == t - 1]] = True
        parts.append(Data(x=graph.x[:t], edge_index=inside, into_last=into_last))
    return parts


def in_per_edge_form(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights or gradients under the names and in the shapes of a ``PerEdgePredictor`` or ``PerEdgeVSGAE``.

    The models of ``vsgae`` stack the directions of a linear message, and its blocks for the two states of an edge.
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
        elif rest.startswith("layers."):  # layers.<direction>.<0 or 2>.<weight or bias>
            _, d, layer, kind = rest.split(".")
            result[f"{round_}.messages.{d}.{'hidden' if layer == '0' else 'out'}.{kind}"] = value
        elif rest:  # <part>.<direction>.<weight or bias>
            part, d, kind = rest.split(".")
            result[f"{round_}.messages.{d}.{part}.{kind}"] = value
        else:
            result[name.replace("aggregation.attention.gate_nn.1", "attention.score")] = value
    return result


def differences(model: AccuracyPredictor, cells: Cells) -> tuple[float, float]:
    """The largest between a model and the same edge by edge: of outputs, and of gradients relative to the largest."""
    reference = PerEdgePredictor.like(model)
    weights = torch.linspace(-1, 1, len(cells), dtype=next(model.parameters()).dtype)
    ours, theirs = model(cells), reference(Batch.from_data_list(cells.to_data()))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    gradients = in_per_edge_form({name: p.grad for name, p in model.named_parameters()})
    differences = [
        ((gradients[name] - p.grad).abs().max() / p.grad.abs().max().clamp(min=1e-3)).item()
        for name, p in reference.named_parameters()
    ]
    return (ours - theirs).abs().max().item(), max(differences)
