import numpy as np
import pytest
import torch

from vsgae.cells import Cells
from vsgae.nasbench101 import enumerate_cells


@pytest.fixture(scope="session")
def space() -> Cells:
    """All 423,624 cells."""
    return enumerate_cells()


@pytest.fixture(scope="session")
def thousand_cells(space: Cells) -> Cells:
    """All 91 cells of up to 4 nodes and 303 of each longer length."""
    rng = np.random.default_rng(0)
    places = [torch.arange(91)]
    for length in (5, 6, 7):
        of_length = (space.num_nodes == length).nonzero().squeeze(1)
        places.append(of_length[torch.from_numpy(rng.permutation(len(of_length))[:303])])
    return space[torch.cat(places)]


def relabel_inner_nodes(cells: Cells, seed: int) -> Cells:
    """Isomorphic cells: the nodes between input and output in a random order, so that edges may lead backwards."""
    rng = np.random.default_rng(seed)
    operations, adjacency = cells.operations.clone(), cells.adjacency.clone()
    for i, n in enumerate(cells.num_nodes.tolist()):
        order = torch.from_numpy(np.r_[0, 1 + rng.permutation(n - 2), n - 1])
        operations[i, :n] = cells.operations[i, order]
        adjacency[i, :n, :n] = cells.adjacency[i][order][:, order]
    return Cells(operations, adjacency, cells.num_nodes)


@pytest.fixture(scope="session")
def relabelled():
    return relabel_inner_nodes
