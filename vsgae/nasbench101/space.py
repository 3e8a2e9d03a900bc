"""The whole space with its hashes: computed once, then read from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from vsgae.nasbench101.cache import cache_path, read_table, write_table

if TYPE_CHECKING:
    from vsgae.cells import Cells

VERSION = 1  # of the cached table; to be raised with every change of its columns or of what is in them


@dataclass(frozen=True, eq=False)
class Space:
    """All 423,624 cells in the order of the enumeration, and their module hashes (strings)."""

    cells: Cells
    hashes: pa.StringArray

    def index(self, hashes: Sequence[str] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """int64 ``[N]``: where in the enumeration these hashes are. A call takes about 0.05 s, so ask for many at once.

        Raises:
            ValueError: a hash that no cell has; the message names the first and its row.
        """
        from pyarrow import compute  # a tenth of a second, which many a caller of load_space does without

        wanted = hashes if isinstance(hashes, (pa.Array, pa.ChunkedArray)) else pa.array(hashes, pa.string())
        found = compute.index_in(wanted, self.hashes)
        if found.null_count:
            row = compute.is_null(found).index(True).as_py()
            raise ValueError(f"row {row}: {wanted[row].as_py()!r} is the module hash of no NAS-Bench-101 cell")
        return found.to_numpy(zero_copy_only=False).astype(np.int64)


def load_space() -> Space:
    """The space from the cache; the first call ever computes it, in some 15 s, with a progress bar."""
    from vsgae.nasbench101.enumeration import cells_of

    *codes, hashes = _table().columns
    return Space(cells_of(*map(_to_numpy, codes)), hashes.combine_chunks())


def count_cells() -> dict[int, int]:
    """The number of cells by the number of their nodes. From the cache it is read without torch, whose import takes
    longer than this."""
    num_nodes = _to_numpy(_table(["num_nodes"])["num_nodes"])
    return {int(nodes): int(count) for nodes, count in zip(*np.unique(num_nodes, return_counts=True), strict=True)}


def _table(columns: Sequence[str] | None = None) -> pa.Table:
    """These columns of the cached table, all by default, which is built if need be."""
    path = cache_path("nasbench101-cells", VERSION)
    table = read_table(path, VERSION, columns)
    if table is None:
        table = _build()
        write_table(path, table, VERSION)
        table = table if columns is None else table.select(columns)
    return table


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Arrow's own to_numpy imports pandas, which takes longer than to read the table."""
    return np.from_dlpack(column.combine_chunks())


def _build() -> pa.Table:
    """The codes of the enumeration and the module hashes."""
    from vsgae.nasbench101.enumeration import cells_of, enumerate_codes
    from vsgae.nasbench101.hashing import iterate_module_hashes

    with tqdm(desc="NAS-Bench-101: enumerating", unit=" cells") as bar:
        codes = enumerate_codes()
        cells = cells_of(*codes)
        hashes = np.empty(len(cells), "S32")
        bar.set_description("NAS-Bench-101: hashing")
        bar.reset(total=len(cells))
        for index, found in iterate_module_hashes(cells):
            hashes[index] = found
            bar.update(len(index))
    columns = [*map(pa.array, codes), pa.array(hashes).cast(pa.string())]
    return pa.table(columns, names=["num_nodes", "edges", "labeling", "module_hash"])
