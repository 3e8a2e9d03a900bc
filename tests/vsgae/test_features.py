import networkx as nx
import numpy as np
import pytest
from relabelling import with_neighbours_swapped

from vsgae.cells import OPERATIONS, Cells
from vsgae.features import cell_features


def test_path_features_equal_those_of_all_paths_listed_one_by_one(thousand_cells):
    cells = thousand_cells[::5]
    features = cell_features(cells)
    for i, (matrix, names) in enumerate(cells.to_nasbench()):
        graph = nx.from_numpy_array(matrix, create_using=nx.DiGraph)
        paths = list(nx.all_simple_paths(graph, 0, len(names) - 1))
        assert features["paths"][i] == len(paths)
        assert features["longest_path"][i] == max(map(len, paths)) - 1
        assert features["shortest_path"][i] == min(map(len, paths)) - 1
        assert features["skip"][i] == matrix[0, -1]
        for name in OPERATIONS[1:4]:
            on_path = [sum(names[v] == name for v in path) for path in paths]
            short = name.split("-")[0]
            assert features[f"{short}_most_on_a_path"][i] == max(on_path)
            assert features[f"{short}_fewest_on_a_path"][i] == min(on_path)
            assert features[short][i] == names.count(name)


def test_counts_around_input_and_output():
    matrix = np.array([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    cells = Cells.from_nasbench([(matrix, ["input", "maxpool3x3", "conv1x1-bn-relu", "output"])])
    features = {name: column[0] for name, column in cell_features(cells).items()}
    expected = {"nodes": 4, "edges": 5, "input_successors": 3, "output_predecessors": 3, "maxpool3x3_after_input": 1}
    expected |= {"conv1x1_before_output": 1, "conv3x3_after_input": 0, "conv3x3_before_output": 0, "skip": 1}
    assert expected.items() <= features.items()


def test_features_are_invariant_under_relabelling(thousand_cells):
    swapped = with_neighbours_swapped(thousand_cells)
    for name, column in cell_features(swapped).items():
        assert column == pytest.approx(cell_features(thousand_cells)[name]), name
