"""What the surrogate's trees see of a cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vsgae.cells import MAX_NODES, OPERATIONS, Cells
from vsgae.features import along_paths, at_output, cell_features
from vsgae.nasbench101.network import STEM_CHANNELS, trainable_parameters, vertex_channels

SHORT = [name.split("-")[0] for name in OPERATIONS]
FAR = MAX_NODES  # the depth of an operation that a cell lacks: no node is as deep


def surrogate_features(cells: Cells) -> dict[str, np.ndarray]:
    """float32 ``[N]`` each, by name; invariant under a relabelling of a cell's nodes but for the widths and the size of
    the network, where the first of several nodes takes a channel more.

    Those of :func:`~vsgae.features.cell_features`; the size of the network and how wide each operation is in it; the
    number of paths of every length; the depth and the degrees of each operation; and how often one operation follows
    another directly, with any one between, and with a certain one between.
    """
    operations = torch.nn.functional.one_hot(cells.operations.clamp(min=0), len(OPERATIONS)).float()
    operations *= cells.node_mask[..., None]
    edges = cells.adjacency.float()
    one = torch.ones_like(cells.operations)
    width, depth = vertex_channels(cells, STEM_CHANNELS), along_paths(cells, one, "most")
    columns: dict[str, Tensor] = {"log_parameters": trainable_parameters(cells).float().log()}
    columns |= {f"paths_of_{length}": count for length, count in enumerate(_paths_by_length(cells))}
    convolution = (cells.operations == 1) | (cells.operations == 2)
    for what in ("most", "fewest"):
        columns[f"convolutions_{what}"] = at_output(cells, along_paths(cells, convolution.long(), what))
    for code, name in list(enumerate(SHORT))[1:-1]:
        here = cells.operations == code
        columns |= {
            f"{name}_widest": (width * here).amax(1),
            f"{name}_width": (width * here).sum(1),
            f"{name}_depth": (depth * here).sum(1),
            f"{name}_deepest": (depth * here).amax(1),
            f"{name}_first": torch.where(here, depth, FAR).amin(1),
            f"{name}_predecessors": (edges.sum(1) * here).sum(1),
            f"{name}_successors": (edges.sum(2) * here).sum(1),
        }
    pairs = operations.transpose(1, 2) @ edges @ operations
    apart = operations.transpose(1, 2) @ edges @ edges @ operations
    for first, last in np.ndindex(pairs.shape[1:]):
        columns[f"{SHORT[first]}>{SHORT[last]}"] = pairs[:, first, last]
        columns[f"{SHORT[first]}>any>{SHORT[last]}"] = apart[:, first, last]
    into, out = operations.transpose(1, 2) @ edges, edges @ operations
    for middle, name in list(enumerate(SHORT))[1:-1]:
        chains = (into * operations[:, None, :, middle]) @ out
        for first, last in np.ndindex(chains.shape[1:]):
            columns[f"{SHORT[first]}>{name}>{SHORT[last]}"] = chains[:, first, last]
    impossible = (f">{SHORT[0]}", f"{SHORT[-1]}>")  # nothing leads into an input, nor on from an output
    kept = {name: column for name, column in columns.items() if not any(part in name for part in impossible)}
    return cell_features(cells) | {name: column.float().numpy(force=True) for name, column in kept.items()}


def _paths_by_length(cells: Cells) -> Tensor:
    """int64 ``[7, N]``: the paths from input to output that have 0, 1, ..., 6 edges."""
    ending = torch.zeros(MAX_NODES, *cells.operations.shape, dtype=torch.int64, device=cells.device)
    ending[0, :, 0] = 1
    for length in range(1, MAX_NODES):
        ending[length] = (ending[length - 1][:, :, None] * cells.adjacency).sum(1)
    return torch.stack([at_output(cells, paths) for paths in ending])
