import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vsgae.modules import UPDATES

OWN = torch.tensor([0, 0, 2, 2, 2, 3])  # of five old states, one is used once, two never


def terms(name):
    """An update, six messages and five states; with an LSTM, states that have been through a round."""
    torch.manual_seed(0)
    update = UPDATES[name](6, 4).double()
    m, h = torch.randn(len(OWN), 6).double(), torch.randn(5, 8 if name == "lstm" else 4).double()
    return update, m, h


def combined(update, m, h):
    return update.combine(m @ update.weight_ih.T, update.state_term(update.seen(h)), h, OWN)


def by_torch(name, update, m, h):
    """The same of whole states, one a message."""
    if name == "lstm":
        return torch.cat(nn.LSTMCell.forward(update, m, (h[:, :4], h[:, 4:])), dim=1)
    if name == "residual_mlp":
        both = torch.cat([update.weight_ih, update.weight_hh], dim=1)
        return h + update.out(F.linear(torch.cat([m, h], dim=1), both, update.bias_ih + update.bias_hh).relu())
    if name == "replace":
        return F.linear(m, update.weight_ih, update.bias_ih)
    return {"gru": nn.GRUCell, "elman": nn.RNNCell}[name].forward(update, m, h)


@pytest.mark.parametrize("name", UPDATES)
def test_the_split_form_equals_torchs_own_cell(name):
    update, m, h = terms(name)
    torch.testing.assert_close(combined(update, m, h), by_torch(name, update, m, h[OWN]))


@pytest.mark.parametrize("name", UPDATES)
def test_the_gradient_equals_finite_differences(name):
    update, m, h = terms(name)
    # gradcheck moves the parameters in place, so that the closure sees them
    inputs = [m.requires_grad_(), h.requires_grad_(), *update.parameters()]
    assert torch.autograd.gradcheck(lambda m, h, *_: combined(update, m, h), inputs)


def test_an_lstms_cell_state_starts_at_0_and_is_not_seen():
    update, m, h = terms("lstm")
    fresh = combined(update, m, h[:, :4])
    torch.testing.assert_close(fresh, combined(update, m, torch.cat([h[:, :4], torch.zeros_like(h[:, 4:])], 1)))
    assert fresh.shape == (6, 8)
    assert torch.equal(update.seen(h), h[:, :4])
