import pytest
import torch

from vsgae.modules import MESSAGES, UPDATES


@pytest.mark.parametrize("name", UPDATES)
def test_the_split_form_equals_torchs_own_cell(name):
    torch.manual_seed(0)
    update = UPDATES[name](6, 4).double()
    m, h = torch.randn(10, 6).double(), torch.randn(10, 4).double()
    parts = m @ update.weight_ih.T + update.bias_ih, h @ update.weight_hh.T + update.bias_hh
    torch.testing.assert_close(update.combine(*parts, h), update(m, h))


@pytest.mark.parametrize("name", UPDATES)
def test_the_gradient_by_hand_equals_finite_differences(name):
    torch.manual_seed(0)
    update = UPDATES[name](6, 4).double()
    width = len(update.weight_ih)
    parts = [torch.randn(5, n, dtype=torch.float64, requires_grad=True) for n in (width, width, 4)]
    assert torch.autograd.gradcheck(update.combine, parts)


@pytest.mark.parametrize(("name", "fan_in"), [("concat_linear", 500), ("neighbour_linear", 250)])
def test_a_linear_message_starts_as_torchs_linear_layer_does(name, fan_in):
    torch.manual_seed(0)
    message = MESSAGES[name](250, 500)
    for parameter in (message.weight, message.bias):
        assert 0.9 * fan_in**-0.5 < parameter.abs().max() <= fan_in**-0.5
    assert message.weight.std().item() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.01)
