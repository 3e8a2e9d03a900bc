"""Cells of NAS-Bench-101 as a struct of arrays.

A cell is a directed acyclic graph with at most seven nodes. Each node carries one of five operations, node 0 is the
input, node ``num_nodes - 1`` the output, and every edge leads to a later node (NAS-Bench-101, Ying et al. 2019,
section 2.1). :class:`Cells` holds N of them in three tensors; it is what every other part of the project passes around.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:  # importing torch_geometric takes as long as torch itself
    from torch_geometric.data import Data

OPERATIONS = ("input", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "output")
INPUT, OUTPUT = OPERATIONS.index("input"), OPERATIONS.index("output")
PADDING = -1
MAX_NODES = 7
MAX_EDGES = 9


@dataclass(frozen=True, eq=False)
class Cells:
    """N cells, each padded to seven nodes.

    Args:
        operations: int64 ``[N, 7]``, indices into :data:`OPERATIONS`; padding is -1.
        adjacency: bool ``[N, 7, 7]``; ``[n, u, v]`` is the edge from u to v.
        num_nodes: int64 ``[N]``, 1 to 7.

    Raises:
        ValueError: a shape or a dtype does not fit. What the tensors hold is not checked: see :func:`is_valid`.
    """

    operations: Tensor
    adjacency: Tensor
    num_nodes: Tensor

    def __post_init__(self) -> None:
        n = len(self.num_nodes)
        wanted = {
            "operations": (torch.int64, (n, MAX_NODES)),
            "adjacency": (torch.bool, (n, MAX_NODES, MAX_NODES)),
            "num_nodes": (torch.int64, (n,)),
        }
        for name, (dtype, shape) in wanted.items():
            tensor = getattr(self, name)
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be {dtype} {list(shape)} for {n} cells"
                )

    @property
    def device(self) -> torch.device:
        return self.operations.device

    @property
    def node_mask(self) -> Tensor:
        """bool ``[N, 7]``: which of the seven places hold a node."""
        return torch.arange(MAX_NODES, device=self.device) < self.num_nodes[:, None]

    @property
    def num_edges(self) -> Tensor:
        """int64 ``[N]``."""
        return self.adjacency.sum((1, 2))

    def __len__(self) -> int:
        return len(self.num_nodes)

    def __getitem__(self, index: int | slice | Tensor | np.ndarray | Sequence[int]) -> Cells:
        """The cells at ``index``; an int gives the one cell as ``Cells`` of length 1."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} cells")
            index = slice(int(index), int(index) + 1 or None)
        elif not isinstance(index, (slice, Tensor)):
            index = torch.as_tensor(np.asarray(index), device=self.device)
            index = index.long() if not len(index) else index  # numpy takes an empty list for floats
        return Cells(self.operations[index], self.adjacency[index], self.num_nodes[index])

    def __str__(self) -> str:
        """One line a cell, of the first 20: every node with its operation and, in brackets, the nodes that lead to it,
        such as ``0 input, 1 conv3x3 (0), 2 maxpool3x3 (0 1), 3 output (2)``."""
        lines = []
        for cell in (self[i] for i in range(min(len(self), 20))):
            nodes = []
            for v, code in enumerate(cell.operations[0, : int(cell.num_nodes)].tolist()):
                earlier = " ".join(map(str, cell.adjacency[0, :, v].nonzero().flatten().tolist()))
                nodes.append(f"{v} {OPERATIONS[code].removesuffix('-bn-relu')}" + (f" ({earlier})" if earlier else ""))
            lines.append(", ".join(nodes))
        if len(self) > len(lines):
            lines.append(f"... {len(self):,} cells in all")
        return "\n".join(lines)

    def to(self, device: str | torch.device) -> Cells:
        return Cells(self.operations.to(device), self.adjacency.to(device), self.num_nodes.to(device))

    def equal(self, other: Cells) -> Tensor:
        """bool ``[N]``: exactly the same cell, in the stored node order. Isomorphism: ``module_hashes``."""
        return (
            (self.num_nodes == other.num_nodes)
            & (self.operations == other.operations).all(1)
            & (self.adjacency == other.adjacency).all((1, 2))
        )

    @staticmethod
    def concatenate(parts: Iterable[Cells]) -> Cells:
        columns = zip(*((part.operations, part.adjacency, part.num_nodes) for part in parts), strict=True)
        return Cells(*(torch.cat(column) for column in columns))

    # A dense tensor: operations one-hot, then the adjacency row of the node.

    def to_dense(self) -> Tensor:
        """float32 ``[N, 7, 12]``: the operation one-hot (5), then the node's row of the adjacency (7); padding is 0."""
        one_hot = self.operations[..., None] == torch.arange(len(OPERATIONS), device=self.device)
        return torch.cat([one_hot, self.adjacency], dim=2).float()

    @staticmethod
    def from_dense(dense: Tensor) -> Cells:
        """The inverse of :meth:`to_dense`."""
        width = len(OPERATIONS) + MAX_NODES
        if dense.dim() != 3 or tuple(dense.shape[1:]) != (MAX_NODES, width):
            raise ValueError(f"a dense tensor of shape {list(dense.shape)}; it must be [N, {MAX_NODES}, {width}]")
        one_hot, adjacency = dense[..., : len(OPERATIONS)], dense[..., len(OPERATIONS) :]
        occupied = one_hot.sum(2) > 0
        operations = torch.where(occupied, one_hot.argmax(2), PADDING)
        return Cells(operations, adjacency > 0, occupied.sum(1))

    # torch_geometric

    def to_data(self) -> list[Data]:
        """One torch_geometric ``Data`` a cell: ``x`` int64 ``[n]``, its codes, and ``edge_index`` int64 ``[2, E]``."""
        from torch_geometric.data import Data

        return [
            Data(x=operations[:n], edge_index=adjacency.nonzero().t().contiguous(), num_nodes=n)
            for operations, adjacency, n in zip(self.operations, self.adjacency, self.num_nodes.tolist(), strict=True)
        ]

    @staticmethod
    def from_data(graphs: Sequence[Data]) -> Cells:
        """The inverse of :meth:`to_data`."""
        operations = torch.full((len(graphs), MAX_NODES), PADDING)
        adjacency = torch.zeros(len(graphs), MAX_NODES, MAX_NODES, dtype=torch.bool)
        num_nodes = torch.zeros(len(graphs), dtype=torch.int64)
        for i, graph in enumerate(graphs):
            codes, edges = graph.x, graph.edge_index
            assert codes is not None
            assert edges is not None
            if not 1 <= len(codes) <= MAX_NODES:
                raise ValueError(f"graph {i} has {len(codes)} nodes; a cell has 1 to {MAX_NODES}")
            operations[i, : len(codes)] = codes.view(-1)
            adjacency[i, edges[0], edges[1]] = True
            num_nodes[i] = len(codes)
        return Cells(operations, adjacency, num_nodes)

    # nasbench's own form: an upper-triangular matrix and a list of operation names.

    def to_nasbench(self) -> list[tuple[np.ndarray, list[str]]]:
        """One ``(matrix int8 [n, n], operation names [n])`` a cell."""
        return [
            (adjacency[:n, :n].astype(np.int8), [OPERATIONS[code] for code in operations[:n]])
            for operations, adjacency, n in zip(
                self.operations.tolist(), self.adjacency.cpu().numpy(), self.num_nodes.tolist(), strict=True
            )
        ]

    @staticmethod
    def from_nasbench(specs: Sequence[tuple[np.ndarray | Sequence[Sequence[int]], Sequence[str]]]) -> Cells:
        """Cells from nasbench's ``(matrix, operation names)``, as given: see :func:`prune` for what nasbench does next.

        Raises:
            ValueError: a matrix that is not square, 0/1 and strictly upper triangular, an unknown operation, a first or
                last node that is not input or output, or more than seven nodes; the message names the cell.
        """
        operations = torch.full((len(specs), MAX_NODES), PADDING)
        adjacency = torch.zeros(len(specs), MAX_NODES, MAX_NODES, dtype=torch.bool)
        for i, (matrix, names) in enumerate(specs):
            matrix, n = np.asarray(matrix), len(names)
            if not 2 <= n <= MAX_NODES or matrix.shape != (n, n):
                raise ValueError(
                    f"cell {i}: a {matrix.shape} matrix with {n} operations; allowed are 2 to {MAX_NODES} nodes"
                )
            if not np.isin(matrix, (0, 1)).all() or np.tril(matrix).any():
                raise ValueError(f"cell {i}: matrix {matrix.tolist()} is not 0/1 and strictly upper triangular")
            unknown = [name for name in names if name not in OPERATIONS]
            if unknown:
                raise ValueError(f"cell {i}: operation {unknown[0]!r}; allowed are {', '.join(OPERATIONS)}")
            if names[0] != "input" or names[-1] != "output":
                raise ValueError(f"cell {i}: operations {list(names)} must begin with 'input' and end with 'output'")
            operations[i, :n] = torch.tensor([OPERATIONS.index(name) for name in names])
            adjacency[i, :n, :n] = torch.from_numpy(matrix.astype(bool))
        return Cells(operations, adjacency, (operations != PADDING).sum(1))


def prune(cells: Cells) -> tuple[Cells, Tensor]:
    """Remove the nodes that lie on no path from input to output, as nasbench's ``ModelSpec`` does.

    Returns:
        The pruned cells and bool ``[N]``, whether the output can be reached from the input at all. A cell where it
        cannot (which nasbench calls an invalid spec) is left as it was.
    """
    rows = torch.arange(len(cells), device=cells.device)
    from_input = torch.zeros_like(cells.node_mask)
    to_output = torch.zeros_like(cells.node_mask)
    from_input[:, 0] = True
    to_output[rows, cells.num_nodes - 1] = True
    for _ in range(MAX_NODES - 1):
        from_input = from_input | (from_input[:, :, None] & cells.adjacency).any(1)
        to_output = to_output | (cells.adjacency & to_output[:, None, :]).any(2)
    connected = from_input[rows, cells.num_nodes - 1]
    kept = torch.where(connected[:, None], from_input & to_output, cells.node_mask)
    order = torch.argsort((~kept).int(), dim=1, stable=True)  # kept nodes first, in their order
    num_nodes = kept.sum(1)
    occupied = torch.arange(MAX_NODES, device=cells.device) < num_nodes[:, None]
    operations = torch.where(occupied, cells.operations.gather(1, order), PADDING)
    adjacency = cells.adjacency[rows[:, None, None], order[:, :, None], order[:, None, :]]
    adjacency = adjacency & occupied[:, :, None] & occupied[:, None, :]
    return Cells(operations, adjacency, num_nodes), connected


def validity_checks(cells: Cells) -> dict[str, Tensor]:
    """The five checks of the paper's section 7.2, each bool ``[N]``, by name and in its order."""
    operations, adjacency, nodes = cells.operations, cells.adjacency, cells.node_mask
    is_input, is_output = nodes & (operations == INPUT), nodes & (operations == OUTPUT)
    paths = adjacency.float()
    for _ in range(3):  # adjacency to the power 8: not zero only where a walk never ends
        paths = (paths @ paths).clamp(max=1)
    return {
        "one_input": is_input.sum(1) == 1,
        "one_output": is_output.sum(1) == 1,
        "predecessors": (adjacency.any(1) | is_input | ~nodes).all(1),
        "successors": (adjacency.any(2) | is_output | ~nodes).all(1),
        "acyclic": ~paths.any(2).any(1),
    }


def is_valid(cells: Cells) -> Tensor:
    """bool ``[N]``: all five checks of the paper's section 7.2 hold."""
    return torch.stack(list(validity_checks(cells).values())).all(0)


def is_nasbench101(cells: Cells) -> Tensor:
    """bool ``[N]``: a cell of NAS-Bench-101.

    Valid, with at most nine edges, strictly upper triangular, the input first and the output last. At most seven nodes
    are the limit of :class:`Cells` itself.
    """
    rows = torch.arange(len(cells), device=cells.device)
    return (
        is_valid(cells)
        & (cells.num_nodes >= 2)
        & (cells.num_edges <= MAX_EDGES)
        & (cells.operations[:, 0] == INPUT)
        & (cells.operations[rows, cells.num_nodes - 1] == OUTPUT)
        & ~cells.adjacency.tril().any(2).any(1)
    )
