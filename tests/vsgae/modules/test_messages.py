import pytest
import torch

from vsgae.modules import MESSAGES


@pytest.mark.parametrize(("name", "fan_in"), [("concat_linear", 500), ("neighbour_linear", 250)])
def test_a_linear_message_starts_as_torchs_linear_layer_does(name, fan_in):
    torch.manual_seed(0)
    message = MESSAGES[name](250, 500, 2)
    for direction in range(2):
        for parameter in (message.weight[:, direction], message.bias[direction]):
            assert 0.9 * fan_in**-0.5 < parameter.abs().max() <= fan_in**-0.5
        assert message.weight[:, direction].std().item() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.01)


@pytest.mark.parametrize("name", MESSAGES)
def test_each_direction_has_weights_of_its_own(name):
    message = MESSAGES[name](6, 4, 2)
    h_v, h_u = torch.randn(2, 10, 6)
    assert message(h_v, h_u, 0).shape == (10, 4)
    assert not torch.allclose(message(h_v, h_u, 0), message(h_v, h_u, 1))
