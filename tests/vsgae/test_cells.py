import numpy as np
import pytest
import torch

from vsgae.cells import (
    INPUT,
    OPERATIONS,
    OUTPUT,
    PADDING,
    Cells,
    is_nasbench101,
    is_valid,
    prune,
    validity_checks,
)
from vsgae.nasbench101 import enumerate_cells

CONV3X3, CONV1X1, MAXPOOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"


def cell(edges: list[tuple[int, int]], *inner: str, first: str = "input", last: str = "output") -> Cells:
    """One cell from its edges, without any check."""
    names = [first, *inner, last]
    operations = torch.full((1, 7), PADDING)
    operations[0, : len(names)] = torch.tensor([OPERATIONS.index(name) for name in names])
    adjacency = torch.zeros(1, 7, 7, dtype=torch.bool)
    for u, v in edges:
        adjacency[0, u, v] = True
    return Cells(operations, adjacency, torch.tensor([len(names)]))


def test_a_cell_index_gives_cells_again(thousand_cells):
    assert len(thousand_cells[3]) == len(thousand_cells[-1]) == 1
    assert len(thousand_cells[10:20]) == len(thousand_cells[[1, 2, 3]]) + 7 == 10
    assert thousand_cells[torch.tensor([5, 900])][1].equal(thousand_cells[900]).all()
    assert thousand_cells[-1].equal(thousand_cells[999]).all()
    with pytest.raises(IndexError, match="1000 is out of range for 1000 cells"):
        thousand_cells[1000]


@pytest.mark.parametrize("form", ["dense", "data", "nasbench"])
def test_a_conversion_and_back_is_the_same_cell(thousand_cells, form):
    back = getattr(Cells, f"from_{form}")(getattr(thousand_cells, f"to_{form}")())
    assert thousand_cells.equal(back).all()


def test_the_dense_form_is_one_hot_operations_then_the_adjacency():
    dense = cell([(0, 1), (1, 2), (0, 2)], MAXPOOL).to_dense()[0]
    assert dense.shape == (7, 12)
    assert dense[0].tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert dense[1].tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert dense[3:].eq(0).all()


def test_data_holds_operation_codes_and_edges():
    (data,) = cell([(0, 1), (1, 2), (0, 2)], CONV1X1).to_data()
    assert data.x.tolist() == [INPUT, 2, OUTPUT]
    assert data.edge_index.tolist() == [[0, 0, 1], [1, 2, 2]]


def test_concatenate_keeps_the_order(thousand_cells):
    parts = [thousand_cells[:10], thousand_cells[990:], thousand_cells[500]]
    assert Cells.concatenate(parts)[20].equal(thousand_cells[500]).all()


@pytest.mark.parametrize(
    ("matrix", "operations", "message"),
    [
        ([[0, 1], [0, 0]], ["input", "conv9x9"], "cell 1: operation 'conv9x9'; allowed are input, conv3x3"),
        ([[0, 1], [1, 0]], ["input", "output"], "cell 1: matrix .* strictly upper triangular"),
        ([[0, 2], [0, 0]], ["input", "output"], "cell 1: matrix .* is not 0/1"),
        ([[0, 1], [0, 0]], ["output", "input"], "must begin with 'input'"),
        ([[0, 1]], ["input", "output"], r"cell 1: a \(1, 2\) matrix with 2 operations"),
        (np.triu(np.ones((8, 8)), 1), ["input", *[MAXPOOL] * 6, "output"], "allowed are 2 to 7 nodes"),
    ],
)
def test_a_bad_nasbench_cell_is_named(matrix, operations, message):
    good = (np.array([[0, 1], [0, 0]]), ["input", "output"])
    with pytest.raises(ValueError, match=message):
        Cells.from_nasbench([good, (matrix, operations)])


def test_wrong_shapes_and_dtypes_are_refused():
    good = cell([(0, 1)])
    with pytest.raises(ValueError, match=r"operations is torch.float32 \[1, 7\]; it must be torch.int64 \[1, 7\]"):
        Cells(good.operations.float(), good.adjacency, good.num_nodes)
    with pytest.raises(ValueError, match=r"adjacency is torch.bool \[1, 6, 7\]"):
        Cells(good.operations, good.adjacency[:, :6], good.num_nodes)
    with pytest.raises(ValueError, match=r"\[2, 3\]; it must be \[N, 7, 12\]"):
        Cells.from_dense(torch.zeros(2, 3))


def test_pruning_removes_what_is_on_no_path():
    dangling = cell(
        [(0, 1), (1, 4), (0, 2), (3, 4)], CONV3X3, CONV1X1, MAXPOOL
    )  # 2 leads nowhere, 3 comes from nowhere
    pruned, connected = prune(dangling)
    assert connected.tolist() == [True]
    assert pruned.equal(cell([(0, 1), (1, 2)], CONV3X3)).all()


def test_pruning_leaves_a_disconnected_cell_as_it_was():
    disconnected = cell([(0, 1), (2, 3)], CONV3X3, CONV1X1)
    pruned, connected = prune(disconnected)
    assert connected.tolist() == [False]
    assert pruned.equal(disconnected).all()


def test_pruning_changes_no_cell_of_the_space(space):
    pruned, connected = prune(space)
    assert connected.all()
    assert space.equal(pruned).all()


VIOLATIONS = {
    "one_input": cell([(0, 1), (1, 2)], "input"),
    "one_output": cell([(0, 1), (1, 2)], "output"),
    "predecessors": cell([(0, 2), (1, 2)], MAXPOOL),
    "successors": cell([(0, 1), (0, 2)], MAXPOOL),
    "acyclic": cell([(0, 1), (1, 2), (2, 1), (1, 3)], MAXPOOL, CONV1X1),
}


@pytest.mark.parametrize("check", VIOLATIONS)
def test_each_validity_check_fails_alone(check):
    failed = [name for name, holds in validity_checks(VIOLATIONS[check]).items() if not holds]
    extra = ["successors"] if check == "acyclic" and "successors" in failed else []
    assert failed == [*extra, check]
    assert not is_valid(VIOLATIONS[check])


def test_a_self_loop_and_a_seven_node_cycle_are_cyclic():
    ring = [(i, i + 1) for i in range(6)] + [(5, 1)]
    for edges in ([(0, 1), (1, 1), (1, 2)], ring):
        assert not validity_checks(cell(edges, *[MAXPOOL] * (max(map(max, edges)) - 1)))["acyclic"]


def test_every_cell_of_the_space_is_a_nasbench101_cell(space):
    assert is_nasbench101(space).all()


def test_a_valid_cell_may_be_outside_nasbench101():
    ten_edges = cell([(u, v) for u in range(5) for v in range(u + 1, 5)], CONV3X3, CONV3X3, CONV3X3)
    backwards = cell([(0, 2), (2, 1), (1, 3)], CONV3X3, CONV1X1)
    for outside in (ten_edges, backwards):
        assert is_valid(outside)
        assert not is_nasbench101(outside)


def test_cells_are_printed_a_line_each_and_not_thousands_of_them() -> None:
    cells = enumerate_cells(max_nodes=4)
    assert str(cells[:3]) == (
        "0 input, 1 output (0)\n0 input, 1 conv3x3 (0), 2 output (1)\n0 input, 1 conv1x1 (0), 2 output (1)"
    )
    assert str(cells[90]) == "0 input, 1 maxpool3x3 (0), 2 maxpool3x3 (0 1), 3 output (0 1 2)"
    assert str(cells).endswith("\n... 91 cells in all")
    assert str(cells).count("\n") == 20
    assert str(cells[:0]) == ""
