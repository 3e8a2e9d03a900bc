"""Simple hand-made features of a cell: counts, path lengths and the operations on paths."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vsgae.cells import MAX_NODES, OPERATIONS, Cells


def cell_features(cells: Cells) -> dict[str, np.ndarray]:
    """float32 ``[N]`` each, by name, for cells of NAS-Bench-101; invariant under a relabelling of their nodes."""
    columns: dict[str, Tensor] = {
        "nodes": cells.num_nodes,
        "edges": cells.num_edges,
        "input_successors": cells.adjacency[:, 0].sum(1),
        "output_predecessors": at_output(cells, cells.adjacency.sum(1)),
        "skip": at_output(cells, cells.adjacency[:, 0]),
        "paths": at_output(cells, along_paths(cells, None, "count")),
        "longest_path": at_output(cells, along_paths(cells, torch.ones_like(cells.operations), "most")),
        "shortest_path": at_output(cells, along_paths(cells, torch.ones_like(cells.operations), "fewest")),
    }
    before_output = cells.adjacency[torch.arange(len(cells)), :, cells.num_nodes - 1]
    for name in OPERATIONS[1:-1]:
        here = (cells.operations == OPERATIONS.index(name)).long()
        short = name.split("-")[0]
        columns[short] = here.sum(1)
        columns[f"{short}_most_on_a_path"] = at_output(cells, along_paths(cells, here, "most"))
        columns[f"{short}_fewest_on_a_path"] = at_output(cells, along_paths(cells, here, "fewest"))
        columns[f"{short}_after_input"] = (here * cells.adjacency[:, 0]).sum(1)
        columns[f"{short}_before_output"] = (here * before_output).sum(1)
    return {name: column.float().numpy(force=True) for name, column in columns.items()}


def at_output(cells: Cells, per_node: Tensor) -> Tensor:
    """``[N, 7]`` -> ``[N]``: the value of each cell's output node."""
    return per_node.gather(1, cells.num_nodes[:, None] - 1).squeeze(1)


def along_paths(cells: Cells, weight: Tensor | None, what: str) -> Tensor:
    """int64 ``[N, 7]``: of the paths from the input to each node their number, or the most or least ``weight``."""
    n = len(cells)
    if what == "count":
        value = torch.zeros(n, MAX_NODES, dtype=torch.int64, device=cells.device)
        value[:, 0] = 1
        for v in range(1, MAX_NODES):
            value[:, v] = (value[:, :v] * cells.adjacency[:, :v, v]).sum(1)
        return value
    assert weight is not None
    unreached = -MAX_NODES - 1 if what == "most" else MAX_NODES + 1
    best = torch.amax if what == "most" else torch.amin
    value = torch.full((n, MAX_NODES), unreached, device=cells.device)
    value[:, 0] = 0
    for v in range(1, MAX_NODES):
        reached = torch.where(cells.adjacency[:, :v, v], value[:, :v], unreached)
        value[:, v] = best(reached, 1) + weight[:, v]
    return value
