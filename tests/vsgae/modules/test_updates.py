import pytest
import torch

from vsgae.modules import UPDATES

OWN = torch.tensor([0, 0, 2, 2, 2, 3])  # of five old states, one is used once, two never


def terms(name):
    torch.manual_seed(0)
    update = UPDATES[name](6, 4).double()
    m, h = torch.randn(len(OWN), 6).double(), torch.randn(5, 4).double()
    return update, m, h


@pytest.mark.parametrize("name", UPDATES)
def test_the_split_form_equals_torchs_own_cell(name):
    update, m, h = terms(name)
    combined = update.combine(m @ update.weight_ih.T, h @ update.weight_hh.T + update.bias_hh, h, OWN)
    torch.testing.assert_close(combined, update(m, h[OWN]))


@pytest.mark.parametrize("name", UPDATES)
def test_the_gradient_equals_finite_differences(name):
    update, m, h = terms(name)

    def combined(m, h, *_):
        return update.combine(m @ update.weight_ih.T, h @ update.weight_hh.T + update.bias_hh, h, OWN)

    # gradcheck moves the parameters in place, so that the closure sees them
    assert torch.autograd.gradcheck(combined, [m.requires_grad_(), h.requires_grad_(), *update.parameters()])
