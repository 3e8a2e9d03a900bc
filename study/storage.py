"""Where a trial keeps what it needs to go on: a directory, by default ``runs/`` here, or an object store.

``VSGAE_STORAGE`` names it: a path that all machines of a cluster share, or a URL that pyarrow's file systems know, such
as ``s3://bucket/folder``. With a URL, a trial works in a temporary directory and its files are copied after each epoch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow.fs import FileSystem, LocalFileSystem, copy_files

from study.trial import CHECKPOINT, TrialConfig
from vsgae.checkpoints import DamagedCheckpointError

VARIABLE = "VSGAE_STORAGE"


@dataclass(frozen=True)
class Place:
    """Args:
    directory: where the trial's files are while it runs; absolute, since a trial runs in another working directory.
    url: where they are kept, if not there.
    """

    directory: Path
    url: str | None = None

    def run(self, config: TrialConfig, device: str) -> Iterator[dict[str, float]]:
        """:meth:`TrialConfig.run`, from what is kept here; what it writes is kept before its metrics are yielded.

        Raises:
            DamagedCheckpointError: a checkpoint was there that cannot be read; it is set aside.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._fetch([CHECKPOINT])
        kept = self._state(CHECKPOINT)
        try:
            for metrics in config.run(self.directory, device):
                if "epoch" not in metrics:
                    self._keep(config.FILES)
                elif self._state(CHECKPOINT) != kept:  # not so for the epochs of an earlier run, which come again
                    self._keep([CHECKPOINT])
                    kept = self._state(CHECKPOINT)
                yield metrics
        except DamagedCheckpointError as error:
            self._set_aside(CHECKPOINT)
            raise DamagedCheckpointError(f"{error}; it is set aside, the next try starts at epoch 1") from error
        finally:
            if self.url is not None:
                shutil.rmtree(self.directory, ignore_errors=True)

    def finished(self, config: TrialConfig) -> Path:
        """The directory with the finished trial's files, on whichever machine it ran."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._fetch(config.FILES)
        return self.directory

    def remove(self) -> None:
        """All that is kept of the trial."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.url is not None:
            store, folder = FileSystem.from_uri(self.url)
            store.delete_dir(folder)

    def _set_aside(self, name: str) -> None:
        os.replace(self.directory / name, self.directory / f"{name}.damaged")
        if self.url is not None:
            store, folder = FileSystem.from_uri(self.url)
            store.move(f"{folder}/{name}", f"{folder}/{name}.damaged")

    def _keep(self, names: Iterable[str]) -> None:
        if self.url is not None:
            store, folder = FileSystem.from_uri(self.url)
            store.create_dir(folder)
            for name in names:
                copy_files(str(self.directory / name), f"{folder}/{name}", LocalFileSystem(), store)

    def _fetch(self, names: Iterable[str]) -> None:
        if self.url is not None:
            store, folder = FileSystem.from_uri(self.url)
            for name in names:
                if store.get_file_info(f"{folder}/{name}").is_file:
                    copy_files(f"{folder}/{name}", str(self.directory / name), store, LocalFileSystem())

    def _state(self, name: str) -> int | None:
        path = self.directory / name
        return path.stat().st_mtime_ns if path.exists() else None


def place(study: str, key: str) -> Place:
    """Of a study's trial."""
    root = _root()
    if not _is_url(root):
        return Place(Path(root, study, key).absolute())
    return Place(Path(tempfile.gettempdir(), "vsgae", study, key), f"{root}/{study}/{key}")


def check_storage() -> None:
    """Raise ValueError if ``VSGAE_STORAGE`` is nothing that can be reached."""
    try:
        if _is_url(_root()):
            store, folder = FileSystem.from_uri(_root())
            store.create_dir(folder)
        else:
            Path(_root()).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{VARIABLE} is {_root()!r}, which cannot be used: {' '.join(str(error).split())}") from None


def _root() -> str:
    return os.environ.get(VARIABLE, "").removeprefix("file://").rstrip("/") or "runs"


def _is_url(root: str) -> bool:
    return "://" in root
