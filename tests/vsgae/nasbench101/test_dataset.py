import warnings
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from vsgae.cells import Cells
from vsgae.nasbench101 import NASBench101, dataset
from vsgae.nasbench101.labels import LabelConfig, load_labels
from vsgae.nasbench101.release import import_release

pytestmark = pytest.mark.usefixtures("own_cache")


def is_large(data: Data) -> bool:
    return data.num_nodes == 7


def with_degrees(data: Data) -> Data:
    data.in_degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
    return data


def test_the_graphs_are_the_labelled_cells(small_table: Path, tmp_path: Path) -> None:
    labels = load_labels(LabelConfig(source=str(small_table)))
    graphs = NASBench101(str(tmp_path), source=str(small_table))
    assert isinstance(graphs, InMemoryDataset)
    assert len(graphs) == len(labels) == 271
    for graph, plain, value, position in zip(graphs, labels.cells.to_data(), labels.values, labels.index, strict=True):
        assert graph.x.shape == (plain.num_nodes, 5)
        assert torch.equal(graph.x.argmax(1), plain.x)
        assert torch.equal(graph.x.sum(1), torch.ones(plain.num_nodes))
        assert torch.equal(graph.edge_index, plain.edge_index)
        assert torch.equal(graph.y, value[None])
        assert torch.equal(graph.position, position[None])
        graph.validate()
    assert (
        Cells.from_data([Data(x=graph.x.argmax(1), edge_index=graph.edge_index) for graph in graphs])
        .equal(labels.cells)
        .all()
    )


def test_collating_at_once_gives_what_torch_geometric_collates_one_by_one(small_table: Path, tmp_path: Path) -> None:
    graphs = NASBench101(str(tmp_path), source=str(small_table))
    data, slices = InMemoryDataset.collate([graphs.get(i) for i in range(len(graphs))])
    assert graphs.slices is not None
    assert slices is not None
    assert slices.keys() == graphs.slices.keys()
    assert all(torch.equal(slices[name], graphs.slices[name]) for name in slices)
    assert all(torch.equal(data[name], getattr(graphs, name)) for name in ("x", "y", "position"))


def test_statistics_slices_and_batches_are_those_of_a_torch_geometric_dataset(
    small_table: Path, tmp_path: Path
) -> None:
    graphs = NASBench101(str(tmp_path), source=str(small_table))
    assert (graphs.num_node_features, graphs.num_features, graphs.num_edge_features) == (5, 5, 0)
    assert repr(graphs) == "NASBench101(271)"
    part = graphs[10:14]
    assert len(part) == 4
    assert torch.equal(part[3].x, graphs[13].x)
    assert len(graphs[torch.tensor([3, 1])]) == 2
    batches = list(DataLoader(graphs, batch_size=100))
    assert [batch.num_graphs for batch in batches] == [100, 100, 71]
    assert torch.equal(torch.cat([batch.y for batch in batches]), graphs.y)
    assert torch.equal(torch.cat([batch.position for batch in batches]), graphs.position)
    assert all(batch.edge_index.max() < batch.num_nodes for batch in batches)


def test_a_second_time_the_processed_file_is_loaded(
    small_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = NASBench101(str(tmp_path), source=str(small_table))
    monkeypatch.delattr(dataset, "load_labels")
    second = NASBench101(str(tmp_path), source=str(small_table))
    assert torch.equal(first.x, second.x)
    assert second.processed_paths == first.processed_paths
    with pytest.raises(NameError):
        NASBench101(str(tmp_path), source=str(small_table), force_reload=True)


def test_other_labels_have_another_processed_file(small_table: Path, only108: Path, tmp_path: Path) -> None:
    import_release(only108)
    source = str(small_table)
    graphs = [
        NASBench101(str(tmp_path)),
        NASBench101(str(tmp_path), repeat=0),
        NASBench101(str(tmp_path), metric="test_accuracy"),
        NASBench101(str(tmp_path), source=source),
        NASBench101(str(tmp_path), source=source, epochs=4),
    ]
    assert len({path for each in graphs for path in each.processed_paths}) == len(graphs)
    assert [len(each) for each in graphs] == [15, 15, 15, 271, 271]
    changed = tmp_path / small_table.name
    changed.write_text(small_table.read_text().replace("0.8", "0.7", 1))
    assert NASBench101(str(tmp_path), source=str(changed)).processed_paths != graphs[3].processed_paths


def test_the_raw_file_is_where_the_labels_are(small_table: Path, only108: Path, tmp_path: Path) -> None:
    assert NASBench101(str(tmp_path), source=str(small_table)).raw_paths == [str(small_table)]
    release = import_release(only108)
    assert NASBench101(str(tmp_path)).raw_paths == [str(release.path)]


def test_nothing_is_downloaded_and_nothing_made_where_no_release_is_imported(
    tmp_path: Path, only108: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    with pytest.raises(ValueError, match=r"import FILE.*download"):
        NASBench101(str(root), source="official")
    assert not root.exists()
    imported = import_release(only108)
    graphs = NASBench101(str(root), source="official")
    graphs.download()
    imported.path.unlink()
    with pytest.raises(ValueError, match=r"import FILE.*download"):
        graphs.download()


def test_transforms_and_the_filter_do_what_they_do_elsewhere(small_table: Path, tmp_path: Path) -> None:
    source = str(small_table)
    plain = NASBench101(str(tmp_path / "a"), source=source, transform=with_degrees)
    made = NASBench101(str(tmp_path / "b"), source=source, pre_transform=with_degrees, pre_filter=is_large)
    assert [len(plain), len(made)] == [271, 60]
    kept = [graph for graph in plain if is_large(graph)]
    assert all(torch.equal(one.in_degree, other.in_degree) for one, other in zip(kept, made, strict=True))
    assert all(torch.equal(one.edge_index, other.edge_index) for one, other in zip(kept, made, strict=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        NASBench101(str(tmp_path / "b"), source=source)
    assert any("pre_transform" in str(warning.message) for warning in caught)
    with pytest.raises(ValueError, match="pre_filter leaves none of the cells"):
        NASBench101(str(tmp_path / "c"), source=source, pre_filter=lambda data: False)


def test_one_cell_alone_is_a_dataset(small_table: Path, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("\n".join(small_table.read_text().splitlines()[:2]))
    graphs = NASBench101(str(tmp_path), source=str(table))
    assert len(graphs) == 1
    assert graphs[0].y.shape == (1,)


def test_a_wrong_setting_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metric is 'speed'"):
        NASBench101(str(tmp_path / "root"), metric="speed")
    assert not (tmp_path / "root").exists()
