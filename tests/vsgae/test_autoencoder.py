"""The autoencoder against probabilities computed step by step and edge by edge, from its weights alone."""

from __future__ import annotations

import dataclasses
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from per_edge import PerEdgeVSGAE, in_per_edge_form, prefixes
from safetensors.torch import save_file
from torch import Tensor, nn

from vsgae.autoencoder import VSGAE, VSGAEConfig, kl_divergence
from vsgae.cells import INPUT, MAX_NODES, OUTPUT, PADDING, Cells
from vsgae.decoder import Decoder, DecoderConfig, GraphProp
from vsgae.encoder import EncoderConfig

SMALL = EncoderConfig(node_dim=5, graph_dim=3)
SETTINGS = [
    DecoderConfig(edge_loss=edge_loss, first_edge=first_edge, init_node_readout=readout, single_node=single_node)
    for edge_loss, first_edge, readout, single_node in product(
        ("sum", "mean"), ("predicted", "given"), ("shared", "own"), ("propagated", "passed")
    )
]


def model(seed: int = 0, **settings) -> VSGAE:
    torch.manual_seed(seed)
    return VSGAE(VSGAEConfig(**{"encoder": SMALL, **settings})).double()


def cell(operations: list[int], edges: list[tuple[int, int]]) -> Cells:
    adjacency = torch.zeros(1, MAX_NODES, MAX_NODES, dtype=torch.bool)
    adjacency[0, [u for u, _ in edges], [v for _, v in edges]] = True
    padded = torch.tensor([operations + [PADDING] * (MAX_NODES - len(operations))])
    return Cells(padded, adjacency, torch.tensor([len(operations)]))


def step_by_step(decoder: Decoder, z: Tensor, one: Cells) -> tuple[float, float]:
    """Node and edge loss of one cell, with loops and the modules' weights; nothing of the decoder's own methods."""

    def mlp(first: nn.Linear, second: nn.Linear, *inputs: Tensor) -> Tensor:
        return second(torch.relu(first(torch.cat(inputs))))

    def propagate(prop: GraphProp, h: list[Tensor], edges: set[tuple[int, int]]) -> list[Tensor]:
        for layer in prop.rounds:
            d = len(h[0])
            weight, bias, sent = layer.message.weight, layer.message.bias, []
            for v in range(len(h)):
                total = torch.zeros(2 * d, dtype=z.dtype)
                for u, w in edges:
                    if w == v:
                        total = total + bias[0] + h[v] @ weight[:, 0, 0] + h[u] @ weight[:, 0, 1]
                    if u == v:
                        total = total + bias[1] + h[v] @ weight[:, 1, 0] + h[w] @ weight[:, 1, 1]
                sent.append(total)
            cell_ = nn.GRUCell(2 * d, d).to(z.dtype)
            cell_.load_state_dict(layer.update.state_dict())
            h = [cell_(message[None], state[None])[0] for message, state in zip(sent, h, strict=True)]
        return h

    settings, prop = decoder.config, decoder.graph_prop
    operations, adjacency = one.operations[0].tolist(), one.adjacency[0].tolist()
    start = decoder.start_node
    h = [mlp(start.hidden, start.state, z, decoder.embedding.weight[INPUT])]
    node_loss = edge_loss = 0.0
    for t in range(1, int(one.num_nodes)):
        passed = t == 1 and settings.single_node == "passed"
        if not passed:
            h = propagate(prop, h, {(u, v) for u in range(t) for v in range(t) if adjacency[u][v]})

        def summed(readout: nn.Module, states: list[Tensor], gated: bool) -> Tensor:
            parts = [readout.linear(s) * (torch.sigmoid(readout.gate(s)) if gated else 1) for s in states]
            return torch.stack(parts).sum(0)

        summary = summed(prop.readout, h, not passed)
        own = settings.init_node_readout == "own"
        for_init = summed(prop.init_node_readout, h, not passed) if own else summary
        logits = mlp(decoder.add_node.hidden, decoder.add_node.logits, z, summary)
        node_loss -= float(logits.detach().log_softmax(0)[operations[t]])
        embedded = decoder.embedding.weight[operations[t]]
        new = mlp(decoder.init_node.hidden, decoder.init_node.state, z, for_init, embedded)
        if not (t == 1 and settings.first_edge == "given"):
            step = 0.0
            for v in range(t):
                score = mlp(decoder.add_edges.hidden, decoder.add_edges.score, new, z, summary, h[v])
                chance = torch.sigmoid(score)[0]
                step -= float(torch.log(chance if adjacency[v][t] else 1 - chance).detach())
            edge_loss += step / t if settings.edge_loss == "mean" else step
        h = [*h, new]
    return node_loss, edge_loss


@pytest.mark.parametrize("settings", SETTINGS)
def test_losses_equal_those_computed_step_by_step_and_edge_by_edge(settings: DecoderConfig, thousand_cells) -> None:
    decoder = model(decoder=settings).decoder
    by_hand = [cell([0, 4], [(0, 1)]), cell([0, 4], []), cell([0, 2, 4], [(0, 1), (1, 2)]), cell([0, 3, 4], [(0, 2)])]
    cells = Cells.concatenate([*by_hand, thousand_cells[::100]])
    z = torch.randn(len(cells), 3, dtype=torch.float64)
    node, edge = decoder.losses(z, cells)
    expected = torch.tensor([step_by_step(decoder, z[i], cells[i]) for i in range(len(cells))], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([node, edge], 1), expected, rtol=1e-9, atol=1e-9)


def test_the_loss_and_its_gradients_equal_those_of_the_model_written_on_torch_geometric(thousand_cells) -> None:
    cells = thousand_cells[::4]
    vae = model()
    reference = PerEdgeVSGAE.like(vae)
    loss = vae.loss(cells, generator=torch.Generator().manual_seed(0))["loss"]
    noise = torch.randn(len(cells), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = reference.loss([prefixes(graph) for graph in cells.to_data()], noise)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    gradients = in_per_edge_form({name: weight.grad for name, weight in vae.named_parameters()})
    for name, weight in reference.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad)


def test_without_knowledge_a_cell_costs_log_5_a_node_and_log_2_an_edge() -> None:
    blank = model()
    for weight in blank.parameters():
        nn.init.zeros_(weight)
    for one, nodes, edges in ((cell([0, 4], [(0, 1)]), 1, 1), (cell([0, 1, 4], [(0, 1), (1, 2)]), 2, 3)):
        loss = blank.loss(one)
        assert loss["node"].item() == pytest.approx(nodes * math.log(5))
        assert loss["edge"].item() == pytest.approx(edges * math.log(2))
        assert loss["kl"].item() == 0  # mean 0, variance 1


def test_the_divergence_is_that_of_equation_16() -> None:
    mean, variance = torch.tensor([[0.5, -2.0]]), torch.tensor([[0.25, 3.0]])
    expected = [[-0.5 * (1 + math.log(s) - m * m - s) for m, s in ((0.5, 0.25), (-2.0, 3.0))]]
    torch.testing.assert_close(kl_divergence(mean, variance.log()), torch.tensor(expected))
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mean, variance.log()), exact)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_the_sum_of_its_parts(reduction: str, thousand_cells) -> None:
    cells = thousand_cells[:10]
    vae = model(alpha=0.3, kl_reduction=reduction, noise=0.0)
    parts = vae.loss(cells)
    mean, log_variance = vae.encode(cells)
    divergence = kl_divergence(mean, log_variance).sum()
    torch.testing.assert_close(parts["kl"], divergence / (1 if reduction == "sum" else 10))
    torch.testing.assert_close(parts["loss"], parts["node"] + parts["edge"] + 0.3 * parts["kl"])
    node, edge = vae.decoder.losses(mean, cells)  # without noise, z is the mean
    torch.testing.assert_close(parts["node"] + parts["edge"], (node + edge).mean())


def test_noise_is_scaled_and_drawn_with_the_generator(thousand_cells) -> None:
    cells = thousand_cells[:10]
    vae = model(noise=0.01)
    mean, log_variance = vae.encode(cells)
    z = (
        mean
        + 0.01
        * torch.randn(mean.shape, generator=torch.Generator().manual_seed(3), dtype=mean.dtype)
        * (0.5 * log_variance).exp()
    )
    node, _ = vae.decoder.losses(z, cells)
    torch.testing.assert_close(vae.loss(cells, generator=torch.Generator().manual_seed(3))["node"], node.mean())


def all_cells(most: int) -> Cells:
    """Everything that a decoder can give that ends at ``most`` nodes."""
    cells = []
    for n in range(2, most + 1):
        last = range(5) if n == most else [OUTPUT]
        pairs = [(u, v) for v in range(n) for u in range(v)]
        for *inner, end in product(*[[0, 1, 2, 3]] * (n - 2), last):
            for bits in product((False, True), repeat=len(pairs)):
                cells.append(cell([0, *inner, end], [pair for pair, bit in zip(pairs, bits, strict=True) if bit]))
    return Cells.concatenate(cells)


@pytest.mark.parametrize("single_node", ["propagated", "passed"])
def test_the_probabilities_of_all_cells_of_up_to_four_nodes_sum_to_one(single_node: str) -> None:
    decoder = model(decoder=DecoderConfig(single_node=single_node)).decoder
    cells = all_cells(4)
    assert len(cells) == 2 + 4 * 2 * 4 + (4 * 2) * (4 * 4) * (5 * 8)
    z = torch.randn(3, dtype=torch.float64)
    node, edge = decoder.losses(z.expand(len(cells), -1), cells)
    assert (-node - edge).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_cells_are_drawn_with_the_probabilities_that_the_losses_give() -> None:
    decoder = model().decoder
    cells, n = all_cells(3), 100_000
    z = torch.randn(3, dtype=torch.float64)
    drawn = decoder.decode(z.expand(n, -1), torch.Generator().manual_seed(0), max_nodes=3)
    node, edge = decoder.losses(z.expand(n, -1), drawn.cells)
    torch.testing.assert_close(drawn.log_likelihood, -node - edge)
    node, edge = decoder.losses(z.expand(len(cells), -1), cells)
    expected = (-node - edge).exp()
    found = torch.stack([drawn.cells.equal(cells[[i] * n]).double().mean() for i in range(len(cells))])
    deviation = (expected * (1 - expected) / n).sqrt()
    assert float(found.sum()) == pytest.approx(1)
    assert ((found - expected).abs() < 5 * deviation).all()


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("settings", SETTINGS[::3])
def test_what_is_decoded_has_edges_to_later_nodes_only_and_ends_with_an_output_or_is_full(
    settings: DecoderConfig, greedy: bool
) -> None:
    vae = model(decoder=settings)
    z = 3 * torch.randn(2500, 3, dtype=torch.float64)
    decoded = vae.decoder.decode(z, torch.Generator().manual_seed(0), greedy=greedy)
    cells = decoded.cells
    assert not cells.adjacency.tril().any()
    places = torch.arange(MAX_NODES)
    inside = places < cells.num_nodes[:, None]
    assert (cells.operations[~inside] == PADDING).all()
    assert (cells.operations[inside] >= 0).all()
    assert not cells.adjacency[~(inside[:, :, None] & inside[:, None])].any()
    assert (cells.operations[:, 0] == INPUT).all()
    ends = cells.operations.gather(1, cells.num_nodes[:, None] - 1).squeeze(1) == OUTPUT
    assert (ends | (cells.num_nodes == MAX_NODES)).all()
    assert ((cells.operations == OUTPUT).sum(1) == ends).all()
    if settings.first_edge == "given":
        assert cells.adjacency[:, 0, 1].all()
    if settings.edge_loss == "sum":
        node, edge = vae.decoder.losses(z, cells)
        torch.testing.assert_close(decoded.log_likelihood, -node - edge)
    again = vae.decode(z, torch.Generator().manual_seed(0), greedy=greedy)
    assert again.equal(cells).all()


def test_greedy_decoding_takes_the_most_likely_of_every_step() -> None:
    decoder = model().decoder
    z = torch.randn(50, 3, dtype=torch.float64)
    greedy = decoder.decode(z, greedy=True, max_nodes=2)
    two = [cell([0, kind], edges) for kind in range(5) for edges in ([], [(0, 1)])]
    chances = torch.stack([-sum(decoder.losses(z, one[[0] * 50])) for one in two])
    torch.testing.assert_close(greedy.log_likelihood, chances.max(0).values)


def test_the_posterior_is_invariant_under_relabelling(thousand_cells) -> None:
    cells = thousand_cells[::10].to_nasbench()
    moved = []
    for matrix, names in cells:
        order = np.array(
            [0, *np.random.default_rng(len(moved)).permutation(np.arange(1, len(names) - 1)), len(names) - 1]
        )
        moved.append((order, matrix[np.ix_(order, order)], [names[v] for v in order]))
    plain = Cells.from_nasbench(cells)
    adjacency, operations = plain.adjacency.clone(), plain.operations.clone()
    for i, (order, matrix, _) in enumerate(moved):
        n = len(order)
        adjacency[i, :n, :n] = torch.from_numpy(np.asarray(matrix, bool))
        operations[i, :n] = plain.operations[i, order]
    assert (adjacency != plain.adjacency).any(2).any(1).float().mean() > 0.5
    vae = model()
    for one, other in zip(
        vae.encode(plain),
        vae.encode(dataclasses.replace(plain, adjacency=adjacency, operations=operations)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_refinement_at_hand_gives_the_same_loss(thousand_cells) -> None:
    vae = model(noise=0.0)
    refinement = vae.encoder.refine(thousand_cells)
    chosen = torch.arange(0, 1000, 7)
    cells = thousand_cells[chosen]
    torch.testing.assert_close(vae.loss(cells, refinement[chosen])["loss"], vae.loss(cells)["loss"])


def test_a_model_is_saved_and_loaded_with_its_configuration(thousand_cells, tmp_path: Path) -> None:
    vae = model(decoder=SETTINGS[-1], alpha=0.5).float()
    path = tmp_path / "some.safetensors"
    vae.save_pretrained(path)
    again = VSGAE.from_pretrained(path)
    assert again.config == vae.config
    assert not again.training
    for one, other in zip(vae.encode(thousand_cells), again.encode(thousand_cells), strict=True):
        assert torch.equal(one, other)


def test_a_file_that_is_damaged_or_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    with pytest.raises(FileNotFoundError):
        VSGAE.from_pretrained(path)
    model().save_pretrained(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"some.safetensors is no VS-GAE, or damaged"):
        VSGAE.from_pretrained(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"some.safetensors is no VS-GAE, or damaged"):
        VSGAE.from_pretrained(path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"config": '{"encoder": {"node_dim": 3}, "decoder": {}}'})
    with pytest.raises(ValueError, match=r"some.safetensors is no VS-GAE, or damaged"):
        VSGAE.from_pretrained(path)


def test_the_papers_model_has_4_9_million_weights() -> None:
    assert round(sum(weight.numel() for weight in VSGAE(VSGAEConfig()).parameters()) / 1e6, 1) == 4.9


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (VSGAEConfig, {"alpha": -1.0}, "alpha is -1.0; it must be at least 0"),
        (VSGAEConfig, {"noise": float("nan")}, "noise is nan; it must be at least 0"),
        (VSGAEConfig, {"kl_reduction": "max"}, "kl_reduction is 'max'; allowed are mean, sum"),
        (DecoderConfig, {"edge_loss": "max"}, "edge_loss is 'max'; allowed are sum, mean"),
        (DecoderConfig, {"first_edge": "no"}, "first_edge is 'no'; allowed are predicted, given"),
        (DecoderConfig, {"init_node_readout": ""}, "init_node_readout is ''; allowed are shared, own"),
        (DecoderConfig, {"single_node": ""}, "single_node is ''; allowed are propagated, passed"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(cls: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**values)


@pytest.mark.parametrize("most", [1, 8])
def test_a_wrong_number_of_nodes_is_refused(most: int) -> None:
    with pytest.raises(ValueError, match=f"max_nodes is {most}; it must be between 2 and 7"):
        model().decoder.decode(torch.zeros(1, 3, dtype=torch.float64), max_nodes=most)
