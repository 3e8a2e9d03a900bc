"""The network that a cell makes in NAS-Bench-101: its width at every node, and its size."""

from __future__ import annotations

import torch
from torch import Tensor

from vsgae.cells import MAX_NODES, OPERATIONS, Cells

STEM_CHANNELS = 128  # doubled at every stack but the first
STACKS, CELLS_IN_A_STACK = 3, 3
IMAGE_CHANNELS, CLASSES = 3, 10


def vertex_channels(cells: Cells, channels: int) -> Tensor:
    """int64 ``[N, 7]``: the channels of every inner node in a cell that puts out ``channels``; 0 for other nodes.

    The output concatenates its inner predecessors, so they share its channels, the first ones taking the remainder;
    any other node is as wide as the widest of its inner successors (Ying et al. 2019, supplement S2).
    """
    places, last = torch.arange(MAX_NODES, device=cells.device), cells.num_nodes[:, None] - 1
    inner = (places > 0) & (places < last)
    at_end = cells.adjacency.gather(2, last[:, None].expand(-1, MAX_NODES, 1)).squeeze(2) & inner
    sharing = at_end.sum(1, keepdim=True).clamp(min=1)
    rank = at_end.cumsum(1) - 1
    width = torch.where(at_end, channels // sharing + (rank < channels % sharing), 0)
    for v in reversed(range(1, MAX_NODES - 1)):
        widest = (cells.adjacency[:, v] * width).amax(1)
        width[:, v] = torch.where(inner[:, v] & ~at_end[:, v], widest, width[:, v])
    return width


def trainable_parameters(cells: Cells) -> Tensor:
    """int64 ``[N]``: of the whole network, batch normalisation included."""
    convolution_3x3, convolution_1x1 = (cells.operations == OPERATIONS.index(name) for name in OPERATIONS[1:3])
    skips = cells.adjacency[torch.arange(len(cells)), 0, cells.num_nodes - 1]
    total = _convolution(3, IMAGE_CHANNELS, STEM_CHANNELS) * torch.ones_like(cells.num_nodes)
    before = STEM_CHANNELS
    for stack in range(STACKS):
        channels = STEM_CHANNELS * 2**stack
        width = vertex_channels(cells, channels)
        inside = torch.where(convolution_3x3, _convolution(3, width, width), 0)
        inside += torch.where(convolution_1x1, _convolution(1, width, width), 0)
        for _ in range(CELLS_IN_A_STACK):
            projections = cells.adjacency[:, 0] * _convolution(1, before, width)
            total += (inside + projections).sum(1) + skips * _convolution(1, before, channels)
            before = channels
    return total + (before + 1) * CLASSES


def _convolution(kernel: int, before: int | Tensor, after: int | Tensor) -> int | Tensor:
    """Weights without a bias, then the scale and the shift of a batch normalisation."""
    return kernel * kernel * before * after + 2 * after
