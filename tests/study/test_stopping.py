from __future__ import annotations

import signal
import time

import pytest

from study.stopping import Stopped, stoppable, time_limit, uninterrupted


@pytest.mark.parametrize(
    ("number", "why", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGALRM, "stopped", 3)]
)
def test_a_signal_stops_what_is_stoppable_with_an_exit_code_of_its_own(number: int, why: str, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=why) as stopped, stoppable():
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before


def test_the_signal_is_known_where_a_library_put_another_exception_in_its_place() -> None:
    with pytest.raises(Stopped, match="terminated"), stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Stopped:
            raise KeyboardInterrupt from None
    with pytest.raises(KeyboardInterrupt) as interrupt, stoppable():
        raise KeyboardInterrupt
    assert not isinstance(interrupt.value, Stopped)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGINT)
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_uninterrupted_is_stopped_once_it_is_done() -> None:
    done = []
    with pytest.raises(Stopped), stoppable():
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]


def test_time_is_over_again_where_the_first_signal_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = signal.setitimer
    monkeypatch.setattr(signal, "setitimer", lambda which, first, again=0.0: timer(which, first, again and 1.0))
    with stoppable(), time_limit(0.001):
        for _ in range(2):
            with pytest.raises(Stopped, match="its minutes are over"):
                time.sleep(10)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # no further signal comes
