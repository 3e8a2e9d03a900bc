"""The edit distance of cells, by which the paper's edit sampling spreads its samples (section 6.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from vsgae.cells import INPUT, MAX_NODES, OPERATIONS, OUTPUT, PADDING, Cells


def edit_distance(a: Cells, b: Cells) -> Tensor:
    """int64 ``[N]``: differing operations plus differing edges of ``a[n]`` and ``b[n]``, in the stored node order.

    Raises:
        ValueError: two cells differ in length; the distance is defined for cells of one length only.
    """
    differ = (a.num_nodes != b.num_nodes).nonzero()
    if len(differ):
        n = int(differ[0])
        raise ValueError(f"pair {n} has {a.num_nodes[n]} and {b.num_nodes[n]} nodes; they must be of the same length")
    return (a.operations != b.operations).sum(1) + (a.adjacency != b.adjacency).sum((1, 2))


def reference_cells(num_nodes: Tensor) -> Cells:
    """For each length the first cell of that length in the enumeration: a chain of 3x3 convolutions."""
    nodes = torch.arange(MAX_NODES, device=num_nodes.device)
    last = num_nodes[:, None] - 1
    operations = torch.full((len(num_nodes), MAX_NODES), OPERATIONS.index("conv3x3-bn-relu"), device=num_nodes.device)
    operations = operations.masked_fill(nodes == 0, INPUT).masked_fill(nodes == last, OUTPUT)
    operations = operations.masked_fill(nodes > last, PADDING)
    chain = nodes[:, None] + 1 == nodes
    return Cells(operations, chain & (nodes <= last)[:, None, :], num_nodes)
