from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain_hash import plain_hash

from vsgae.cells import OPERATIONS, Cells, prune
from vsgae.nasbench101 import enumerate_cells, hashing, md5, module_hashes

INNER = OPERATIONS[1:4]


def random_specs(count: int, seed: int) -> list[tuple[np.ndarray, list[str]]]:
    """nasbench's form: any upper-triangular matrix of 2 to 7 nodes, thin and dense ones, and random operations."""
    rng = np.random.default_rng(seed)
    specs = []
    for _ in range(count):
        n = int(rng.integers(2, 8))
        matrix = np.triu(rng.random((n, n)) < rng.uniform(0.15, 0.9), k=1).astype(np.int8)
        specs.append((matrix, ["input", *rng.choice(INNER, n - 2).tolist(), "output"]))
    return specs


def random_graphs(count: int, seed: int) -> Cells:
    """Anything that ``Cells`` can hold: 1 to 7 nodes, cycles, loops, any operation anywhere."""
    rng = np.random.default_rng(seed)
    num_nodes = torch.from_numpy(rng.integers(1, 8, count))
    inside = torch.arange(7) < num_nodes[:, None]
    operations = torch.where(inside, torch.from_numpy(rng.integers(0, 5, (count, 7))), -1)
    adjacency = torch.from_numpy(rng.random((count, 7, 7)) < rng.random((count, 1, 1)))
    return Cells(operations, adjacency & inside[:, :, None] & inside[:, None, :], num_nodes)


def test_hashes_and_pruning_equal_those_of_nasbench_pytorch_on_2000_random_cells() -> None:
    model_spec = pytest.importorskip("nasbench_pytorch.model.model_spec")
    specs = random_specs(2000, seed=0)
    pruned, connected = prune(Cells.from_nasbench(specs))
    hashes = module_hashes(pruned)
    kinds = {"whole": 0, "dangling": 0, "disconnected": 0}
    for i, (matrix, operations) in enumerate(specs):
        if not connected[i]:
            # Its constructor prunes, finds nothing left, and stumbles over that.
            with pytest.raises(RuntimeError, match="NoneType"):
                model_spec.ModelSpec(matrix.copy(), list(operations))
            kinds["disconnected"] += 1
            continue
        spec = model_spec.ModelSpec(matrix.copy(), list(operations))
        our_matrix, our_operations = pruned[i].to_nasbench()[0]
        assert our_matrix.tolist() == spec.matrix.tolist(), specs[i]
        assert our_operations == spec.ops, specs[i]
        spec.matrix = spec.matrix.numpy()  # a tensor, of which its hash_spec asks more than today's torch gives
        assert hashes[i] == spec.hash_spec(list(INNER)), specs[i]
        kinds["dangling" if len(spec.ops) < len(operations) else "whole"] += 1
    assert min(kinds.values()) > 100, kinds


def test_unpruned_and_disconnected_graphs_hash_as_nasbench_pytorch_hashes_them() -> None:
    graph_util = pytest.importorskip("nasbench_pytorch.model.graph_util")
    specs = random_specs(300, seed=1)
    expected = [
        graph_util.hash_module(matrix, [-1, *(INNER.index(name) for name in operations[1:-1]), -2])
        for matrix, operations in specs
    ]
    assert module_hashes(Cells.from_nasbench(specs)) == expected


def test_any_graph_has_the_hash_of_the_definition() -> None:
    graphs = random_graphs(300, seed=2)
    assert module_hashes(graphs) == [plain_hash(graphs[i]) for i in range(len(graphs))]


def test_cells_of_all_lengths_have_the_hash_of_the_definition(thousand_cells: Cells) -> None:
    cells = thousand_cells[torch.randperm(len(thousand_cells), generator=torch.Generator().manual_seed(0))[:200]]
    assert module_hashes(cells) == [plain_hash(cells[i]) for i in range(len(cells))]


def test_neither_the_chunks_nor_the_lanes_nor_the_company_change_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = random_graphs(30, seed=3)
    alone = [module_hashes(graphs[i])[0] for i in range(len(graphs))]
    assert module_hashes(graphs) == alone
    monkeypatch.setattr(hashing, "CHUNK", 7)
    monkeypatch.setattr(md5, "LANES", 5)
    assert module_hashes(graphs) == alone


def test_isomorphic_cells_share_their_hash(thousand_cells: Cells, relabelled: Callable[[Cells, int], Cells]) -> None:
    other = relabelled(thousand_cells, 0)
    assert not other.equal(thousand_cells).all()
    assert module_hashes(other) == module_hashes(thousand_cells)


def test_cells_that_are_not_isomorphic_differ_in_their_hash() -> None:
    hashes = module_hashes(enumerate_cells(max_nodes=5))
    assert len(set(hashes)) == len(hashes) == 1 + 6 + 84 + 2441


def test_no_cells_have_no_hashes() -> None:
    assert module_hashes(random_graphs(0, seed=0)) == []


@pytest.mark.parametrize("code", [-1, 5])
def test_a_node_without_an_operation_is_refused_with_its_cell(code: int) -> None:
    cells = enumerate_cells(max_nodes=4)[:4]
    cells.operations[3, 1] = code
    with pytest.raises(ValueError, match=f"cell 3 has 3 nodes and the operations .0, {code}, 4"):
        module_hashes(cells)


def test_a_cell_without_nodes_is_refused() -> None:
    none = Cells(torch.full((1, 7), -1), torch.zeros(1, 7, 7, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="cell 0 has 0 nodes"):
        module_hashes(none)
