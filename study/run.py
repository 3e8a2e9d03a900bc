"""The command line: ``python -m study.run STUDY``."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.stopping import NoAnswerError, Stopped, stoppable, time_limit

if TYPE_CHECKING:  # nothing is imported before the arguments are read: --help answers at once
    from study.proposals import Proposals
    from study.space import PlannedSearch, Study, Trial
    from study.tracking import Tracker

DESCRIPTION = """\
Run the trials of a study that are not yet finished, record them in MLflow, and write results/STUDY.{csv,md,tex}
(on predicted labels results/STUDY-surrogate.*).
The same command again goes on where the last one stopped.
"""

STUDY = """\
a file of search_spaces/ without .yaml, or a path to one; or `status`, how far all are; or `figures`, from records;
or `report`, all of results/ on one page
"""

DATA = """\
labels: 'official', 'surrogate' or a measured table (.csv, .parquet) [official if a release is imported, or surrogate]
"""

LOCAL = "run one trial in this process, without Ray; with the settings that the study's file has under `local`, if any"

GOES_ON = "the same command goes on from here"

MEASURED = "measured"
GPUS = f"""\
in place of the study's figure; '{MEASURED}': as its first epoch takes of the memory of one, with a tenth to spare
"""

MINUTES_OF_A_YEAR = 365 * 24 * 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 where a trial failed or MLflow is silent, 2 for a wrong command, and those of
    :data:`study.stopping.WHY`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(arguments)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # it is asked again, but not while all else waits
    try:
        with stoppable():
            return _carry_out(args, arguments)
    except Stopped as stopped:
        print(f"\n{stopped}; {GOES_ON}", file=sys.stderr)
        return stopped.exit_code
    except NoAnswerError as error:
        print(f"error: {error}; {GOES_ON}", file=sys.stderr)
        return 1


def _carry_out(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    if args.study in RECORDS:
        with _errors_in_one_line():
            given = [name for name, value in vars(args).items() if name != "study" and value]
            if given:
                raise ValueError(f"{args.study} takes no --{given[0].replace('_', '-')}")
        return RECORDS[args.study]()
    with _errors_in_one_line():
        job = _read(args)
    for description in dict.fromkeys(trial.config.data().description for trial in job.trials):
        print(f"labels: {description}", flush=True)
    if job.made_small:
        print(f"local: a small version of {job.study.name}, by its file: {', '.join(job.made_small)}", flush=True)
    if args.plan:
        with _errors_in_one_line():
            _print_plan(job, args.address)
        return 0

    from study.lock import only_driver
    from study.storage import check_storage

    with ExitStack() as stack:
        with _errors_in_one_line():
            check_storage()
            stack.enter_context(only_driver(job.study.name))
        if args.minutes is not None:
            stack.enter_context(time_limit(args.minutes))
        stack.callback(job.tracker.interrupt)
        proposals = None if job.search is None else job.proposals()
        trials = _run_here(job, proposals) if args.local else _run_on_ray(job, args.address, proposals, stack)
        if proposals is not None:
            return _report_search(job, proposals, args, arguments)
        return _report(job, trials, args, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", metavar="STUDY", help=STUDY)
    parser.add_argument("--local", action="store_true", help=LOCAL)
    parser.add_argument("--trial", type=int, metavar="K", help="only this trial; with --local: or the first unfinished")
    parser.add_argument("--trials", type=int, metavar="N", help="of a search: N more than there are")
    parser.add_argument("--plan", action="store_true", help="print the trials and their states, and start nothing")
    parser.add_argument("--data", metavar="SOURCE", help=DATA)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a setting, such as training.lr=0.0001; may be given more than once",
    )
    parser.add_argument("--address", metavar="ADDR", help="of a running Ray cluster; without it, Ray is started here")
    parser.add_argument("--gpus-per-trial", type=_share, metavar="F", help=GPUS)
    parser.add_argument("--minutes", type=float, metavar="M", help="stop then, as by Ctrl-C, with exit code 3")
    return parser


def _share(text: str) -> float | str:
    try:
        return text if text == MEASURED else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, nor '{MEASURED}'") from None


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """A wrong command ends here; an error of a trial does not, and keeps its traceback."""
    try:
        yield
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@dataclass(frozen=True)
class _Job:
    """A command that was found right: the study's trials, those chosen of them, and what they stand on.

    Args:
        gpus_per_trial: in place of the study's figure; until it is measured, a whole one.
        measure: on a GPU.
        search: if the study is one; ``trials`` is then what all of its trials have in common.
        more: trials of it, beside those that there are.
    """

    study: Study
    trials: list[Trial]
    chosen: list[Trial]
    made_small: list[str]
    tracker: Tracker
    gpus_per_trial: float | None
    measure: bool
    search: PlannedSearch | None
    more: int | None

    def proposals(self) -> Proposals:
        from study.proposals import Proposals

        assert self.search is not None
        return Proposals(self.search, self.tracker.runs(), self.more)

    def unfinished(self) -> list[Trial]:
        runs = self.tracker.runs()
        return [trial for trial in self.chosen if trial.key not in runs or not runs[trial.key].finished]


def _read(args: argparse.Namespace) -> _Job:
    """Check the whole command; it writes nothing."""
    from study.settings import flatten, parse_assignment
    from study.space import load_study, plan_search, plan_trials

    study = load_study(args.study)
    given: dict[str, object] = {}
    for text in args.set:
        given |= parse_assignment(text)
    small = {name: value for name, value in flatten(study.local).items() if args.local and name not in given}
    search = None if study.search is None else plan_search(study, small | given, args.data)
    if search is None:
        trials = plan_trials(study, small | given, args.data)
        if args.trials is not None:
            raise ValueError(f"{study.name} has no search; it takes no --trials {args.trials}")
    else:
        trials = [search.base]
        if args.trial is not None:
            raise ValueError(f"{study.name} is a search, which draws its trials; it takes no --trial {args.trial}")
        if args.trials is not None and args.trials < 1:
            raise ValueError(f"trials is {args.trials}; it must be at least 1")
        if args.gpus_per_trial == MEASURED:
            raise ValueError(f"{study.name} is a search, whose trials are not known yet; none can be {MEASURED}")
    if args.trial is not None and not 0 <= args.trial < len(trials):
        raise ValueError(f"there is no trial {args.trial}; {study.name} has the trials 0 to {len(trials) - 1}")
    if args.local and args.address is not None:
        raise ValueError(f"--local runs in this process; it takes no --address {args.address}")
    if args.minutes is not None and not 0 < args.minutes <= MINUTES_OF_A_YEAR:
        raise ValueError(f"minutes is {args.minutes:g}; it must be above 0 and at most {MINUTES_OF_A_YEAR}, a year")
    measure = args.gpus_per_trial == MEASURED
    gpus_per_trial = 1.0 if measure else args.gpus_per_trial
    study.resources.where(0, gpus_per_trial)

    from study.tables import Published
    from study.tracking import Tracker

    if study.published is not None:
        Published.read(study.published).check(type(trials[0].config))
    chosen = trials if args.trial is None else [trials[args.trial]]
    for trial in trials:
        trial.config.data()
    made_small = [f"{name}={value}" for name, value in small.items()]
    return _Job(study, trials, chosen, made_small, Tracker(study.name), gpus_per_trial, measure, search, args.trials)


def _print_plan(job: _Job, address: str | None) -> None:
    from study.cluster import Room, running_ray
    from study.console import listing

    print(f"study: {job.study.name}: {job.study.description}")
    if address is not None:
        with running_ray(address, job.study.resources, job.gpus_per_trial) as room:
            print(f"resources: {room}")
    else:
        num_gpus = _num_gpus()
        each = job.study.resources.where(num_gpus, job.gpus_per_trial)
        print(f"resources: {Room(each, os.cpu_count() or 1, num_gpus)}")
    if job.measure:
        print("resources: more trials on a GPU, once it is measured how many fit")
    if job.search is None:
        print(listing(job.chosen, job.tracker.runs()))
        return
    proposals = job.proposals()
    print(f"search: {job.search.name}")
    print(listing(proposals.trials(), job.tracker.runs()))
    print(f"{proposals.left} to come")


def _run_here(job: _Job, proposals: Proposals | None) -> list[Trial]:
    """The first unfinished of the chosen trials, or the next of a search, in this process."""
    from tqdm import tqdm

    from study.console import describe, say

    if proposals is not None:
        trial, tracker = proposals.propose(), job.tracker
        if trial is None:
            return []
    else:
        unfinished, tracker = job.unfinished(), job.tracker
        if not unfinished:
            return job.chosen[:1]
        trial = unfinished[0]
    device = "cuda" if job.study.resources.where(_num_gpus(), job.gpus_per_trial).gpus else "cpu"
    epoch = tracker.start(trial, device=device)
    say(trial, f"goes on after epoch {epoch}" if epoch else f"started on {device}")
    try:
        with tqdm(total=trial.config.epochs, unit="epoch") as bar:
            for metrics in trial.place.run(trial.config, device):
                if "epoch" in metrics:
                    tracker.log_epoch(trial, metrics)
                    bar.set_postfix_str(trial.config.progress(metrics), refresh=False)
                    bar.update()
                    if proposals is not None and proposals.report(trial, metrics):
                        tracker.stop_early(trial)
                        proposals.stop_early(trial)
                        break
            else:
                tracker.finish(trial, metrics)
                if proposals is not None:
                    proposals.finish(trial, metrics)
    except Exception as error:
        tracker.fail(trial, describe(error), traceback.format_exc())
        if proposals is not None:
            proposals.fail(trial)
        raise
    trial.place.remove()
    return [trial]


def _run_on_ray(job: _Job, address: str | None, proposals: Proposals | None, stack: ExitStack) -> list[Trial]:
    """All chosen trials that are unfinished, or all of a search that are left, on this machine or a cluster."""
    unfinished = job.unfinished() if proposals is None else []
    if unfinished or (proposals is not None and proposals.left):
        if address is None:
            _keep_ray_to_this_user()
        from study.cluster import check_shared, measured, running_ray
        from study.tune import run_search, run_trials

        with _errors_in_one_line():
            room = stack.enter_context(running_ray(address, job.study.resources, job.gpus_per_trial))
            check_shared(job.trials[0].place)
        if proposals is not None:
            run_search(proposals, job.tracker, room)
            return job.chosen
        if job.measure:
            room = measured(room, list({trial.configuration: trial.config for trial in unfinished}.values()))
            print(f"measured: {room}", flush=True)
        run_trials(unfinished, job.tracker, room)
    return job.chosen


def _keep_ray_to_this_user() -> None:
    """A Ray that is started here listens on the loopback address only, and to nobody without a token of its own, since
    whoever reaches it may run any code. It reads this when it is imported."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its name for that, on Linux too
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _report(job: _Job, trials: list[Trial], args: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Say what came of ``trials``; write the table after a run of the whole study, or once all of it is finished."""
    from study.console import listing
    from study.tables import write_tables

    runs = job.tracker.runs()
    print(listing(trials, runs))
    if args.local:
        config = trials[0].config
        print(config.report(runs[trials[0].key].metrics))
        if config.data().caution:
            print(f"caution: {config.data().caution}")
    unfinished = [trial for trial in job.trials if trial.key not in runs or not runs[trial.key].finished]
    if not unfinished or not (args.local or args.trial is not None):
        command = shlex.join(["python", "-m", "study.run", *arguments])
        files = write_tables(job.study, job.trials, runs, command=command)
        finished = [trial for trial in job.trials if trial not in unfinished]
        job.tracker.attach([runs[trial.key].run_id for trial in finished], files, "table")
        print(f"\n{files[1].read_text()}\nwritten: {', '.join(map(str, files))}")
    return 1 if any(trial in unfinished for trial in trials) else 0


def _report_search(job: _Job, proposals: Proposals, args: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Say what came of the search's trials; write its table, with ``--local`` once none is left."""
    from study.console import listing
    from study.search_tables import write_search

    runs = job.tracker.runs()
    print(listing(proposals.trials(), runs))
    if proposals.trials() and not (args.local and proposals.left):
        command = shlex.join(["python", "-m", "study.run", *arguments])
        files = write_search(job.study, proposals, runs, command=command)
        print(f"\n{files[1].read_text()}\nwritten: {', '.join(map(str, files))}")
    if proposals.problem:
        print(f"error: {proposals.problem}", file=sys.stderr)
    return 1 if proposals.failed or proposals.problem else 0


def _print_status() -> int:
    from study.status import status

    print(status() or "nothing is recorded in this folder; start with: python -m study.run table1 --local")
    return 0


def _draw_figures() -> int:
    from study.figures import write_figures

    files, missing = write_figures()
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    if files:
        print(f"written: {', '.join(map(str, files))}")
    return 0 if files else 1


def _write_report() -> int:
    from study.report import write_report

    with _errors_in_one_line():
        print(f"written: {write_report()}")
    return 0


RECORDS = {"status": _print_status, "figures": _draw_figures, "report": _write_report}
"""What may stand in place of a study, and reads the records alone."""


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    sys.exit(main())
