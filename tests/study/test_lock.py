from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from study.lock import driver, only_driver

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_second_driver_of_a_study_is_refused_and_told_of_the_first() -> None:
    program = "from study.lock import only_driver\nwith only_driver('small'): pass"
    with only_driver("small"):
        second = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True)
        assert driver("small") == os.getpid()
        assert driver("another") is None
        assert f"small is already being run in this folder by process {os.getpid()}" in second.stderr
        with only_driver("another"):
            pass
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True)


def test_a_look_at_who_holds_the_lock_does_not_refuse_a_study_that_begins_just_then() -> None:
    with only_driver("small"):
        pass
    with Path("runs/small/lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as driver() does for a moment
        later = threading.Timer(0.15, fcntl.flock, (file, fcntl.LOCK_UN))
        later.start()
        with only_driver("small"):
            pass
        later.join()


def test_a_driver_that_was_killed_holds_no_lock() -> None:
    program = "import os\nfrom study.lock import only_driver\nwith only_driver('small'): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    with only_driver("small"):
        pass
    assert driver("small") is None
