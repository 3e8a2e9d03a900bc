"""The labelled cells of NAS-Bench-101 as a torch_geometric dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.io import fs

from vsgae.cells import OPERATIONS
from vsgae.nasbench101.labels import OFFICIAL, LabelConfig, Labels, label_digest, label_file, load_labels


class NASBench101(InMemoryDataset):
    r"""The cells of `"NAS-Bench-101: Towards Reproducible Neural Architecture Search"
    <https://arxiv.org/abs/1902.09635>`_ (Ying et al., 2019), convolutional cells trained on CIFAR-10. The task is to
    predict the accuracy (or the training time) of the network that a cell makes.

    A graph is a cell: ``x`` is the one-hot operation of each node (input, 3x3 convolution, 1x1 convolution, 3x3 maximum
    pooling, output), ``edge_index`` its edges, each to a later node, ``y`` the label, and ``position`` the cell's place
    in the enumeration of the space (so that ``load_space().hashes[position]`` is its module hash).

    The raw file is where the labels are, outside of ``root``: the release imported into the cache, the measured table,
    or the fitted surrogate, whose labels are predicted. Making a dataset never downloads anything: see
    ``python -m vsgae.nasbench101 download``.

    Args:
        root: the folder in which the processed dataset is saved.
        source: ``"official"``, ``"surrogate"``, whose labels are predicted, or the path of a measured table. What it
            is, and the next three, see :class:`~vsgae.nasbench101.labels.LabelConfig`.
        metric: the label, such as ``"validation_accuracy"``.
        epochs: of the training run.
        repeat: ``"mean"``, or the training run: 0, 1 or 2.
        transform: applied to a graph whenever it is accessed.
        pre_transform: applied to every graph before it is saved.
        pre_filter: whether a graph is to be saved.
        force_reload: process again.

    Raises:
        ValueError: the labels are not there, or wrong: see :func:`~vsgae.nasbench101.labels.load_labels`.

    **STATS:**

    .. list-table::
        :widths: 10 10 10 10 10 10
        :header-rows: 1

        * - Name
          - #graphs
          - #nodes
          - #edges
          - #features
          - #tasks
        * - official release, surrogate
          - 423,624
          - ~6.8
          - ~8.7
          - 5
          - 1
    """

    def __init__(
        self,
        root: str,
        source: str = OFFICIAL,
        metric: str = "validation_accuracy",
        epochs: int = 108,
        repeat: str | int = "mean",
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
    ) -> None:
        self.config = LabelConfig(source=source, metric=metric, epochs=epochs, repeat=repeat)
        super().__init__(root, transform, pre_transform, pre_filter, force_reload=force_reload)
        self.load(self.processed_paths[0])

    @property
    def raw_file_names(self) -> list[str]:
        return [str(label_file(self.config).absolute())]

    @property
    def processed_file_names(self) -> list[str]:
        config = self.config
        return [f"{config.metric}-{config.epochs}-{config.repeat}-{label_digest(config)[:16]}.pt"]

    def download(self) -> None:
        """Downloads nothing; where the labels are not there, the error says how to get them."""
        label_file(self.config)

    def process(self) -> None:
        self._data, self.slices = _collated(load_labels(self.config))
        if self.pre_filter is not None or self.pre_transform is not None:
            graphs = [self.get(i) for i in range(self.len())]
            if self.pre_filter is not None:
                graphs = [graph for graph in graphs if self.pre_filter(graph)]
            if not graphs:
                raise ValueError("pre_filter leaves none of the cells")
            if self.pre_transform is not None:
                graphs = [self.pre_transform(graph) for graph in graphs]
            self._data, self.slices = self.collate(graphs)
        fs.torch_save((self._data.to_dict(), self.slices, Data), self.processed_paths[0])


def _collated(labels: Labels) -> tuple[Any, dict[str, torch.Tensor]]:
    """All graphs as one, and where each begins: as ``InMemoryDataset.collate`` makes them of a list of graphs."""
    cells = labels.cells
    operations = cells.operations[cells.node_mask]
    edge_index = cells.adjacency.nonzero()[:, 1:].t().contiguous()
    data = Data(
        x=(operations[:, None] == torch.arange(len(OPERATIONS))).float(),
        edge_index=edge_index,
        y=labels.values,
        position=labels.index,
    )
    ends = {"x": cells.num_nodes.cumsum(0), "edge_index": cells.num_edges.cumsum(0)}
    ends["y"] = ends["position"] = torch.arange(1, len(cells) + 1)
    return data, {name: torch.cat([torch.zeros(1, dtype=torch.int64), end]) for name, end in ends.items()}
