import pytest
import torch

from vsgae.cells import OPERATIONS
from vsgae.refinement import refine


def trees(cells, rounds, directions):
    """Each node's unfolding as nested tuples: two nodes have the same state exactly when their trees are equal."""
    result = []
    for operations, adjacency, n in zip(cells.operations, cells.adjacency, cells.num_nodes.tolist(), strict=True):
        state = [OPERATIONS[code] for code in operations[:n]]
        around = {
            "predecessors": [adjacency[:, v].nonzero().flatten().tolist() for v in range(n)],
            "successors": [adjacency[v].nonzero().flatten().tolist() for v in range(n)],
        }
        for _ in range(rounds):
            state = [
                (state[v], *(tuple(sorted((state[u] for u in around[d][v]), key=repr)) for d in directions))
                for v in range(n)
            ]
        result += state
    return result


def test_states_are_shared_exactly_where_the_unfolded_neighbourhoods_are_equal(thousand_cells):
    for directions in (("predecessors", "successors"), ("predecessors",)):
        for rounds in (1, 2, 3):
            refinement = refine(thousand_cells, rounds, directions)
            expected = trees(thousand_cells, rounds, directions)
            assert unfolded(refinement) == expected
            numbers = {tree: i for i, tree in enumerate(dict.fromkeys(expected))}
            pairs = set(zip(refinement.nodes.tolist(), (numbers[tree] for tree in expected), strict=True))
            assert len(pairs) == len(numbers) == len(refinement.rounds[-1])


def test_the_whole_space_has_as_many_states_as_the_design_counts(space):
    rounds = refine(space, 2).rounds
    assert list(map(len, rounds)) == [1_863, 903_330]


def test_a_round_says_what_each_state_is_made_from(thousand_cells):
    refinement = refine(thousand_cells, 1)
    (round_,) = refinement.rounds
    node = 0
    for i, n in enumerate(thousand_cells.num_nodes.tolist()):
        operations, adjacency = thousand_cells.operations[i], thousand_cells.adjacency[i]
        assert refinement.offsets[i] == node
        for v in range(n):
            row = refinement.nodes[node + v]
            assert round_.own[row] == operations[v]
            for d, around in enumerate((adjacency[:, v], adjacency[v])):
                counts = round_.counts[row, d]
                assert counts[0] == counts[1:].sum() == around.sum()
                assert sorted(round_.senders[row, 1:][counts[1:] == 1].tolist()) == sorted(operations[around].tolist())
        node += n
    assert refinement.offsets[-1] == node == len(refinement.nodes)


def test_no_round_is_refused(thousand_cells):
    with pytest.raises(ValueError, match="num_rounds is 0; it must be at least 1"):
        refine(thousand_cells, 0)


def test_the_own_state_ascends_which_the_gradient_of_the_gru_relies_on(thousand_cells):
    whole = refine(thousand_cells, 3)
    for refinement in (whole, whole[torch.arange(0, 1000, 7)]):
        for round_ in refinement.rounds:
            assert (round_.own.diff() >= 0).all()


def test_a_selection_is_the_refinement_of_the_selected_cells(thousand_cells):
    indices = torch.tensor([3, 999, 17, 500, 3])
    for rounds in (1, 2, 3):
        selected = refine(thousand_cells, rounds)[indices]
        alone = refine(thousand_cells[indices], rounds)
        assert torch.equal(selected.offsets, alone.offsets)
        assert list(map(len, selected.rounds)) == list(map(len, alone.rounds))
        assert unfolded(selected) == unfolded(alone)


def unfolded(refinement):
    """What :func:`trees` gives, from the rounds."""
    state = list(OPERATIONS)
    for round_ in refinement.rounds:
        neighbours, present = round_.senders[:, 1:], round_.counts[:, :, 1:] > 0
        state = [
            (state[own], *(tuple(sorted((state[u] for u in around[p].tolist()), key=repr)) for p in directions))
            for own, around, directions in zip(round_.own.tolist(), neighbours, present, strict=True)
        ]
    return [state[row] for row in refinement.nodes.tolist()]
