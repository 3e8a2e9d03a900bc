"""The whole space with its hashes: computed once, then read from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from vsgae.cells import Cells
from vsgae.nasbench101.cache import cache_path, read_table, write_table
from vsgae.nasbench101.enumeration import cells_of, enumerate_codes
from vsgae.nasbench101.hashing import iterate_module_hashes

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
    path = cache_path("nasbench101-cells", VERSION)
    table = read_table(path, VERSION)
    if table is None:
        table = _build()
        write_table(path, table, VERSION)
    num_nodes, edges, labelings, hashes = (column.combine_chunks() for column in table.columns)
    # Arrow's own to_numpy imports pandas, which takes longer than all this.
    return Space(cells_of(*map(np.from_dlpack, (num_nodes, edges, labelings))), hashes)


def _build() -> pa.Table:
    """The codes of the enumeration and the module hashes."""
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
