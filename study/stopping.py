"""How a command is stopped: by Ctrl-C, by SIGTERM (a queue, a machine that goes away), or when its time is over.

Each raises :class:`Stopped` wherever the process is, but for what is :func:`uninterrupted`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WHY = {
    signal.SIGINT: ("interrupted", 130),
    signal.SIGTERM: ("terminated", 143),
    signal.SIGALRM: ("stopped: its minutes are over", 3),
}
"""What is said of a command that such a signal ended, and its exit code."""


class Stopped(KeyboardInterrupt):
    """The command is to end; what was recorded and the checkpoints stay."""

    def __init__(self, number: int) -> None:
        why, self.exit_code = WHY[signal.Signals(number)]
        super().__init__(why)


class NoAnswerError(BaseException):
    """MLflow is not there. The command ends, nothing is lost, and the same command goes on once it is. No Exception,
    which would be taken for a failure of the trial."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While it lasts, each signal of :data:`WHY` raises :class:`Stopped`, but for those that this process ignores."""

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise Stopped(number)

    heard = [number for number in WHY if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    except KeyboardInterrupt:
        if not received:
            raise
        raise Stopped(received[-1]) from None  # Ray raises a KeyboardInterrupt of its own in place of ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Send SIGALRM to this process after that time, and again every 15 seconds: Python drops an exception that falls
    into a destructor."""
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 15)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What is written here is written whole: a signal of :data:`WHY` has its effect afterwards.

    An exception in the middle of a database's transaction would leave the database locked.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal is handled there
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: waiting.append(number)) for number in WHY}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
