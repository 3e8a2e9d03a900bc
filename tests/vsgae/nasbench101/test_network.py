import numpy as np
import pandas as pd
import pytest
import torch

from vsgae.cells import OPERATIONS, Cells
from vsgae.nasbench101 import load_space
from vsgae.nasbench101.network import trainable_parameters, vertex_channels

CONV3X3, CONV1X1, POOL = OPERATIONS[1:4]


def cell(edges: list[tuple[int, int]], *inner: str) -> Cells:
    nodes = len(inner) + 2
    matrix = np.zeros((nodes, nodes), int)
    matrix[tuple(np.transpose(edges))] = 1
    return Cells.from_nasbench([(matrix, ["input", *inner, "output"])])


def test_predecessors_of_the_output_share_its_channels_and_the_first_take_the_remainder() -> None:
    three = cell([(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)], CONV3X3, POOL, CONV1X1)
    assert vertex_channels(three, 128).tolist() == [[0, 43, 43, 42, 0, 0, 0]]


def test_another_node_is_as_wide_as_its_widest_successor() -> None:
    deep = cell([(0, 1), (1, 2), (2, 3), (2, 4), (3, 5), (4, 5)], CONV3X3, CONV3X3, POOL, CONV1X1)
    assert vertex_channels(deep, 127).tolist() == [[0, 64, 64, 64, 63, 0, 0]]


def test_the_input_does_not_share_the_outputs_channels() -> None:
    assert vertex_channels(cell([(0, 1), (0, 2), (1, 2)], POOL), 128).tolist() == [[0, 128, 0, 0, 0, 0, 0]]
    assert vertex_channels(cell([(0, 1)]), 128).tolist() == [[0] * 7]


def test_parameters_counted_by_hand() -> None:
    """Stem, then per stack three cells (a skip is a 1x1 convolution with batch normalisation), then the classifier."""

    def convolution(kernel: int, before: int, after: int) -> int:
        return kernel**2 * before * after + 2 * after

    skip = convolution(3, 3, 128) + 512 * 10 + 10
    pairs = [(128, 128)] * 3 + [(128, 256)] + [(256, 256)] * 2 + [(256, 512)] + [(512, 512)] * 2
    skip += sum(convolution(1, before, after) for before, after in pairs)
    assert trainable_parameters(cell([(0, 1)])).tolist() == [skip]
    through = skip + sum(convolution(3, after, after) for _, after in pairs)
    assert trainable_parameters(cell([(0, 1), (1, 2)], CONV3X3)).tolist() == [through]


@pytest.mark.measured
def test_parameters_equal_the_published_ones(measured_table) -> None:
    table = pd.read_csv(measured_table)
    space = load_space()
    cells = space.cells[torch.from_numpy(space.index(table["module_hash"].tolist()))]
    assert trainable_parameters(cells).tolist() == table["trainable_parameters"].tolist()
