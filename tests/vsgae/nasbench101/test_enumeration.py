import itertools

import pytest
import torch

from vsgae.cells import Cells, is_nasbench101, prune
from vsgae.nasbench101 import enumerate_cells


def codes(cells: Cells) -> list[tuple[int, int, tuple[int, ...]]]:
    """Number of nodes, edge bits and inner operations of each cell: what orders the space."""
    found = []
    for operations, adjacency, n in zip(
        cells.operations.tolist(), cells.adjacency.tolist(), cells.num_nodes.tolist(), strict=True
    ):
        bits = sum(adjacency[x][y] << (x + y * (y - 1) // 2) for y in range(7) for x in range(y))
        found.append((n, bits, tuple(operations[1 : n - 1])))
    return found


def first_of_each_class(nodes: int, max_edges: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """The same by brute force: each labeled graph that no reordering of its inner nodes turns into an earlier one."""
    pairs = [(x, y) for y in range(nodes) for x in range(y)]
    kept = []
    for bits in range(2 ** len(pairs)):
        edges = [pair for bit, pair in enumerate(pairs) if bits >> bit & 1]
        sources, targets = {x for x, _ in edges}, {y for _, y in edges}
        if len(edges) > max_edges or len(sources) < nodes - 1 or len(targets) < nodes - 1:
            continue
        reordered = []  # (bits, order) of each reordering in which every edge still leads to a later node
        for inner in itertools.permutations(range(1, nodes - 1)):
            order = (0, *inner, nodes - 1)
            place = [order.index(node) for node in range(nodes)]
            moved = [(place[x], place[y]) for x, y in edges]
            if all(x < y for x, y in moved):
                reordered.append((sum(1 << pairs.index(pair) for pair in moved), inner))
        for operations in itertools.product((1, 2, 3), repeat=nodes - 2):
            if (bits, operations) == min(
                (moved, tuple(operations[node - 1] for node in inner)) for moved, inner in reordered
            ):
                kept.append((nodes, bits, operations))
    return kept


def test_the_known_number_of_cells_of_each_length_is_found(space: Cells) -> None:
    # No isomorphic graphs are told apart, so the known numbers also prove that no others are taken for isomorphic.
    assert torch.bincount(space.num_nodes).tolist() == [0, 0, 1, 6, 84, 2441, 62010, 359082]


@pytest.mark.parametrize(("max_nodes", "max_edges"), [(2, 9), (3, 9), (4, 9), (5, 9), (5, 10), (5, 5)])
def test_the_cells_are_those_that_brute_force_finds_in_their_order(max_nodes: int, max_edges: int) -> None:
    expected = [code for nodes in range(2, max_nodes + 1) for code in first_of_each_class(nodes, max_edges)]
    assert codes(enumerate_cells(max_nodes, max_edges)) == expected


def test_the_whole_space_is_in_increasing_order_without_repetition(space: Cells) -> None:
    order = space.num_nodes
    for bit in reversed([space.adjacency[:, x, y] for y in range(7) for x in range(y)]):
        order = 2 * order + bit
    for place in range(1, 6):  # of one length, each labeling has its padding at the same places
        order = 5 * order + 1 + space.operations[:, place]
    assert (order.diff() > 0).all()


def test_every_cell_is_one_of_nasbench101_and_has_nothing_to_prune(space: Cells) -> None:
    assert is_nasbench101(space).all()
    pruned, connected = prune(space)
    assert connected.all()
    assert pruned.equal(space).all()


def test_fewer_edges_leave_the_same_cells_that_have_them(space: Cells) -> None:
    fewer = enumerate_cells(max_edges=6)
    assert len(fewer) > 0
    assert fewer.equal(space[space.num_edges <= 6]).all()


def test_one_edge_is_enough_for_the_smallest_cell_only() -> None:
    cells = enumerate_cells(max_edges=1)
    assert cells.to_nasbench()[0][0].tolist() == [[0, 1], [0, 0]]
    assert len(cells) == 1


@pytest.mark.parametrize("max_nodes", [-1, 1, 8])
def test_a_number_of_nodes_out_of_range_is_refused(max_nodes: int) -> None:
    with pytest.raises(ValueError, match=f"max_nodes is {max_nodes}; it must be 2 to 7"):
        enumerate_cells(max_nodes=max_nodes)


def test_a_number_of_edges_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="max_edges is 0; it must be at least 1"):
        enumerate_cells(max_edges=0)
