"""One driver a study: a second one in the same folder would record the same trials twice."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ATTEMPTS, PAUSE = 5, 0.1  # seconds: `status` holds the lock for a moment to see whether it is held


@contextmanager
def only_driver(study: str) -> Iterator[None]:
    """Hold the study's lock in this folder. It goes with the process, however that ends.

    Raises:
        ValueError: another process holds it.
    """
    path = _path(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        for attempt in range(ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == ATTEMPTS - 1:
                    file.seek(0)
                    by = file.read().strip()
                    raise ValueError(f"{study} is already being run in this folder by process {by}") from None
                time.sleep(PAUSE)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def driver(study: str) -> int | None:
    """The process that runs the study in this folder, if there is one."""
    if not _path(study).exists():
        return None
    with _path(study).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read())
    return None


def _path(study: str) -> Path:
    return Path("runs", study, "lock")
