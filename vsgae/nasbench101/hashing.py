"""NAS-Bench-101's module hash: an MD5 that isomorphic cells share, by which the benchmark names them.

A vertex starts with the MD5 of its out-degree, in-degree and label. In as many rounds as the cell has vertices, each
takes the MD5 of its predecessors' hashes, its successors' and its own. The MD5 of the sorted list is the cell's (Ying
et al. 2019, section 2.1). The whole space takes 20 million MD5s, so those of equal length are computed together.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vsgae.cells import INPUT, OPERATIONS, OUTPUT, Cells
from vsgae.nasbench101 import md5

LABELS = np.array([{INPUT: -1, OUTPUT: -2}.get(code, code - 1) for code in range(len(OPERATIONS))])
CHUNK = 16384  # cells at a time, to bound the memory


def module_hashes(cells: Cells) -> list[str]:
    """The benchmark's hash of each cell as it stands, 32 hexadecimal digits; nasbench hashes what ``prune`` leaves.

    Every graph has one, a cell of NAS-Bench-101 or not. A node's label is its operation, wherever it stands.

    Raises:
        ValueError: a cell without nodes, or a node without an operation.
    """
    hashes = np.empty(len(cells), "S32")
    for index, found in iterate_module_hashes(cells):
        hashes[index] = found
    return hashes.astype(str).tolist()


def iterate_module_hashes(cells: Cells) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and the hashes there, bytes ``S32``, a chunk at a time: for a caller who shows progress."""
    operations, adjacency = cells.operations.cpu().numpy(), cells.adjacency.cpu().numpy()
    num_nodes = cells.num_nodes.cpu().numpy()
    known = (operations >= 0) & (operations < len(OPERATIONS)) | ~cells.node_mask.cpu().numpy()
    bad = np.flatnonzero(~known.all(1) | (num_nodes < 1))
    if len(bad):
        raise ValueError(
            f"cell {bad[0]} has {num_nodes[bad[0]]} nodes and the operations {operations[bad[0]].tolist()}; "
            f"every node needs one of 0 to {len(OPERATIONS) - 1}, and a cell needs a node"
        )
    for nodes in np.unique(num_nodes):
        of_length = np.flatnonzero(num_nodes == nodes)
        for index in np.split(of_length, range(CHUNK, len(of_length), CHUNK)):
            yield index, _hashes(LABELS[operations[index, :nodes]], adjacency[index, :nodes, :nodes])


def _hashes(labels: np.ndarray, adjacency: np.ndarray) -> np.ndarray:
    """S32 ``[N]`` for N cells of one length: labels int64 ``[N, v]``, adjacency bool ``[N, v, v]``."""
    n, nodes = labels.shape
    number, groups = _group_vertices(adjacency)
    hashes = np.empty((8, number.size), np.uint32)
    hashes[:, number.ravel()] = _first_hashes(adjacency.sum(2).ravel(), adjacency.sum(1).ravel(), labels.ravel())
    for _ in range(nodes):
        hashes = _next_hashes(hashes, _sort(number, hashes), groups)
    length = 36 * nodes  # "['...', '...']"
    words = np.zeros((16 * md5.num_blocks(length), n), np.uint32)
    for place, vertices in enumerate(_sort(number, hashes).T):
        md5.write(words, 36 * place, md5.words_of(b" '" if place else b"['"))
        md5.write(words, 36 * place + 2, hashes.take(vertices, axis=1))
        md5.write(words, 36 * place + 34, md5.words_of(b"'," if place < nodes - 1 else b"']"))
    md5.close(words, length)
    return _strings(md5.hexdigests(words))


@dataclass(frozen=True)
class _Group:
    """Successive vertices of i predecessors and o successors each, and these, int64 ``[i, G]`` and ``[o, G]``."""

    vertices: slice
    predecessors: np.ndarray
    successors: np.ndarray

    @property
    def length(self) -> int:
        """Characters of a message: the hashes of the neighbours and the vertex, with a bar on either side between."""
        return 32 * (len(self.predecessors) + len(self.successors) + 1) + 2


def _group_vertices(adjacency: np.ndarray) -> tuple[np.ndarray, list[_Group]]:
    """Number the vertices of all cells, int64 ``[N, v]``, so that each group has successive ones.

    The groups are ordered by the length of their messages.
    """
    into, out = adjacency.sum(1).ravel(), adjacency.sum(2).ravel()
    kind = (into + out) * (adjacency.shape[1] + 1) + into
    order = kind.argsort(kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    number = number.reshape(adjacency.shape[:2])
    predecessors, successors = (
        number[cell, other] for cell, _, other in (adjacency.transpose(0, 2, 1).nonzero(), adjacency.nonzero())
    )  # of all vertices, one after the other
    first_in, first_out = (into.cumsum() - into)[order], (out.cumsum() - out)[order]
    starts = np.flatnonzero(np.diff(kind[order], prepend=-1)).tolist()
    groups = []
    for vertices in itertools.starmap(slice, itertools.pairwise([*starts, len(order)])):
        vertex = order[vertices.start]
        groups.append(
            _Group(
                vertices,
                predecessors[first_in[vertices] + np.arange(into[vertex])[:, None]],
                successors[first_out[vertices] + np.arange(out[vertex])[:, None]],
            )
        )
    return number, groups


def _first_hashes(out: np.ndarray, into: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Words ``[8, N]``: the hashes of ``(out-degree, in-degree, label)``. Few differ, so plain Python serves."""
    _, first, index = np.unique((out * 8 + into) * 8 - labels, return_index=True, return_inverse=True)
    rows = np.stack([out[first], into[first], labels[first]], 1).tolist()
    digits = "".join(hashlib.md5(str(tuple(row)).encode()).hexdigest() for row in rows)
    return np.frombuffer(digits.encode(), "<u4").reshape(-1, 8).T.take(index, axis=1)


def _sort(number: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """The numbers of each cell's vertices, int64 ``[N, v]``, in the order of their hashes."""
    return np.take_along_axis(number, _strings(hashes)[number].argsort(1), 1)


def _next_hashes(hashes: np.ndarray, order: np.ndarray, groups: list[_Group]) -> np.ndarray:
    """One round: words ``[8, N]`` to words ``[8, N]``, with the vertices of each cell in ``order``."""
    order = order.ravel()
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    following = np.empty_like(hashes)
    for blocks, batch in itertools.groupby(groups, lambda group: md5.num_blocks(group.length)):
        members = list(batch)
        start, stop = members[0].vertices.start, members[-1].vertices.stop
        words = np.zeros((16 * blocks, stop - start), np.uint32)
        for group in members:
            message = words[:, group.vertices.start - start : group.vertices.stop - start]
            at = 0
            for neighbours in (group.predecessors, group.successors):
                for neighbour in order[np.sort(place[neighbours], axis=0)]:
                    md5.write(message, at, hashes.take(neighbour, axis=1))
                    at += 32
                md5.write(message, at, md5.words_of(b"|"))
                at += 1
            md5.write(message, at, hashes[:, group.vertices])
            md5.close(message, group.length)
        following[:, start:stop] = md5.hexdigests(words)
    return following


def _strings(hashes: np.ndarray) -> np.ndarray:
    """S32 ``[N]`` of words ``[8, N]``."""
    return np.ascontiguousarray(hashes.T).view("S32").ravel()
