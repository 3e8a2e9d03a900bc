"""Parquet files that are computed once and kept: written whole or not at all, checked when read.

A kept file carries its version in its name and in its metadata, and a checksum for every page. Whatever cannot be read
back exactly is reported in one line on stderr and counts as absent, so that its owner builds it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from vsgae.files import replacing

VERSION_KEY = b"vsgae.cache_version"

logger = logging.getLogger(__name__)


def cache_directory() -> Path:
    """``$VSGAE_CACHE``, else ``$XDG_CACHE_HOME/vsgae``, else ``~/.cache/vsgae``; created if need be."""
    own, common = os.environ.get("VSGAE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    directory = Path(own).expanduser() if own else Path(common or "~/.cache").expanduser() / "vsgae"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def cache_path(name: str, version: int) -> Path:
    """The file in :func:`cache_directory` that keeps ``name`` in the layout ``version``."""
    return cache_directory() / f"{name}-v{version}.parquet"


def write_table(path: Path, table: pa.Table, version: int) -> None:
    """Write ``table`` with its schema metadata; readers and other writers of ``path`` see all of it or nothing."""
    metadata = {**(table.schema.metadata or {}), VERSION_KEY: str(version).encode()}
    with replacing(path) as temporary:
        parquet.write_table(
            table.replace_schema_metadata(metadata), temporary, compression="zstd", write_page_checksum=True
        )


def read_table(path: Path, version: int, columns: Sequence[str] | None = None) -> pa.Table | None:
    """The table that :func:`write_table` wrote, or None where there is none to be had.

    Args:
        columns: the columns to read, all by default; ``[]`` reads the schema metadata alone.

    Returns:
        None if the file is absent, and, after a line on stderr, if it is damaged or of another version.
    """
    if not path.exists():
        return None
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a damaged column name
        reason = str(error).partition("\n")[0]
        logger.warning("The cached file %s is damaged (%s): it will be built again.", path, reason)
        return None
    found = (table.schema.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    if found != str(version):
        logger.warning("The cached file %s has version %s, not %s: it will be built again.", path, found, version)
        return None
    return table
