"""One driver a study: a second one in the same folder would record the same trials twice."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_driver(study: str) -> Iterator[None]:
    """Hold the study's lock in this folder. It goes with the process, however that ends.

    Raises:
        ValueError: another process holds it.
    """
    path = Path("runs", study, "lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{study} is already being run in this folder by process {file.read().strip()}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
