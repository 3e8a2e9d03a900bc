import pytest
import torch

from vsgae.modules import READOUTS

NODES, OFFSETS = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([0, 3, 5])  # two cells, of three nodes and of two
H = torch.tensor([[1.0, -3.0], [2.0, 5.0], [-4.0, 7.0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gated_sum", [[-3.5, 5.5], [1.5, 1.0]]),
        ("sum", [[-7, 11], [3, 2]]),
        ("mean", [[-7 / 3, 11 / 3], [1.5, 1.0]]),
        ("max", [[1, 7], [2, 5]]),
        ("output_node", [[-4, 7], [1, -3]]),
    ],
)
def test_a_readout_with_the_identity_as_its_linear_map_is_what_its_name_says(name, expected):
    readout = READOUTS[name](2, 2)
    for weight in readout.parameters():
        torch.nn.init.zeros_(weight)  # the gate is then sigmoid(0) = 1/2
    torch.nn.init.eye_(readout.linear.weight)
    torch.testing.assert_close(readout(H, NODES, OFFSETS), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("name", READOUTS)
def test_the_readout_of_no_cell_is_empty(name):
    assert READOUTS[name](2, 3)(H[:0], NODES[:0], OFFSETS[:1]).shape == (0, 3)
