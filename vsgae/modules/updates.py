"""Update modules U(h_v, m), equations (3) and (5) and supplement A.1: a node's next state from its state and message.

Every update begins with a linear map of the message and one of the state, as torch's recurrent cells do. The encoder
applies the first where it is cheapest and the second once per distinct state; :meth:`combine` is what is left per node.
A new update is one class here and one line in :data:`UPDATES`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GRU(nn.GRUCell):
    """``GRUCell(message_dim, d_n)`` with the node's state as hidden state, the paper's choice."""

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor) -> Tensor:
        """``[U, 3 d_n]`` = W_ih m + b_ih, ``[U, 3 d_n]`` = W_hh h + b_hh, ``[U, d_n]`` -> ``[U, d_n]``."""
        return _gate(message_term, state_term, h)


class Elman(nn.RNNCell):
    """``tanh(W_ih m + b_ih + W_hh h + b_hh)``: the recurrent cell without gates."""

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor) -> Tensor:
        """``[U, d_n]``, ``[U, d_n]``, ``[U, d_n]`` -> ``[U, d_n]``."""
        return torch.tanh(message_term + state_term)


class _Gate(torch.autograd.Function):
    """The element-wise half of a GRU cell. Its gradient by hand, since autograd's would copy each of the three slices.

    ``r, z = sigmoid(x_r + g_r), sigmoid(x_z + g_z);  n = tanh(x_n + r g_n);  h' = n + z (h - n)``
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, h: Tensor) -> Tensor:
        d = h.shape[1]
        gates = torch.sigmoid_(x[:, : 2 * d] + g[:, : 2 * d])
        reset, keep = gates[:, :d], gates[:, d:]
        candidate = torch.addcmul(x[:, 2 * d :], reset, g[:, 2 * d :]).tanh_()
        ctx.save_for_backward(gates, candidate, g, h)
        return torch.lerp(candidate, h, keep)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates, candidate, g, h = ctx.saved_tensors
        d = h.shape[1]
        reset, keep = gates[:, :d], gates[:, d:]
        grad_h = grads[0] * keep
        grad_x = torch.empty_like(g)
        grad_n = torch.mul(grads[0] - grad_h, 1 - candidate * candidate, out=grad_x[:, 2 * d :])
        torch.mul(grad_n, g[:, 2 * d :], out=grad_x[:, :d])
        torch.mul(grads[0], h - candidate, out=grad_x[:, d : 2 * d])
        grad_x[:, : 2 * d].mul_(gates * (1 - gates))
        grad_g = grad_x.clone()
        grad_g[:, 2 * d :].mul_(reset)
        return grad_x, grad_g, grad_h


_gate = _Gate.apply


UPDATES: dict[str, type[GRU] | type[Elman]] = {"gru": GRU, "elman": Elman}
