"""NAS-Bench-101's module hash as it is defined, word by word: for tests, and for ``benchmarks/`` to measure against."""

import hashlib

from vsgae.cells import Cells


def plain_hash(cells: Cells) -> str:
    """The definition, word by word, for one cell."""
    n = int(cells.num_nodes)
    labels = [{0: -1, 4: -2}.get(code, code - 1) for code in cells.operations[0, :n].tolist()]
    edge = cells.adjacency[0].tolist()

    def md5_of(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    hashes = [
        md5_of(str((sum(edge[v][w] for w in range(n)), sum(edge[w][v] for w in range(n)), labels[v]))) for v in range(n)
    ]
    for _ in range(n):
        hashes = [
            md5_of(
                "".join(sorted(hashes[w] for w in range(n) if edge[w][v]))
                + "|"
                + "".join(sorted(hashes[w] for w in range(n) if edge[v][w]))
                + "|"
                + hashes[v]
            )
            for v in range(n)
        ]
    return md5_of(str(sorted(hashes)))
