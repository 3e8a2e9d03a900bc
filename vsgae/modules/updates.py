"""Update modules U(h_v, m), equations (3) and (5) and supplement A.1: a node's next state from its state and message.

Every update begins with a linear map of the message and one of the state, as torch's recurrent cells do. The encoder
applies the first, W_ih, where it is cheapest, and the second once per state before the round; :meth:`Update.combine` is
what is left per state after it. A new update is one class here and one line in :data:`UPDATES`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

aten = torch.ops.aten


class Update(nn.Module):
    """What the encoder asks of an update, which is made from ``message_dim`` and ``node_dim``, as torch's cells are."""

    weight_ih: Tensor  #: ``[k, message_dim]``, the linear map of the message, without its bias

    def seen(self, h: Tensor) -> Tensor:
        """What messages and readouts see of states, ``[U, d_n]``: all, unless an update remembers more than a state."""
        return h

    @abstractmethod
    def state_term(self, h: Tensor) -> Tensor:
        """What is seen of the states before the round ``[U', d_n]`` -> the linear map of it ``[U', k']``."""

    @abstractmethod
    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        """The next states.

        Args:
            message_term: ``[U, k]``, W_ih m.
            state_term: ``[U', k']``.
            h: ``[U', d_n]``.
            own: int64 ``[U]``, ascending: the row of each state among the U' before the round. None where U' is U, and
                each is its own.

        Returns:
            ``[U, d_n]``.
        """


class Recurrent(Update, nn.RNNCellBase):
    """One of torch's recurrent cells, or of their weights."""

    def state_term(self, h: Tensor) -> Tensor:
        """W_hh h + b_hh."""
        return F.linear(h, self.weight_hh, self.bias_hh)


class GRU(Recurrent, nn.GRUCell):
    """``GRUCell(message_dim, d_n)`` with the node's state as hidden state, the paper's choice."""

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        dtype = self.bias_ih.dtype  # under autocast the terms come in another one; the states keep the weights'
        return _gate(message_term.to(dtype), state_term.to(dtype), h.to(dtype), self.bias_ih, own)


class Elman(Recurrent, nn.RNNCell):
    """``tanh(W_ih m + b_ih + W_hh h + b_hh)``: the recurrent cell without gates."""

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        return torch.tanh(message_term + _of(own, state_term + self.bias_ih))


class LSTM(Recurrent, nn.LSTMCell):
    """``LSTMCell(message_dim, d_n)`` with the node's state as hidden state (Hochreiter and Schmidhuber 1997).

    The cell state is the node's own: neither messages nor readouts see it. It is 0 before the first round, is carried
    from round to round as a second half of h, and is dropped after the last one; in the decoder every step begins anew.
    """

    def seen(self, h: Tensor) -> Tensor:
        """``[U, d_n]``, or ``[U, 2 d_n]`` after a round -> ``[U, d_n]``."""
        return h[:, : self.hidden_size]

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        """As :meth:`Update.combine`, with h ``[U', d_n]`` in the first round, and ``[U', 2 d_n]`` else and after it."""
        d = self.hidden_size
        memory = F.pad(h, (0, 2 * d - h.shape[1]))[:, d:]
        take, keep, new, show = (message_term + _of(own, state_term + self.bias_ih)).chunk(4, dim=1)
        memory = keep.sigmoid() * _of(own, memory) + take.sigmoid() * new.tanh()
        return torch.cat([show.sigmoid() * memory.tanh(), memory], dim=1)


class ResidualMLP(Recurrent):
    """``h + W_out ReLU(W_ih m + b_ih + W_hh h + b_hh) + b_out``: a perceptron with a hidden layer of 2 d_n, added to
    the state."""

    def __init__(self, message_dim: int, node_dim: int) -> None:
        super().__init__(message_dim, node_dim, bias=True, num_chunks=2)
        self.out = nn.Linear(2 * node_dim, node_dim)

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        hidden = torch.relu(message_term + _of(own, state_term + self.bias_ih))
        return _of(own, h) + self.out(hidden)


class Replace(Update):
    """``W_ih m + b_ih``: the message, brought to d_n, takes the place of the state.

    The old state is forgotten, also where no message comes: then the next one is the bias. In the decoder that is the
    start node, so that f_startNode has no effect.
    """

    def __init__(self, message_dim: int, node_dim: int) -> None:
        super().__init__()
        linear = nn.Linear(message_dim, node_dim)
        self.weight_ih, self.bias_ih = linear.weight, linear.bias

    def state_term(self, h: Tensor) -> Tensor:
        """Nothing: ``[U', 0]``."""
        return h[:, :0]

    def combine(self, message_term: Tensor, state_term: Tensor, h: Tensor, own: Tensor | None) -> Tensor:
        return message_term + self.bias_ih


def _of(own: Tensor | None, rows: Tensor) -> Tensor:
    """The row of each state among the rows before the round."""
    return rows if own is None else F.embedding(own, rows)


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


UPDATES: dict[str, type[Update]] = {
    "gru": GRU,
    "elman": Elman,
    "lstm": LSTM,
    "residual_mlp": ResidualMLP,
    "replace": Replace,
}
