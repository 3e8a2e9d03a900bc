import pytest
import torch
from torch import nn
from torch_geometric.nn import GATv2Conv, GINConv

from vsgae.modules import AGGREGATIONS, MESSAGES

EDGES = torch.tensor([[0, 1, 2, 0, 4, 0], [1, 3, 3, 3, 1, 2]])  # from, to; no edge leads to node 0 or 4


def received(name: str, h: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """The message module of one direction, and the sum that each of five nodes receives."""
    torch.manual_seed(1)
    message = MESSAGES[name](6, 12, 1)
    source, target = EDGES
    return message, AGGREGATIONS["sum"](12)(message(h[target], h[source], 0, target), target, len(h))


@pytest.mark.parametrize(("name", "fan_in"), [("concat_linear", 500), ("neighbour_linear", 250)])
def test_a_linear_message_starts_as_torchs_linear_layer_does(name, fan_in):
    torch.manual_seed(0)
    message = MESSAGES[name](250, 500, 2)
    for direction in range(2):
        for parameter in (message.weight[:, direction], message.bias[direction]):
            assert 0.9 * fan_in**-0.5 < parameter.abs().max() <= fan_in**-0.5
        assert message.weight[:, direction].std().item() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.01)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_direction_is_told_apart(name):
    message = MESSAGES[name](6, 12, 2)
    h_v, h_u = torch.randn(2, 10, 6)
    target = torch.arange(10)
    assert message(h_v, h_u, 0, target).shape == (10, 12)
    assert not torch.allclose(message(h_v, h_u, 0, target), message(h_v, h_u, 1, target))


def test_sums_of_attentive_messages_equal_the_layer_of_torch_geometric():
    h = torch.randn(5, 6)
    message, sums = received("gatv2", h)
    layer = GATv2Conv(6, 12, add_self_loops=False)
    with torch.no_grad():
        layer.lin_l.weight.copy_(message.neighbour[0].weight)
        layer.lin_l.bias.copy_(message.neighbour[0].bias)
        layer.lin_r.weight.copy_(message.receiver[0].weight)
        layer.lin_r.bias.zero_()
        layer.att.copy_(message.score[0].weight[None])
        layer.bias.zero_()
    torch.testing.assert_close(sums, layer(h, EDGES))


def test_states_without_weights_sum_up_to_those_of_gin():
    h = torch.randn(5, 6)
    message, sums = received("neighbour_state", h)
    assert not list(message.parameters())
    assert not message.state_dict()
    torch.testing.assert_close(1.3 * h + sums[:, :6], GINConv(nn.Identity(), eps=0.3)(h, EDGES))
    assert not sums[:, 6:].any()  # the half of the other direction
