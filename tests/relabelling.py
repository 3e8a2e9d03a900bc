"""Other forms of the same cells."""

from __future__ import annotations

import numpy as np

from vsgae.cells import Cells


def with_neighbours_swapped(cells: Cells) -> Cells:
    """Each with its first two consecutive inner nodes swapped that no edge joins, so that edges lead to later nodes."""
    forms, changed = cells.to_nasbench(), 0
    for i, (matrix, names) in enumerate(forms):
        for v in range(1, len(names) - 2):
            if not matrix[v, v + 1]:
                order = [*range(v), v + 1, v, *range(v + 2, len(names))]
                forms[i] = (matrix[np.ix_(order, order)], [names[u] for u in order])
                changed += 1
                break
    assert changed > 0.4 * len(cells)
    return Cells.from_nasbench(forms)
