"""Searches: what is drawn, what Optuna is told, and that a killed driver neither loses nor repeats a trial."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections import Counter
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from drivers import all_runs, finish, in_the_middle, start, steps, wait_until
from optuna.trial import TrialState

from study.proposals import DATABASE, Proposals
from study.run import main
from study.search import Range, Search
from study.search_records import COMPLETE, EARLY, front, importance, recorded_searches, trials_table
from study.space import PlannedSearch, load_study, plan_search
from study.tracking import Recorded, Tracker

TAU = "best_validation_kendall_tau"
SEARCH = {
    "description": "A small search",
    "base": {
        "model": {"encoder": {"node_dim": 6, "graph_dim": 4, "rounds": 1}, "hidden": [3]},
        "training": {"batch_size": 32, "epochs": 9},
    },
    "search": {
        "objectives": {TAU: "maximize"},
        "trials": 6,
        "halving": {"grace": 2, "reduction": 3},
        "space": {
            "training.lr": {"low": 1.0e-3, "high": 1.0e-1, "log": True},
            "model.encoder.rounds": {"low": 1, "high": 2},
            "training.loss": ["mse", "huber"],
            "model.hidden": [[3], [4, 3]],
        },
    },
}


@pytest.fixture
def search_file(study_folder: Path) -> Path:
    path = study_folder / "search_spaces" / "tune.yaml"
    path.write_text(yaml.safe_dump(SEARCH))
    return path


def planned(small_table: Path, **settings: object) -> PlannedSearch:
    return plan_search(
        load_study("tune"), {f"search.{name}": value for name, value in settings.items()}, str(small_table)
    )


def recorded(status: str, metrics: dict[str, float] | None = None, **tags: str) -> Recorded:
    return Recorded("id", status, 9, 9, metrics or {}, tags)


def states() -> list[str]:
    [name] = optuna.get_all_study_names(f"sqlite:///{DATABASE}")
    return [trial.state.name for trial in optuna.load_study(study_name=name, storage=f"sqlite:///{DATABASE}").trials]


def test_a_whole_number_is_searched_among_whole_numbers_and_choices_among_theirs(
    search_file: Path, small_table: Path
) -> None:
    proposals = Proposals(planned(small_table, sampler="random"), {})
    assert not Path(DATABASE).exists()
    trials = [proposals.propose() for _ in range(6)]
    assert proposals.propose() is None
    assert [trial.name for trial in trials] == [f"trial {number}/seed=0 search.sampler=random" for number in range(6)]
    assert {trial.config.model.encoder.rounds for trial in trials} == {1, 2}
    assert {trial.config.training.loss for trial in trials} == {"mse", "huber"}
    assert {trial.config.model.hidden for trial in trials} == {(3,), (4, 3)}
    rates = {trial.config.training.lr for trial in trials}
    assert len(rates) == 6
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)


def test_an_interruption_changes_no_draw_and_what_was_cut_off_comes_first(search_file: Path, small_table: Path) -> None:
    search = planned(small_table, sampler="random")
    whole = Proposals(search, {})
    keys = [whole.propose().key for _ in range(6)]
    Path(DATABASE).unlink()
    for _ in range(2):  # each driver dies after it has drawn one more
        proposals = Proposals(search, {})
        drawn = [proposals.propose().key for _ in range(len(proposals._cut_off) + 1)]
    assert drawn == keys[:2]
    again = Proposals(search, {keys[0]: recorded("RUNNING")})
    assert again.left == 6
    assert [again.propose().key for _ in range(6)] == keys


def test_a_driver_that_dies_while_it_draws_leaves_a_trial_that_is_drawn_to_the_end(
    search_file: Path, small_table: Path
) -> None:
    search = planned(small_table, sampler="random")
    proposals = Proposals(search, {})
    proposals.study.ask().suggest_categorical("training.loss", ["mse", "huber"])
    again = Proposals(search, {})
    assert again.trials() == []
    assert again.left == 6
    assert again.propose().index == 0
    assert [trial.index for trial in again.trials()] == [0]


def test_the_third_that_is_best_goes_on_and_the_others_are_told_as_pruned(search_file: Path, small_table: Path) -> None:
    proposals = Proposals(planned(small_table), {})
    ends = []
    for tau in (0.5, 0.4, 0.6, 0.55, 0.7, 0.1):
        trial = proposals.propose()
        for epoch in range(1, 10):
            if proposals.report(trial, {"epoch": epoch, "validation_kendall_tau": tau}):
                proposals.stop_early(trial)
                ends.append(epoch)
                break
        else:
            proposals.finish(trial, {TAU: tau})
            ends.append(9)
    assert ends == [9, 2, 9, 2, 9, 2]
    assert states() == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "COMPLETE", "PRUNED"]


def test_where_halving_ended_a_trial_it_ends_again_if_the_driver_died_just_then(
    search_file: Path, small_table: Path
) -> None:
    first = Proposals(planned(small_table), {})
    good, bad = first.propose(), first.propose()
    for epoch in (1, 2, 3):
        assert not first.report(good, {"epoch": epoch, "validation_kendall_tau": 0.5})
    assert not first.report(bad, {"epoch": 1, "validation_kendall_tau": 0.1})
    assert first.report(bad, {"epoch": 2, "validation_kendall_tau": 0.1})
    again = Proposals(planned(small_table), {good.key: recorded("RUNNING"), bad.key: recorded("RUNNING")})
    assert [again.propose(), again.propose()] == [good, bad]
    for epoch, stops in ((1, False), (2, True)):  # which its checkpoint yields again
        assert not again.report(good, {"epoch": epoch, "validation_kendall_tau": 0.5})
        assert again.report(bad, {"epoch": epoch, "validation_kendall_tau": 0.1}) == stops


def test_what_was_recorded_but_not_told_is_told_and_not_run_again(search_file: Path, small_table: Path) -> None:
    first = Proposals(planned(small_table), {})
    finished, stopped = first.propose(), first.propose()
    runs = {finished.key: recorded("FINISHED", {TAU: 0.5}), stopped.key: recorded("KILLED", stopped_early="2")}
    again = Proposals(planned(small_table), runs)
    assert again.left == 6
    assert again.propose().index == 2
    assert states()[:3] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert again.left == 3


def test_a_search_without_halving_trains_to_the_end_what_another_has_stopped(
    search_file: Path, database: Path, small_table: Path
) -> None:
    first, tracker = Proposals(planned(small_table), {}), Tracker("tune")
    stopped = first.propose()
    tracker.start(stopped, device="cpu")
    tracker.stop_early(stopped)
    second = Proposals(planned(small_table, halving=None), tracker.runs())
    trial = second.propose()
    assert (trial.index, trial.key) == (0, stopped.key)
    tracker.start(trial, device="cpu")
    assert not tracker.runs()[trial.key].stopped_early


def test_the_same_configuration_is_trained_once_and_waits_for_its_twin(search_file: Path, small_table: Path) -> None:
    one = {"space.training.lr": [0.1], "space.model.encoder.rounds": [1], "space.model.hidden": [[3]]}
    one |= {"halving": None, "sampler": "random"}
    proposals = Proposals(planned(small_table, **one), {})
    running = []
    while (trial := proposals.propose()) is not None:
        running.append(trial)
    assert len({trial.config.training.loss for trial in running}) == len(running)
    assert proposals.left > 0  # the next is the same as one that runs
    for trial in running:
        proposals.finish(trial, {TAU: 0.5})
    while (trial := proposals.propose()) is not None:
        assert trial.config.training.loss not in {each.config.training.loss for each in running}
        running.append(trial)
        proposals.finish(trial, {TAU: 0.5})
    assert len(running) == 2
    assert states() == ["COMPLETE"] * 6


def test_halving_compares_with_what_another_search_has_run(search_file: Path, small_table: Path) -> None:
    """The first trials of TPE are random, and with the same seed those of the random search."""
    first, runs = Proposals(planned(small_table), {}), {}
    for tau in (0.5, 0.4):
        trial = first.propose()
        for epoch in range(1, 10):
            if first.report(trial, {"epoch": epoch, "validation_kendall_tau": tau}):
                first.stop_early(trial)
                runs[trial.key] = recorded("KILLED", stopped_early=str(epoch))
                break
        else:
            first.finish(trial, {TAU: tau})
            runs[trial.key] = recorded("FINISHED", {TAU: tau})
    second = Proposals(planned(small_table, sampler="random"), runs)
    third = second.propose()
    assert (third.index, second.left) == (2, 3)
    assert [trial.last_step for trial in second.drawn()] == [8, 2, None]
    assert not second.report(third, {"epoch": 1, "validation_kendall_tau": 0.45})
    assert second.report(third, {"epoch": 2, "validation_kendall_tau": 0.45})  # not the best of three


def test_in_place_of_a_failed_trial_the_next_command_draws_another(search_file: Path, small_table: Path) -> None:
    proposals = Proposals(planned(small_table), {})
    proposals.fail(proposals.propose())
    assert (proposals.left, proposals.failed) == (5, 1)
    assert Proposals(planned(small_table), {}).left == 6
    assert Proposals(planned(small_table), {}, more=2).left == 2


def test_a_trial_over_a_limit_is_neither_trained_nor_counted(
    search_file: Path, small_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"constraints.parameters.at_most": 800, "space.model.encoder.node_dim": [4, 8], "sampler": "random"}
    search = planned(small_table, **limits)
    proposals = Proposals(search, {})
    trials = [proposals.propose() for _ in range(6)]
    assert max(trial.config.parameters() for trial in trials) <= 800
    assert len(proposals.trials()) == 6
    refused = Counter(states())["PRUNED"]
    assert refused > 0
    assert len(states()) == 6 + refused
    monkeypatch.setattr("study.proposals.IN_A_ROW", 3)
    none = Proposals(planned(small_table, **{"constraints.parameters.at_most": 5}), {})
    assert none.propose() is None
    assert none.left == 0
    assert none.problem == "3 trials in a row were over a limit of search.constraints"


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random"])
def test_every_sampler_takes_two_objectives(sampler: str, search_file: Path, small_table: Path) -> None:
    settings = {"sampler": sampler, "objectives.parameters": "minimize", "halving": None, "trials": 12}
    search = planned(small_table, **settings)
    for _ in range(12):
        proposals = Proposals(search, {})
        trial = proposals.propose()
        assert not proposals.report(trial, {"epoch": 2, "validation_kendall_tau": 0.0})
        proposals.finish(trial, {TAU: trial.config.training.lr, "parameters": float(trial.config.parameters())})
    assert states() == ["COMPLETE"] * 12
    assert proposals.left == 0


def test_more_trials_are_the_same_search_and_another_sampler_is_another(search_file: Path, small_table: Path) -> None:
    own = planned(small_table)
    assert planned(small_table, trials=9).name == own.name
    assert planned(small_table, sampler="tpe").name == own.name
    other = planned(small_table, sampler="random")
    assert other.name != own.name
    assert other.base.setting == "search.sampler=random"
    again = plan_search(load_study("tune"), json.loads(json.dumps(other.base.overrides)), str(small_table))
    assert again.name == other.name


def test_searches_are_compared_where_they_differ_in_settings_of_search_alone(
    search_file: Path, small_table: Path
) -> None:
    changes = [{}, {"search.sampler": "random"}, {"training.epochs": 4}]
    changes += [{"training.epochs": 4, "search.halving.grace": 1, "search.space.training.loss": ["mse"]}]
    searches = [Proposals(plan_search(load_study("tune"), change, str(small_table)), {}) for change in changes]
    for search in searches:
        search.propose()
    names = [search.planned.name for search in searches]
    compared = [[each.study_name for each in recorded_searches("tune", search.study)] for search in searches]
    assert [set(each) for each in compared] == [set(names[:2])] * 2 + [set(names[2:])] * 2


def test_one_trial_in_this_process_writes_no_table_of_the_search(
    search_file: Path, database: Path, small_table: Path
) -> None:
    assert main(["tune", "--data", str(small_table), "--local"]) == 0
    assert len(states()) == 1
    assert not Path("results/tune.csv").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.sampler": "cma"}, "search: sampler is 'cma'; it must be 'tpe', 'gp', 'random' or 'nsga2'"),
        (
            {"search.objectives": {"test_rmse": "minimize"}},
            "search: objectives has test_rmse; test cells choose nothing",
        ),
        ({"search.objectives": {TAU: "up"}}, "it must be 'maximize' or 'minimize'"),
        ({"search.trials": 0}, "search: trials is 0; it must be at least 1"),
        ({"search.halving.grace": 0}, "search: halving: grace is 0; it must be at least 1"),
        ({"search.objectives.parameters": "minimize"}, "search: halving needs one objective that begins with best_"),
        ({"search.constraints.seconds.at_most": 3}, "search: constraints has seconds; allowed is parameters"),
        (
            {"search.space.training.lr.low": 1},
            "search: space.training.lr: low is 1 and high 0.1; low must not be above",
        ),
        ({"search.space.training.lr": 3}, "search: space.training.lr is 3; it must be a list of values, or have low"),
        ({"search.space.training.lrr": [1]}, "search.space.training.lrr: unknown setting training.lrr; training has"),
        ({"search.space.training.loss": ["mse", "rank"]}, "search.space.training.loss: training.loss is 'rank'"),
        ({"search.space.training.batch_size": {"low": 0, "high": 9}}, "batch_size is 0; it must be at least 1"),
        ({"search.nonsense": 1}, "search: unknown setting nonsense; there are objectives, space, trials"),
        ({"training.lr": 0.1}, "training.lr is searched; to search it elsewhere, set search.space.training.lr"),
        ({"training.loss": "mse"}, "training.loss is searched; to search it elsewhere, set search.space.training.loss"),
        (
            {"search.space.sampling.size": {"low": 20, "high": 40}},
            "search.space.sampling.size is a range, and sampling.size is None; a range is of numbers",
        ),
    ],
)
def test_a_wrong_setting_of_a_search_is_an_error_in_one_line(
    changes: dict[str, object], message: str, search_file: Path, small_table: Path
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        plan_search(load_study("tune"), changes, str(small_table))
    assert message in str(error.value)


def test_an_objective_that_trials_do_not_have_is_refused(search_file: Path, small_table: Path) -> None:
    content = {**SEARCH, "search": {**SEARCH["search"], "objectives": {"best_validation_tau": "maximize"}}}
    search_file.write_text(yaml.safe_dump(content))
    with pytest.raises(
        ValueError, match=r"^search.objectives has best_validation_tau; allowed are best_validation_ken"
    ):
        plan_search(load_study("tune"), {}, str(small_table))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "--trial", "2"], "tune is a search, which draws its trials; it takes no --trial 2"),
        (["tune", "--trials", "0"], "trials is 0; it must be at least 1"),
        (["tune", "--gpus-per-trial", "measured"], "tune is a search, whose trials are not known yet"),
        (["small", "--trials", "3"], "small has no search; it takes no --trials 3"),
    ],
)
def test_a_command_that_a_search_does_not_take_is_refused_in_one_line(
    arguments: list[str], message: str, search_file: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments, "--plan", "--data", str(small_table)])
    output, error = capsys.readouterr()
    assert (output, error.count("\n")) == ("", 1)
    assert error.startswith(f"error: {message}")


def test_a_study_is_a_search_or_has_configurations(search_file: Path) -> None:
    search_file.write_text(yaml.safe_dump({**SEARCH, "repeats": 5}))
    with pytest.raises(ValueError, match=r"^tune\.yaml: a study has a search, or configurations, grid and repeats$"):
        load_study("tune")


def test_the_front_has_what_nothing_else_beats_in_both() -> None:
    scores = [(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (4, 0.7), (5, math.nan)]
    rows = [(*score, COMPLETE) for score in scores] + [(0, 0.9, EARLY)]
    table = pd.DataFrame(rows, columns=["training_seconds", TAU, "state"])
    assert front(table, TAU, "maximize")["training_seconds"].tolist() == [1, 3]
    assert front(table, TAU, "minimize")["training_seconds"].tolist() == [1, 2]


def test_a_range_and_a_list_may_be_nested_or_dotted() -> None:
    dotted = {"training.lr": {"low": 1, "high": 2}, "training.loss": ["mse"]}
    nested = {"training": {"lr": {"low": 1, "high": 2}, "loss": ["mse"]}}
    for space in (dotted, nested):
        assert Search(objectives={TAU: "maximize"}, trials=1, space=space).domains == {
            "training.lr": Range(low=1, high=2),
            "training.loss": ["mse"],
        }


def test_a_search_whose_driver_is_killed_goes_on_and_ends_with_every_trial_once(
    search_file: Path, database: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(search_file.read_text())
    content["base"]["training"]["epochs"] = epochs = 40
    content["search"]["halving"] = {"grace": 12, "reduction": 3}
    search_file.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "study.run", "tune", "--data", str(small_table)]
    first = start(command)
    wait_until(lambda: in_the_middle("tune"), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = {run.info.run_id: run for run in all_runs("tune") if run.info.status == "RUNNING"}
    recorded_before = {run_id: len(steps(run, "train_loss")) for run_id, run in before.items()}
    assert any(recorded_before.values())

    code, output, error = finish(start(command))
    assert code == 0, output + error
    runs = {run.info.run_id: run for run in all_runs("tune")}
    assert len(runs) == len({run.data.tags["trial_key"] for run in runs.values()}) == 6
    for run_id, number in recorded_before.items():
        if number:
            assert f"{runs[run_id].info.run_name}: goes on after epoch {number}" in output
    [name] = optuna.get_all_study_names(f"sqlite:///{DATABASE}")
    drawn = optuna.load_study(study_name=name, storage=f"sqlite:///{DATABASE}").trials
    told = {trial.user_attrs["trial_key"]: trial for trial in drawn}
    assert len(drawn) == len(told) == 6
    assert {trial.state for trial in drawn} == {TrialState.COMPLETE, TrialState.PRUNED}
    for run in runs.values():
        trial = told[run.data.tags["trial_key"]]
        if trial.state == TrialState.COMPLETE:
            assert run.info.status == "FINISHED"
            assert trial.value == run.data.metrics[TAU]
            last = epochs
        else:
            last = int(run.data.tags["stopped_early"])
            assert (run.info.status, last) == ("KILLED", trial.last_step)
            assert last in (12, 36)
        assert steps(run, "train_loss") == list(range(1, last + 1))
        assert run.data.tags["attempt"] == ("2" if run.info.run_id in before else "1")
    assert [path.name for path in Path("runs/tune").iterdir()] == ["lock"]

    table = pd.read_csv("results/tune.csv")
    assert sorted(table["key"]) == sorted(told)
    assert table["state"].isin([COMPLETE, EARLY]).all()
    searches = recorded_searches("tune")
    assert [search.study_name for search in searches] == [planned(small_table).name]
    shares, n = importance(searches, trials_table(searches, Tracker("tune").runs()))
    assert n == Counter(trial.state for trial in drawn)[TrialState.COMPLETE]
    assert sum(shares.values()) <= 1 + 1e-9  # what settings explain only together is in none

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:  # all is over: Ray is not even started
        patch.setattr("ray.init", None)
        assert main(command[3:]) == 0
        assert main([*command[3:], "--local", "--trials", "1"]) == 0
    assert main([*command[3:], "--plan"]) == 0
    plan = capsys.readouterr().out.splitlines()
    assert plan[-1] == "0 to come"
    assert len(all_runs("tune")) == 7
    assert any("stopped early at epoch" in line for line in plan)
    assert main(["status"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[-1] == "-"
    assert main(["figures"]) == 0
    assert "results/figures/tune_history.svg" in capsys.readouterr().out
    assert Path("results/figures/tune_pareto.png").exists()
