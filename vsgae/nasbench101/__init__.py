"""All that knows NAS-Bench-101: its cells, their hashes, the official release and the accuracies."""

from typing import TYPE_CHECKING, Any

from vsgae.nasbench101.enumeration import enumerate_cells
from vsgae.nasbench101.hashing import module_hashes
from vsgae.nasbench101.space import Space, load_space
from vsgae.nasbench101.tfrecord import read_tfrecord

if TYPE_CHECKING:
    from vsgae.nasbench101.dataset import NASBench101

__all__ = ["NASBench101", "Space", "enumerate_cells", "load_space", "module_hashes", "read_tfrecord"]


def __getattr__(name: str) -> Any:
    if name == "NASBench101":  # importing torch_geometric takes as long as everything else together
        from vsgae.nasbench101.dataset import NASBench101

        return NASBench101
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
