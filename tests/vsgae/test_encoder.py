import pytest
import torch
from per_edge import PerEdgePredictor, differences
from torch_geometric.data import Batch

from vsgae import encoder as encoder_module
from vsgae.encoder import Encoder, EncoderConfig
from vsgae.evaluation import predict
from vsgae.predictor import AccuracyPredictor, PredictorConfig


def predictor(config: PredictorConfig, dtype: torch.dtype = torch.float32) -> AccuracyPredictor:
    torch.manual_seed(0)
    return AccuracyPredictor(config).to(dtype)


def test_the_papers_encoder_equals_the_per_edge_implementation(thousand_cells):
    output, gradient = differences(predictor(PredictorConfig()), thousand_cells)
    assert output < 1e-5
    assert gradient < 1e-5


@pytest.mark.parametrize("order", ["update last", "aggregation last", "folded"])
@pytest.mark.parametrize("sent_if_dense", [0, 64])
def test_the_order_of_the_products_does_not_change_the_result(thousand_cells, monkeypatch, order, sent_if_dense):
    model = predictor(PredictorConfig(encoder=EncoderConfig(node_dim=20)), torch.float64)
    expected = PerEdgePredictor.like(model)(Batch.from_data_list(thousand_cells.to_data()))
    monkeypatch.setattr(encoder_module, "_cheapest_order", lambda *sizes: order)
    monkeypatch.setattr(encoder_module, "SENT_IF_DENSE", sent_if_dense)
    assert (model(thousand_cells) - expected).abs().max() < 1e-12


def test_the_papers_first_round_aggregates_last_a_batch_updates_last_and_the_whole_space_is_folded():
    """The numbers of states are those that the design counts."""
    sizes = {"d": 250, "s": 4, "m": 500, "k": 750}
    assert encoder_module._cheapest_order(**sizes, num_old=5, num_new=305) == "aggregation last"
    assert encoder_module._cheapest_order(**sizes, num_old=305, num_new=860) == "update last"
    assert encoder_module._cheapest_order(**sizes, num_old=1_863, num_new=903_330) == "folded"


def test_evaluation_by_rows_equals_training_mode(thousand_cells, monkeypatch):
    model = predictor(PredictorConfig(), torch.float64)
    expected = model(thousand_cells)
    monkeypatch.setattr(encoder_module, "ROWS_AT_ONCE", 37)
    with torch.no_grad():
        assert (model(thousand_cells) - expected).abs().max() < 1e-12


def test_no_cells_give_no_outputs(thousand_cells):
    model = predictor(PredictorConfig())
    for cells in (thousand_cells[:0], thousand_cells[[]], model.encoder.refine(thousand_cells)[torch.arange(0)]):
        assert model(cells).shape == (0,)
    assert predict(model, thousand_cells[:0]).shape == (0,)


@pytest.mark.parametrize("other", [{"rounds": 3}, {"direction": "forward"}, {"direction": "backward"}])
def test_the_refinement_of_another_encoder_is_refused(thousand_cells, other):
    refinement = Encoder(EncoderConfig(node_dim=4, **other)).refine(thousand_cells)
    made_for = r"a refinement of \d rounds with messages from \w+( and successors)?"
    with pytest.raises(ValueError, match=made_for + "; this encoder has 2 with messages from predecessors and succ"):
        Encoder(EncoderConfig(node_dim=4))(refinement)


def test_the_refinement_of_one_direction_is_refused_for_the_other(thousand_cells):
    forward, backward = (Encoder(EncoderConfig(direction=way, node_dim=4)) for way in ("forward", "backward"))
    with pytest.raises(ValueError, match=r"messages from predecessors; this encoder has 2 with messages from succ"):
        backward(forward.refine(thousand_cells)[torch.arange(10)])


def test_the_output_is_invariant_under_relabelling_of_the_inner_nodes(thousand_cells, relabelled):
    model = predictor(PredictorConfig())
    changed = relabelled(thousand_cells, seed=1)
    assert not thousand_cells.equal(changed).all()
    with torch.no_grad():
        assert (model(thousand_cells) - model(changed)).abs().max() < 1e-6


def test_a_cells_output_does_not_depend_on_the_batch(thousand_cells):
    model = predictor(PredictorConfig(), torch.float64)
    with torch.no_grad():
        alone = torch.cat([model(thousand_cells[i]) for i in range(0, 1000, 50)])
        assert (model(thousand_cells)[::50] - alone).abs().max() < 1e-12


def test_two_rounds_and_both_directions_are_seen(thousand_cells):
    """Cells that differ two edges away, or in direction only, get different embeddings."""
    forward = Encoder(EncoderConfig(direction="forward", node_dim=8, rounds=1))
    both = Encoder(EncoderConfig(node_dim=8))
    assert forward.rounds[0].message.weight.shape[1] == 1
    assert both.rounds[0].message.weight.shape[1] == 2
    assert len(torch.unique(both(thousand_cells).detach().round(decimals=5), dim=0)) > 900


def test_the_papers_encoder_has_as_many_parameters_as_the_paper_implies():
    d, g = 250, 56
    a_round = 2 * (2 * d * 2 * d + 2 * d) + 3 * d * (2 * d + d) + 2 * 3 * d
    expected = 5 * d + 2 * a_round + (d * g + g) + (d + 1)
    assert sum(p.numel() for p in Encoder(EncoderConfig()).parameters()) == expected
    assert sum(p.numel() for p in Encoder(EncoderConfig(share_weights=True)).parameters()) == expected - a_round


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"node_dim": -3}, "node_dim is -3; it must be at least 1"),
        (
            {"message": "telepathy"},
            "message is 'telepathy'; allowed are concat_linear, neighbour_linear, neighbour_state, concat_mlp, gatv2",
        ),
        ({"update": "lstm9"}, "update is 'lstm9'; allowed are gru, elman, lstm, residual_mlp, replace"),
        ({"aggregation": "product"}, "aggregation is 'product'; allowed are sum, mean, max, attention"),
        ({"readout": "none"}, "readout is 'none'; allowed are gated_sum, sum, mean, max, output_node"),
        ({"direction": "sideways"}, "direction is 'sideways'; allowed are bidirectional, forward, backward"),
    ],
)
def test_a_wrong_choice_is_quoted(setting, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**setting)


def test_a_hidden_width_must_be_positive():
    with pytest.raises(ValueError, match=r"hidden is \[28, 0\]; each width must be at least 1"):
        PredictorConfig(hidden=(28, 0))


def test_the_predictor_is_the_papers_mlp_on_the_encoder(thousand_cells):
    model = predictor(PredictorConfig())
    widths = [(layer.in_features, layer.out_features) for layer in model.mlp if isinstance(layer, torch.nn.Linear)]
    assert widths == [(56, 28), (28, 14), (14, 7), (7, 1)]
    assert isinstance(model.mlp[-1], torch.nn.Linear)
    assert model(thousand_cells[:3]).shape == (3,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_outputs_and_gradients(thousand_cells):
    model = predictor(PredictorConfig())
    expected = model(thousand_cells)
    expected.sum().backward()
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad()
    model.cuda()
    outputs = model(thousand_cells.to("cuda"))
    outputs.sum().backward()
    assert (outputs.cpu() - expected).abs().max() < 1e-4
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        assert (p.grad.cpu() - gradient).abs().max() < 1e-3 * gradient.abs().max().clamp(min=1)
