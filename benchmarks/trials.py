"""What the study layer adds to a trial: studies of trials that do nothing, through the command that runs any study.

    python benchmarks/trials.py [--numbers 100 300 1000]

Prints, for each number of trials, the seconds from one trial's end to the next one's (by what MLflow holds; in the
mean, and for the first and the last tenth), those of the command before the first and after the last, those of the
same command again, which finds that all are finished, and the driver's memory. A trial yields one epoch and leaves two
empty files. Each study is a process of its own in a folder of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow import MlflowClient

from study.run import main as run_study
from study.space import TRIALS
from study.trial import CONFIG, MODEL, OURS, Data, Measure, TrialConfig

STUDY = """\
description: Trials that do nothing
trains: nothing
configurations: {{nothing: {{}}}}
repeats: {number}
"""


@dataclass(frozen=True, kw_only=True)
class Nothing(TrialConfig):
    MEASURES: ClassVar = {"test_loss": Measure("Loss")}
    METHODS: ClassVar = {"": OURS}
    CURVE: ClassVar = "train_loss"
    CELLS: ClassVar = {}

    @property
    def epochs(self) -> int:
        return 1

    def data(self) -> Data:
        return Data("no labels", {})

    def run(self, directory: Path, device: str = "cpu") -> Iterator[dict[str, float]]:
        yield {"epoch": 1, "train_loss": 0.0}
        (directory / MODEL).touch()
        (directory / CONFIG).touch()
        yield {"test_loss": 0.0}

    def progress(self, metrics: Mapping[str, float]) -> str:
        return ""

    @staticmethod
    def scores(metrics: Mapping[str, float]) -> str:
        return ""

    @staticmethod
    def report(metrics: Mapping[str, float]) -> str:
        return ""


def measure(number: int) -> None:
    """One study, in the working directory."""
    TRIALS["nothing"] = Nothing
    Path("nothing.yaml").write_text(STUDY.format(number=number))
    command, again = seconds_of_command(), seconds_of_command()
    client = MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("nothing")
    runs = client.search_runs([experiment.experiment_id], max_results=number)
    assert [run.info.status for run in runs] == ["FINISHED"] * number
    ends = sorted(run.info.end_time / 1000 for run in runs)

    def between(first: int, last: int) -> float:
        return (ends[last] - ends[first]) / (last - first)

    tenth = number // 10
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{number:5,d} trials: {between(0, number - 1):.3f} s a trial "
        f"({between(0, tenth):.3f} at first, {between(number - 1 - tenth, number - 1):.3f} at last); "
        f"the rest of the command {command - (ends[-1] - ends[0]):.1f} s, the same again {again:.1f} s; "
        f"driver {memory:,.0f} MiB",
        flush=True,
    )


def seconds_of_command() -> float:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = run_study(["nothing.yaml"])
    assert code == 0, printed.getvalue()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[100, 300, 1000])
    numbers = parser.parse_args().numbers
    if len(numbers) == 1:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            measure(numbers[0])
    for number in numbers if len(numbers) > 1 else []:
        subprocess.run([sys.executable, __file__, "--numbers", str(number)], check=True)


if __name__ == "__main__":
    main()
