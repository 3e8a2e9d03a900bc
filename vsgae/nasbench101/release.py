"""The official release in the cache: imported from its file, which is downloaded only when asked for."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from vsgae.nasbench101.cache import cache_directory, cache_path, read_table, write_table
from vsgae.nasbench101.tfrecord import EPOCHS, REPEATS, VERSION, file_stamp, parse_tfrecord

NUM_CELLS = 423_624
KINDS = {"only108": (108,), "full": EPOCHS}  # the two official files, and the epochs that each has runs of
URL = "https://storage.googleapis.com/nasbench/nasbench_{}.tfrecord"
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Release:
    """An imported release: where its table is, and the number of cells and the SHA-256 of the file it came from."""

    kind: str
    path: Path
    num_cells: int
    digest: str

    @property
    def num_records(self) -> int:
        return self.num_cells * len(KINDS[self.kind]) * REPEATS

    def __str__(self) -> str:
        cells = f"{self.num_cells:,} of {NUM_CELLS:,} cells"
        return f"{self.kind}: {self.num_records:,} records of {cells} in {self.path}"


def find_release(epochs: int) -> Release:
    """The imported release with runs of so many epochs; where both have them, ``only108``.

    Raises:
        ValueError: none is imported.
    """
    for kind, budgets in KINDS.items():
        if epochs in budgets and (found := _imported(kind)):
            return found[0]
    kinds = [kind for kind, budgets in KINDS.items() if epochs in budgets]
    raise ValueError(
        f"no official release with runs of {epochs} epochs ({' or '.join(kinds)}) is imported: run "
        f"`python -m vsgae.nasbench101 import FILE` or `python -m vsgae.nasbench101 download --kind {kinds[0]}`, "
        "or name another source (--data surrogate, or --data TABLE for measured cells)"
    )


def is_imported() -> bool:
    """Whether a release was imported, of either kind; also if its file is damaged now, or of another version."""
    directory = cache_directory()
    return any(next(directory.glob(f"nasbench101-{kind}-v*.parquet"), None) for kind in KINDS)


def import_release(path: str | Path, kind: str | None = None) -> Release:
    """Read an official release into the cache, in place of an earlier import of its kind.

    Runs of 108 epochs alone make it ``only108``, runs of 4, 12, 36 and 108 epochs ``full``. It may hold fewer cells
    than the benchmark, each with all of its runs. A file that is imported already is not read again.

    Args:
        kind: what the file must be, with every cell of the benchmark; None takes it as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a fault that :func:`~vsgae.nasbench101.read_tfrecord` finds, a cell without one of its runs, other
            epochs, or not what ``kind`` says. Nothing is imported then.
    """
    path = Path(path)
    stamp = file_stamp(path)
    for earlier in KINDS:
        found = _imported(earlier)
        if found and found[1] == stamp and (kind is None or _is_whole(found[0], kind)):
            return found[0]
    table = parse_tfrecord(path)
    try:
        release = _described(table, path)
        if kind and not _is_whole(release, kind):
            wanted = Release(kind, path, NUM_CELLS, "")
            raise ValueError(
                f"{release.num_records:,} records of {release.kind}; there must be {wanted.num_records:,} of {kind}"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    metadata = {b"source": stamp, b"sha256": release.digest.encode(), b"cells": str(release.num_cells).encode()}
    write_table(release.path, table.replace_schema_metadata(metadata), VERSION)
    return release


def _imported(kind: str) -> tuple[Release, bytes] | None:
    """The imported release of this kind, and the stamp of the file it came from."""
    path = cache_path(f"nasbench101-{kind}", VERSION)
    table = read_table(path, VERSION, columns=[])
    if table is None:
        return None
    metadata = table.schema.metadata
    return Release(kind, path, int(metadata[b"cells"]), metadata[b"sha256"].decode()), metadata[b"source"]


def _is_whole(release: Release, kind: str) -> bool:
    return (release.kind, release.num_cells) == (kind, NUM_CELLS)


def _described(table: pa.Table, path: Path) -> Release:
    """What the table of this file is, once it is known to have all runs of each of its cells."""
    hashes = table["module_hash"].combine_chunks().dictionary_encode()
    epochs = table["epochs"].to_numpy()
    budgets = tuple(np.unique(epochs).tolist())
    kinds = [kind for kind in KINDS if KINDS[kind] == budgets]
    if not kinds:
        found = ", ".join(map(str, budgets))
        raise ValueError(
            f"runs of {found} epochs; a release has those of 108 (only108), or of 4, 12, 36 and 108 (full)"
        )
    num_cells = len(hashes.dictionary)
    runs = len(budgets) * hashes.indices.to_numpy() + np.searchsorted(budgets, epochs)
    counts = np.bincount(runs, minlength=len(budgets) * num_cells)
    if (counts < REPEATS).any():
        run = int((counts < REPEATS).argmax())
        raise ValueError(
            f"cell {hashes.dictionary[run // len(budgets)]} has {counts[run]} runs of {budgets[run % len(budgets)]} "
            f"epochs; it must have {REPEATS}. The file is not complete"
        )
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Release(kinds[0], cache_path(f"nasbench101-{kinds[0]}", VERSION), num_cells, digest)


def download(kind: str = "only108", url: str | None = None) -> Release:
    """Fetch the official file of this kind into the cache, going on where an earlier download ended, and import it.

    Args:
        kind: ``only108`` (0.5 GB) or ``full`` (2 GB).
        url: where from; the official address by default.

    Raises:
        ConnectionError: the file could not be fetched, or not all of it; what has come is kept.
        ValueError: an unknown kind, or the file is not that release; it is removed then.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be {' or '.join(KINDS)}")
    url = url or URL.format(kind)
    path = cache_directory() / f"nasbench_{kind}.tfrecord"
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        try:
            _fetch(url, part)
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if type(error) is urllib.error.URLError else error
            raise ConnectionError(
                f"cannot download {url}: {reason}. What has come is kept, the same command goes on from there; "
                "a file from elsewhere can be imported"
            ) from error
        os.replace(part, path)
    try:
        return import_release(path, kind)
    except ValueError as error:
        path.unlink()
        raise ValueError(f"{error}. The downloaded file was removed") from error


def _fetch(url: str, part: Path) -> None:
    """Complete ``part``, whose bytes so far are the file's first, and check its size against the server's."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # complete
        part.unlink()  # longer than the file: not its beginning
        return _fetch(url, part)
    with response:
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            range_ = response.headers.get("Content-Range", "")
            match = re.fullmatch(rf"bytes {have}-\d+/(\d+)", range_)
            if not match:
                raise ConnectionError(f"asked for the bytes from {have} on, the server sends {range_!r}")
            size = int(match[1])
        else:  # the whole file, from its beginning
            have, size = 0, int(response.headers.get("Content-Length", -1))
            if size < 0:
                raise ConnectionError("the server does not say how long the file is")
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=size, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while block := response.read(1 << 20):
                file.write(block)
                bar.update(len(block))
    came = part.stat().st_size
    if came != size:
        raise ConnectionError(f"the connection ended after {came:,} of {size:,} bytes")
