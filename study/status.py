"""How far every study is, from its records alone: nothing is planned, and no labels are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import pandas as pd

from study.lock import driver
from study.space import Study, load_study, study_files
from study.tracking import Recorded, Tracker

COLUMNS = (
    "study",
    "setting",
    "labels",
    "trials",
    "finished",
    "stopped early",
    "running",
    "cut off",
    "failed",
    "missing",
    "to do",
)


def status() -> str:
    """A line a study, setting and set of labels that has recorded runs; empty if none has."""
    lines = []
    for name in sorted(study_files()):
        runs = Tracker(name).runs().values()
        at_work = driver(name) is not None
        groups: dict[tuple[str, str], list[Recorded]] = {}
        for run in runs:
            groups.setdefault((run.tags["setting"], run.tags["labels"]), []).append(run)
        lines += [[name, *group, *_progress(load_study(name), of_it, at_work)] for group, of_it in groups.items()]
    return pd.DataFrame(lines, columns=list(COLUMNS)).to_string(index=False) if lines else ""


def _progress(study: Study, runs: Sequence[Recorded], at_work: bool) -> list[object]:
    states = [run.status for run in runs if not run.stopped_early]
    running = states.count("RUNNING") if at_work else 0  # or its driver died
    finished, failed = states.count("FINISHED"), states.count("FAILED")
    early, cut_off = len(runs) - len(states), len(states) - finished - failed - running
    if study.search is None:
        total = len(study.expanded) * study.repeats
        missing = total - len(runs)
    else:  # draws another trial in place of a failed one
        total = max(study.search.trials, len(runs) - failed)
        missing = total - (len(runs) - failed)
        runs = [run for run in runs if run.status != "FAILED"]
    return [total, finished, early, running, cut_off, failed, missing, _to_do(runs, missing, running)]


def _to_do(runs: Sequence[Recorded], missing: int, running: int) -> str:
    """In hours, from the epochs that are missing and the last one of every run; what comes after the last epoch is not
    counted."""
    epochs = median(run.epochs for run in runs) if runs else 0
    left = missing * epochs + sum(run.epochs - run.epoch for run in runs if not (run.finished or run.stopped_early))
    seconds = [run.metrics["seconds"] for run in runs if "seconds" in run.metrics]
    if not left:
        return "-"
    if not seconds:
        return "unknown, no epoch yet"
    hours = left * median(seconds) / 3600
    at_once = f", {running} at once: {_rounded(hours / running)} h" if running > 1 else ""
    return f"{_rounded(hours)} h{at_once}"


def _rounded(hours: float) -> str:
    """To two digits."""
    return f"{hours:.{max(0, 1 - math.floor(math.log10(hours)))}f}"
