"""All that knows NAS-Bench-101: its cells, their hashes, the official release and the accuracies."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsgae.nasbench101.dataset import NASBench101
    from vsgae.nasbench101.enumeration import enumerate_cells
    from vsgae.nasbench101.hashing import module_hashes
    from vsgae.nasbench101.space import Space, load_space
    from vsgae.nasbench101.tfrecord import read_tfrecord

__all__ = ["NASBench101", "Space", "enumerate_cells", "load_space", "module_hashes", "read_tfrecord"]

_MODULES = {  # where each of them is
    "NASBench101": "dataset",
    "Space": "space",
    "enumerate_cells": "enumeration",
    "load_space": "space",
    "module_hashes": "hashing",
    "read_tfrecord": "tfrecord",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: torch and torch_geometric take longer than much of what is done here."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
