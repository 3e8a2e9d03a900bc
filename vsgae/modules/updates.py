"""Update modules U(h_v, m), equations (3) and (5) and supplement A.1: a node's next state from its state and message.

Every update begins with a linear map of the message and one of the state, as torch's recurrent cells do. The encoder
applies the first, W_ih, where it is cheapest, and the second once per state before the round; :meth:`combine` is what
is left per state after it. A new update is one class here and one line in :data:`UPDATES`.
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

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        """The next states.

        Args:
            message_term: ``[U, 3 d_n]``, W_ih m.
            state_term: ``[U', 3 d_n]``, W_hh h + b_hh.
            h: ``[U', d_n]``.
            own: int64 ``[U]``, ascending: the row of each state among the U' before the round. None where U' is U, and
                each is its own.

        Returns:
            ``[U, d_n]``.
        """
        dtype = self.bias_ih.dtype  # under autocast the terms come in another one; the states keep the weights'
        return _gate(message_term.to(dtype), state_term.to(dtype), h.to(dtype), self.bias_ih, own)


class Elman(nn.RNNCell):
    """``tanh(W_ih m + b_ih + W_hh h + b_hh)``: the recurrent cell without gates."""

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        """As :meth:`GRU.combine`, with terms of width d_n."""
        state_term = state_term + self.bias_ih
        return torch.tanh(message_term + (state_term if own is None else F.embedding(own, state_term)))


class _Gate(torch.autograd.Function):
    """The element-wise half of a GRU cell, with its gradient by hand: autograd's would copy each of the slices.

    ``r, z = sigmoid(x_r + b_r + g_r), sigmoid(x_z + b_z + g_z);  n = tanh(x_n + b_n + r g_n);  h' = n + z (h - n)``,
    with x the message's term, g the state's term and h the state. Row ``own[i]`` of g and h belongs to row i of x, or
    row i where ``own`` is None.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, h: Tensor, b: Tensor, own: Tensor | None) -> Tensor:
        d, ctx.num_old = h.shape[1], len(h)
        g = g + F.pad(b[: 2 * d], (0, d))
        if own is not None:
            g, h = F.embedding(own, g), F.embedding(own, h)
        gates = torch.sigmoid_(x[:, : 2 * d] + g[:, : 2 * d])
        reset, keep = gates.split(d, dim=1)
        n = torch.addcmul(x[:, 2 * d :], reset, g[:, 2 * d :]).add_(b[2 * d :]).tanh_()
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
        if own is None:
            return grad_x, torch.cat([grad_gates, grad_n_h[:, :d]], dim=1), grad_n_h[:, d:], grad_x.sum(0), None
        each = torch.arange(len(own), device=own.device)
        offsets = F.pad(own.bincount(minlength=ctx.num_old).cumsum(0), (1, 0))  # own is ascending
        old_x, old_n_h = (
            F.embedding_bag(each, grad, offsets, mode="sum", include_last_offset=True) for grad in (grad_x, grad_n_h)
        )
        return grad_x, torch.cat([old_x[:, : 2 * d], old_n_h[:, :d]], dim=1), old_n_h[:, d:], grad_x.sum(0), None


_gate = _Gate.apply


UPDATES: dict[str, type[GRU] | type[Elman]] = {"gru": GRU, "elman": Elman}
