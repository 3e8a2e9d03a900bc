"""The cells of NAS-Bench-101, generated: 423,624 isomorphism classes, each in the form the official release stores.

A labeled graph is three integers, its *codes*: the number v of its nodes, its edge bits (bit x + y(y-1)/2 is the edge
x -> y) and its labeling (the operations of the nodes 1 to v - 2 as digits in base 3, the first node's highest). They
order the graphs, and the first of each isomorphism class stands for it (Ying et al. 2019, section 2.1).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from vsgae.cells import INPUT, MAX_EDGES, MAX_NODES, OPERATIONS, OUTPUT, PADDING, Cells

NUM_INNER_OPERATIONS = len(OPERATIONS) - 2
PAIRS = [(x, y) for y in range(MAX_NODES) for x in range(y)]  # the edge x -> y of each edge bit
PART = 64  # matrices at a time: their colours fit into a core's cache


def enumerate_cells(max_nodes: int = MAX_NODES, max_edges: int = MAX_EDGES) -> Cells:
    """One cell of every isomorphism class, ordered by number of nodes, edge bits and labeling.

    Args:
        max_nodes: 2 to 7, input and output included.
        max_edges: at least 1.

    Raises:
        ValueError: one of them is out of range.
    """
    return cells_of(*enumerate_codes(max_nodes, max_edges))


def enumerate_codes(
    max_nodes: int = MAX_NODES, max_edges: int = MAX_EDGES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`enumerate_cells` as codes: number of nodes int8, edge bits int32 and labeling uint8, each ``[N]``."""
    if not 2 <= max_nodes <= MAX_NODES:
        raise ValueError(f"max_nodes is {max_nodes}; it must be 2 to {MAX_NODES}")
    if max_edges < 1:
        raise ValueError(f"max_edges is {max_edges}; it must be at least 1")
    parts = []
    for nodes in range(2, max_nodes + 1):
        edges, labelings = _classes(nodes, max_edges)
        parts.append((np.full(len(edges), nodes, np.int8), edges.astype(np.int32), labelings.astype(np.uint8)))
    num_nodes, edges, labelings = (np.concatenate(column) for column in zip(*parts, strict=True))
    return num_nodes, edges, labelings


def cells_of(num_nodes: np.ndarray, edges: np.ndarray, labelings: np.ndarray) -> Cells:
    """The cells of such codes, ``[N]`` each."""
    place = np.full((MAX_NODES, MAX_NODES), 31)  # the bit of each entry; the last one is 0 in every code
    for bit, (x, y) in enumerate(PAIRS):
        place[x, y] = bit
    bits = np.unpackbits(edges.astype("<i4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    adjacency = bits.take(place.ravel(), axis=1).view(bool).reshape(-1, MAX_NODES, MAX_NODES)
    operations = _operations_of_labelings()[num_nodes, labelings]
    return Cells(*map(torch.from_numpy, (operations, adjacency, num_nodes.astype(np.int64))))


def _operations_of_labelings() -> np.ndarray:
    """int64 ``[8, 243, 7]``: the operations by number of nodes and labeling; unused places are padding."""
    table = np.full((MAX_NODES + 1, NUM_INNER_OPERATIONS ** (MAX_NODES - 2), MAX_NODES), PADDING)
    for nodes in range(2, MAX_NODES + 1):
        for labeling, inner in enumerate(itertools.product(range(1, 1 + NUM_INNER_OPERATIONS), repeat=nodes - 2)):
            table[nodes, labeling, :nodes] = INPUT, *inner, OUTPUT
    return table


def _classes(nodes: int, max_edges: int) -> tuple[np.ndarray, np.ndarray]:
    """Edge bits and labeling of the first graph of each isomorphism class with ``nodes`` nodes, int64 ``[N]`` each."""
    edges, adjacency = _matrices(nodes, max_edges)
    num_labelings = NUM_INNER_OPERATIONS ** (nodes - 2)
    # Isomorphic graphs have isomorphic matrices, so matrices sorted by shape fall into parts that share no class.
    shapes = _invariants(adjacency, 1)[:, 0]
    order = np.argsort(shapes, kind="stable")
    starts = np.flatnonzero(np.diff(shapes[order])) + 1
    cuts = starts[np.flatnonzero(np.diff(starts // PART))]
    found = []
    for part in np.split(order, cuts):
        _, first = np.unique(_invariants(adjacency[part], num_labelings), return_index=True)
        found.append(part[first // num_labelings] * num_labelings + first % num_labelings)
    classes = np.sort(np.concatenate(found))
    return edges[classes // num_labelings], classes % num_labelings


def _matrices(nodes: int, max_edges: int) -> tuple[np.ndarray, np.ndarray]:
    """The edge bits, in increasing order, in which every node lies on a path: int64 ``[M]`` and bool ``[M, v, v]``."""
    pairs = PAIRS[: nodes * (nodes - 1) // 2]
    bits = np.arange(2 ** len(pairs))
    bits = bits[np.bitwise_count(bits) <= max_edges]
    adjacency = np.zeros((len(bits), nodes, nodes), bool)
    for bit, (x, y) in enumerate(pairs):
        adjacency[:, x, y] = bits >> bit & 1
    # Edges lead to later nodes, so a successor each and a predecessor each put every node on a path.
    kept = np.all(adjacency[:, :-1].any(2), axis=1) & np.all(adjacency[:, :, 1:].any(1), axis=1)
    return bits[kept], adjacency[kept]


def _invariants(adjacency: np.ndarray, num_labelings: int) -> np.ndarray:
    """uint64 ``[M, L]``: equal for isomorphic graphs, and different for all others of the space.

    64-bit colour refinement: the colour of a node, at first its operation, takes in those of its predecessors (as a
    multiset, by a sum), node by node in order, and then those of its successors, in the reverse order. It cannot tell
    isomorphic graphs apart, so it could only find too few classes. That it finds the known number proves it exact.
    """
    nodes = adjacency.shape[1]
    operations = _operations_of_labelings()[nodes, :num_labelings, :nodes].astype(np.uint64)
    colours = np.repeat(operations.T[:, None], len(adjacency), axis=1)
    for matrix, order in ((adjacency, range(nodes)), (adjacency.transpose(0, 2, 1), range(nodes - 1, -1, -1))):
        mixed = np.empty_like(colours)
        for node in order:
            total = np.zeros_like(colours[node])
            for other in range(nodes):
                if matrix[:, other, node].any():
                    total += mixed[other] * matrix[:, other, node, None]
            colours[node] = _mix(_mix(colours[node]) + total)
            mixed[node] = _mix(colours[node])
    return _mix(colours).sum(0)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 in which every input bit moves every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
