import pytest
import torch

from vsgae.edit_distance import edit_distance, reference_cells


def test_the_distance_counts_differing_operations_and_edges(thousand_cells):
    a, b = thousand_cells[500:600], thousand_cells[550:600]
    first = a[0]
    changed = first.operations.clone(), first.adjacency.clone()
    changed[0][0, 1] = 1 + changed[0][0, 1] % 3
    changed[1][0, 0, 2] ^= True
    changed[1][0, 0, 3] ^= True
    assert edit_distance(first, type(first)(*changed, first.num_nodes)).tolist() == [3]
    assert edit_distance(b, b).eq(0).all()


def test_the_distance_is_symmetric(space):
    of_length = space[(space.num_nodes == 6).nonzero().squeeze(1)]
    a, b = of_length[:500], of_length[-500:]
    assert torch.equal(edit_distance(a, b), edit_distance(b, a))
    assert edit_distance(a, b).min() > 0


def test_the_reference_is_the_first_cell_of_each_length_in_the_enumeration(space):
    first = [int((space.num_nodes == length).nonzero()[0]) for length in range(2, 8)]
    assert reference_cells(torch.arange(2, 8)).equal(space[first]).all()


def test_cells_of_different_lengths_have_no_distance(space):
    with pytest.raises(ValueError, match="pair 1 has 3 and 4 nodes; they must be of the same length"):
        edit_distance(space[[1, 2]], space[[2, 10]])
