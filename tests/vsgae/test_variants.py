"""Every registered module, direction and size, in the predictor and in the autoencoder."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations, product

import pytest
import torch
from per_edge import PerEdgeVSGAE, differences, in_per_edge_form, prefixes

from vsgae import encoder as encoder_module
from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.cells import MAX_NODES, Cells
from vsgae.decoder import DecoderConfig
from vsgae.encoder import EncoderConfig
from vsgae.modules import AGGREGATIONS, MESSAGES, READOUTS, UPDATES
from vsgae.predictor import AccuracyPredictor, PredictorConfig
from vsgae.splits import Split
from vsgae.training import AutoencoderTrainingConfig, TrainingConfig, train_autoencoder, train_predictor

SMALL = EncoderConfig(node_dim=6, graph_dim=4)
CHOICES = {
    "direction": ("bidirectional", "forward", "backward"),
    "message": tuple(MESSAGES),
    "update": tuple(UPDATES),
    "aggregation": tuple(AGGREGATIONS),
    "readout": tuple(READOUTS),
    "rounds": (1, 2, 3, 4, 5),
    "share_weights": (False, True),
    "node_dim": (6, 7),
    "graph_dim": (4, 3),
}
ONE_CHANGE = [SMALL] + [
    replace(SMALL, **{name: choice})
    for name, choices in CHOICES.items()
    for choice in choices
    if choice != getattr(SMALL, name)
]
DRAW = random.Random(22)
MIXTURES = [{name: DRAW.choice(choices) for name, choices in CHOICES.items()} for _ in range(100)]


def name_of(config: EncoderConfig) -> str:
    changed = [f"{name}={value}" for name, value in vars(config).items() if value != getattr(SMALL, name)]
    return changed[0] if changed else "paper"


one_change = pytest.mark.parametrize("config", ONE_CHANGE, ids=name_of)


def predictor(config: EncoderConfig, dtype: torch.dtype = torch.float64) -> AccuracyPredictor:
    torch.manual_seed(0)
    return AccuracyPredictor(PredictorConfig(encoder=config, hidden=(5,))).to(dtype)


def autoencoder(config: EncoderConfig, dtype: torch.dtype = torch.float64, **settings) -> VSGAE:
    torch.manual_seed(0)
    return VSGAE(VSGAEConfig(encoder=config, decoder=DecoderConfig(**settings))).to(dtype)


def used(config: EncoderConfig, weight: str) -> bool:
    """Whether a weight has an effect: where messages replace states, that of a node without neighbours is forgotten."""
    return not (config.update == "replace" and weight.startswith("decoder.start_node."))


def test_the_mixtures_hold_every_pair_of_choices() -> None:
    for (one, of_one), (other, of_other) in combinations(CHOICES.items(), 2):
        assert {(mixture[one], mixture[other]) for mixture in MIXTURES} == set(product(of_one, of_other))


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: "-".join(map(str, mixture.values())))
def test_any_mixture_equals_the_per_edge_implementation(
    mixture: dict[str, object], thousand_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients; of cells, of a selection from their refinement, and row by row."""
    model, cells = predictor(EncoderConfig(**mixture)), thousand_cells[::9]
    output, gradient = differences(model, cells)
    assert output < 1e-12
    assert gradient < 1e-9
    indices = torch.tensor([5, 110, 0, 5])
    selected = model(model.encoder.refine(cells)[indices])
    assert (selected - model(cells[indices])).abs().max() < 1e-12
    monkeypatch.setattr(encoder_module, "ROWS_AT_ONCE", 37)
    with torch.no_grad():
        assert (model(cells)[indices] - selected).abs().max() < 1e-12


@one_change
def test_the_autoencoders_loss_and_gradients_equal_the_per_edge_implementation(
    config: EncoderConfig, thousand_cells: Cells
) -> None:
    cells, vae = thousand_cells[::40], autoencoder(config)
    reference = PerEdgeVSGAE.like(vae)
    noise = torch.randn(len(cells), config.graph_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = vae.loss(cells, generator=torch.Generator().manual_seed(0))["loss"]
    expected = reference.loss([prefixes(graph) for graph in cells.to_data()], noise)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    gradients = in_per_edge_form({name: weight.grad for name, weight in vae.named_parameters() if used(config, name)})
    for name, weight in reference.named_parameters():
        if used(config, name):
            torch.testing.assert_close(gradients[name], weight.grad)


@one_change
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_of_all_lengths_give_tensors_of_the_right_shape_and_type(
    config: EncoderConfig, dtype: torch.dtype, thousand_cells: Cells
) -> None:
    cells = thousand_cells[::40]
    assert set(cells.num_nodes.tolist()) == {2, 4, 5, 6, 7}
    predicted = predictor(config, dtype)(cells)
    assert (predicted.shape, predicted.dtype) == ((len(cells),), dtype)
    vae = autoencoder(config, dtype)
    for part in vae.encode(cells):
        assert (part.shape, part.dtype) == ((len(cells), config.graph_dim), dtype)
    for part in vae.loss(cells).values():
        assert (part.shape, part.dtype) == ((), dtype)
    assert predictor(config, dtype)(cells[:0]).shape == (0,)


@one_change
@pytest.mark.parametrize("single_node", ["propagated", "passed"])
def test_cells_are_decoded_with_the_likelihood_that_the_loss_gives_them(
    config: EncoderConfig, single_node: str
) -> None:
    """Decoding updates states in parts and without gradients, the loss all at once."""
    decoder = autoencoder(config, single_node=single_node, init_node_readout="own").decoder
    z = torch.randn(30, config.graph_dim, dtype=torch.float64)
    decoded = decoder.decode(z, torch.Generator().manual_seed(0))
    assert len(set(decoded.cells.num_nodes.tolist())) > 1
    node, edge = decoder.losses(z, decoded.cells)
    torch.testing.assert_close(decoded.log_likelihood, -node - edge)


@one_change
def test_embeddings_are_invariant_under_a_relabelling_of_the_inner_nodes(
    config: EncoderConfig, thousand_cells: Cells, relabelled
) -> None:
    cells = thousand_cells[::5]
    changed = relabelled(cells, seed=1)
    assert not cells.equal(changed).all()
    model, vae = predictor(config), autoencoder(config)
    torch.testing.assert_close(model(cells), model(changed))
    torch.testing.assert_close(vae.encode(cells), vae.encode(changed))


@one_change
def test_the_decoders_states_move_with_the_nodes_and_its_summary_stays(config: EncoderConfig) -> None:
    """The last node keeps its place: it is what ``output_node`` reads."""
    prop = autoencoder(config).decoder.graph_prop
    h = torch.randn(20, MAX_NODES, config.node_dim, dtype=torch.float64)
    adjacency = (torch.rand(20, MAX_NODES, MAX_NODES) < 0.4).triu(1)
    order = torch.tensor([2, 0, 5, 1, 4, 3, 6])
    folded = prop.rounds.fold()
    states, summary, _ = prop(h, adjacency, folded)
    moved, same, _ = prop(h[:, order], adjacency[:, order][:, :, order], folded)
    torch.testing.assert_close(moved, states[:, order])
    torch.testing.assert_close(same, summary)


@one_change
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_lowers_the_predictors_loss(config: EncoderConfig, precision: str, thousand_cells: Cells) -> None:
    cells = thousand_cells[::10]
    values = 0.8 + 0.02 * cells.num_edges.float()
    training = TrainingConfig(lr=1e-3, batch_size=len(cells), epochs=2, precision=precision)
    all_of_them = Split(*[torch.arange(len(cells))] * 3)
    first, second = train_predictor(PredictorConfig(encoder=config), training, cells, values, all_of_them, seed=0)
    assert second["train_loss"] < first["train_loss"]


@one_change
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_lowers_the_autoencoders_loss(config: EncoderConfig, precision: str, thousand_cells: Cells) -> None:
    cells = thousand_cells[::10]
    training = AutoencoderTrainingConfig(lr=1e-3, batch_size=len(cells), epochs=2, precision=precision)
    first, second = train_autoencoder(VSGAEConfig(encoder=config, noise=0.0), training, cells, seed=0)
    assert second["train_loss"] < first["train_loss"]


@one_change
def test_every_weight_takes_part(config: EncoderConfig, thousand_cells: Cells) -> None:
    model, vae = predictor(config), autoencoder(config)
    model(thousand_cells).square().sum().backward()
    vae.loss(thousand_cells)["loss"].backward()
    for part in (model, vae):
        for name, weight in part.named_parameters():
            assert (weight.grad is not None) == used(config, name), name
            if weight.grad is not None:
                assert weight.grad.isfinite().all(), name
                assert weight.grad.abs().max() > 0, name
