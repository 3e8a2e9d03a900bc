"""Update modules U(h_v, m), equations (3) and (5) and supplement A.1: a node's next state from its state and message.

Every update begins with a linear map of the message and one of the state, as torch's recurrent cells do. The encoder
applies the first, W_ih, where it is cheapest; :meth:`state_term` is the second, with the biases, once per state before
the round; :meth:`combine` is what is left per state after it. A new update is one class here and one line in
:data:`UPDATES`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

aten = torch.ops.aten


class GRU(nn.GRUCell):
    """``GRUCell(message_dim, d_n)`` with the node's state as hidden state, the paper's choice."""

    def state_term(self, h: Tensor) -> Tensor:
        """``[U', d_n]`` -> ``[U', 3 d_n]``: W_hh h + b_hh, and for the two gates + b_ih."""
        bias_of_gates = F.pad(self.bias_ih[: 2 * self.hidden_size], (0, self.hidden_size))
        return F.linear(h, self.weight_hh, self.bias_hh + bias_of_gates)

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor) -> Tensor:
        """``[U, 3 d_n]`` = W_ih m; ``[U', 3 d_n]``; ``[U', d_n]``; int64 ``[U]``, rows of these, ascending.

        Returns:
            ``[U, d_n]``.
        """
        return _gate(message_term, state_term, h, self.bias_ih[2 * self.hidden_size :], own)


class Elman(nn.RNNCell):
    """``tanh(W_ih m + b_ih + W_hh h + b_hh)``: the recurrent cell without gates."""

    def state_term(self, h: Tensor) -> Tensor:
        """``[U', d_n]`` -> ``[U', d_n]``: W_hh h and both biases."""
        return F.linear(h, self.weight_hh, self.bias_hh + self.bias_ih)

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor) -> Tensor:
        """``[U, d_n]`` = W_ih m; ``[U', d_n]``; ``[U', d_n]``; int64 ``[U]``, rows of these, ascending.

        Returns:
            ``[U, d_n]``.
        """
        return torch.tanh(message_term + F.embedding(own, state_term))


class _Gate(torch.autograd.Function):
    """The element-wise half of a GRU cell, with its gradient by hand: autograd's would copy each of the slices.

    ``r, z = sigmoid(x_r + g_r), sigmoid(x_z + g_z);  n = tanh(x_n + b + r g_n);  h' = n + z (h - n)``, with x the
    message's term, g the state's term and h the state; row ``own[i]`` of g and h belongs to row i of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, h: Tensor, b: Tensor, own: Tensor) -> Tensor:
        d, ctx.num_old = h.shape[1], len(h)
        g, h = F.embedding(own, g), F.embedding(own, h)
        gates = torch.sigmoid_(x[:, : 2 * d] + g[:, : 2 * d])
        reset, keep = gates.split(d, dim=1)
        n = torch.addcmul(x[:, 2 * d :], reset, g[:, 2 * d :]).add_(b).tanh_()
        ctx.save_for_backward(gates, n, g, h, own)
        return torch.lerp(n, h, keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gates, n, g, h, own = ctx.saved_tensors
        d = h.shape[1]
        reset, keep = gates.split(d, dim=1)
        grad_x, grad_n_h = torch.empty_like(g), torch.empty_like(gates)  # of x, and of g_n and h
        grad_gates, grad_n = grad_x.split([2 * d, d], dim=1)
        grad_h = torch.mul(grads[0], keep, out=grad_n_h[:, d:])
        aten.tanh_backward.grad_input(grads[0] - grad_h, n, grad_input=grad_n)
        torch.mul(grad_n, g[:, 2 * d :], out=grad_gates[:, :d])
        torch.mul(grads[0], h - n, out=grad_gates[:, d:])
        aten.sigmoid_backward.grad_input(grad_gates, gates, grad_input=grad_gates)
        torch.mul(grad_n, reset, out=grad_n_h[:, :d])
        each = torch.arange(len(own), device=own.device)
        offsets = F.pad(own.bincount(minlength=ctx.num_old).cumsum(0), (1, 0))  # own is ascending
        old_x, old_n_h = (
            F.embedding_bag(each, grad, offsets, mode="sum", include_last_offset=True) for grad in (grad_x, grad_n_h)
        )
        return grad_x, torch.cat([old_x[:, : 2 * d], old_n_h[:, :d]], dim=1), old_n_h[:, d:], grad_n.sum(0), None


_gate = _Gate.apply


UPDATES: dict[str, type[GRU] | type[Elman]] = {"gru": GRU, "elman": Elman}
