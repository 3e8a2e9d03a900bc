from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from torch import Tensor

from study.run import main
from study.space import load_study, plan_trials
from study.stopping import NoAnswerError
from study.trial import CHECKPOINT
from vsgae.modules import MESSAGES
from vsgae.modules.messages import Message

PROJECT = Path(__file__).resolve().parents[2]
ONLY = """\
description: One trial on the whole space
published: table1
base:
  model: {encoder: {node_dim: 6, graph_dim: 4, rounds: 1}, hidden: [3]}
  training: {lr: 0.01, batch_size: 16384, epochs: 1}
configurations:
  prediction: {}
"""


TINY = """\
description: An autoencoder that is small in every way
trains: autoencoder
published: table2
base:
  model: {encoder: {node_dim: 8, graph_dim: 4}}
  evaluation: {cells: 20, samples: 2, points: 20, decodings: 2}
configurations:
  only: {}
local:
  training: {epochs: 1, train_share: 0.001}
"""


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nonsense"],
            "unknown study 'nonsense'; there are: ablation, ablation_autoencoder, ablation_reduced, alpha, best",
        ),
        (["small", "--set", "training.lr=abc"], "training.lr is 'abc'; it must be a number"),
        (["small", "--set", "training.lrr=1"], "unknown setting training.lrr; training has lr, epochs, schedule"),
        (["small", "--set", "training.lr=-1"], "training: lr is -1.0; it must be greater than 0"),
        (["small", "--set", "training.lr"], "'training.lr' is no setting; write it as name=value"),
        (["small", "--trial", "99"], "there is no trial 99; small has the trials 0 to 5"),
        (["small", "--trial", "-1"], "there is no trial -1; small has the trials 0 to 5"),
        (["small", "--data", "nonsense"], "nonsense"),
        (["small", "--data", "absent.csv"], "absent.csv"),
        (["small", "--minutes", "0"], "minutes is 0; it must be above 0"),
        (["small", "--minutes", "1e18"], "minutes is 1e+18; it must be above 0 and at most 525600"),
        (["small", "--gpus-per-trial", "1.5"], "gpus is 1.5; it must be between 0 and 1, or a whole number"),
        (["small", "--local", "--address", "auto"], "--local runs in this process; it takes no --address auto"),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--plan"], ["--local"]])
def test_a_wrong_command_is_one_line_and_exit_code_2_and_starts_nothing(
    mode: list[str],
    arguments: list[str],
    message: str,
    study_folder: Path,
    small_table: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = [] if "--data" in arguments else ["--data", str(small_table)]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *data, *mode])
    output, error = capsys.readouterr()
    assert stopped.value.code == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert output == ""
    assert files_in(study_folder) == ["search_spaces/small.yaml"]


def test_the_plan_lists_every_trial_and_creates_nothing(
    study_folder: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["small", "--plan", "--data", str(small_table)]) == 0
    output = capsys.readouterr().out
    trials = plan_trials(load_study("small"), {}, str(small_table))
    assert output.startswith("labels: measured")
    assert "resources: 1 CPU and 0 GPU a trial" in output
    for trial in trials:
        assert f"[{trial.index:>2}] {trial.name:<18}  {trial.key}  missing" in output
    assert files_in(study_folder) == ["search_spaces/small.yaml"]


class NeighbourTwice(Message):
    """``[h_u, h_u]``, or ``-[h_u, h_u]`` against the edges."""

    def forward(self, h_v: Tensor, h_u: Tensor, direction: int, target: Tensor) -> Tensor:
        return (1 - 2 * direction) * torch.cat([h_u, h_u], dim=1)


def test_a_new_message_module_is_one_class_and_one_registry_line(
    study_folder: Path, small_table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study's file and --set then know it, --plan lists its trials, and they run."""
    content = Path("search_spaces/small.yaml").read_text()
    own = "  twice:\n    model: {encoder: {message: neighbour_twice}}\n"
    Path("search_spaces/new.yaml").write_text(content.replace("configurations:\n", f"configurations:\n{own}"))
    plan = ["new", "--plan", "--data", str(small_table)]
    with pytest.raises(SystemExit):
        main(plan)
    assert "message is 'neighbour_twice'; allowed are concat_linear, " in capsys.readouterr().err

    monkeypatch.setitem(MESSAGES, "neighbour_twice", NeighbourTwice)
    assert main(plan) == 0
    assert "[ 0] twice/seed=0" in capsys.readouterr().out
    assert main(["small", *plan[1:], "--set", "model.encoder.message=neighbour_twice"]) == 0
    assert "prediction/seed=1 model.encoder.message=neighbour_twice" in capsys.readouterr().out
    trial, *_ = plan_trials(load_study("new"), {}, str(small_table))
    *epochs, final = trial.config.run(study_folder / "trial")
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert "test_rmse" in final


def test_one_trial_runs_in_this_process_and_without_importing_ray(study_folder: Path, small_table: Path) -> None:
    program = (
        "import sys\nfrom study.run import main\n"
        f"code = main(['small', '--local', '--trial', '1', '--data', {str(small_table)!r}])\n"
        "assert 'ray' not in sys.modules, 'ray was imported'\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("labels: measured")
    assert "3/3" in done.stderr  # the progress bar
    for row in ("VS-GAE", "constant predictor", "boosted trees"):
        assert any(line.startswith(row) for line in done.stdout.splitlines())
    client = MlflowClient(tracking_uri=f"sqlite:///{study_folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert (run.info.run_name, run.info.status) == ("prediction/seed=1", "FINISHED")
    assert not (study_folder / "results").exists()  # the study is not finished


def test_local_trials_one_after_the_other_end_in_the_table_and_a_trial_cut_off_goes_on(
    study_folder: Path,
    database: Path,
    small_table: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["small", "--local", "--data", str(small_table)]
    trial = plan_trials(load_study("small"), {}, str(small_table))[0]

    with monkeypatch.context() as patch:  # stopped before the second epoch is recorded
        from study.tracking import Tracker

        log_epoch = Tracker.log_epoch

        def interrupted(self: Tracker, trial: object, metrics: dict[str, float]) -> bool:
            if metrics["epoch"] == 2:
                signal.raise_signal(signal.SIGTERM)
            return log_epoch(self, trial, metrics)  # type: ignore[arg-type]

        patch.setattr(Tracker, "log_epoch", interrupted)
        assert main(command) == 143
    assert "terminated; the same command goes on from here" in capsys.readouterr().err
    history = torch.load(trial.place.directory / CHECKPOINT, weights_only=True)["history"]
    assert len(history) == 2
    assert main([*command, "--plan"]) == 0
    assert f"{trial.key}  cut off at epoch 1" in capsys.readouterr().out

    for _ in range(6):
        assert main(command) == 0
    assert "[ 5] zero-shot-7/seed=1: started on cpu" in capsys.readouterr().out
    assert not trial.place.directory.exists()
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {
        trial.name: "FINISHED" for trial in plan_trials(load_study("small"), {}, str(small_table))
    }
    assert len(runs) == 6
    (first,) = [run for run in runs if run.data.tags["trial_key"] == trial.key]
    recorded = client.get_metric_history(first.info.run_id, "seconds")
    assert [metric.step for metric in recorded] == [1, 2, 3]
    assert [metric.value for metric in recorded[:2]] == [epoch["seconds"] for epoch in history]  # not trained again
    assert files_in(study_folder / "results") == ["small.csv", "small.md", "small.tex"]
    for run in runs:
        assert len(client.list_artifacts(run.info.run_id, "table")) == 3

    assert main(command) == 0  # all is finished: nothing to do
    assert len(client.search_runs([client.get_experiment_by_name("small").experiment_id])) == 6


def test_a_local_trial_stops_when_its_minutes_are_over_and_goes_on_later(
    study_folder: Path, database: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["small", "--local", "--data", str(small_table), "--set", "training.epochs=100000"]
    for _ in range(2):
        assert main([*command, "--minutes", "0.1"]) == 3
        assert "stopped: its minutes are over; the same command goes on from here" in capsys.readouterr().err
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert (run.info.status, run.data.tags["attempt"]) == ("KILLED", "2")
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train_loss")]
    assert steps
    assert steps == list(range(1, len(steps) + 1))


def test_local_makes_a_study_as_small_as_its_file_says(
    study_folder: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study_folder / "search_spaces" / "tiny.yaml").write_text(TINY)
    assert main(["tiny", "--local"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        "labels: none needed; the 423,624 enumerated cells\n"
        "local: a small version of tiny, by its file: training.epochs=1, training.train_share=0.001\n"
    )
    assert "of 42,362 held-out cells reconstructed" in output
    table = Path("results/tiny.md").read_text()
    assert "| VS-GAE, training.epochs=1 training.train_share=0.001, only |" in table
    assert "* cells (training / held out / reconstructed): only: 382 / 42,362 / 20\n" in table
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert {file.path for file in client.list_artifacts(run.info.run_id, "model")} == {
        "model/config.json",
        "model/latent.csv",
        "model/model.safetensors",
    }
    assert main(["tiny", "--plan"]) == 0
    assert "training.epochs" not in capsys.readouterr().out
    assert main(["tiny", "--plan", "--local", "--set", "training.epochs=300"]) == 0
    output = capsys.readouterr().out
    assert "only/seed=0 training.train_share=0.001 " in output
    assert "local: a small version of tiny, by its file: training.train_share=0.001\n" in output


def test_a_local_trial_that_fails_is_recorded_and_keeps_its_traceback_and_is_tried_again(
    study_folder: Path,
    database: Path,
    small_table: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["small", "--local", "--data", str(small_table)]
    with monkeypatch.context() as patch:

        def broken(*arguments: object) -> None:
            raise ValueError("a broken baseline")

        patch.setattr("study.predictor._baselines", broken)
        with pytest.raises(ValueError, match="a broken baseline"):
            main(command)
    main([*command, "--plan"])
    assert "failed: ValueError: a broken baseline" in capsys.readouterr().out
    assert main(command) == 0


def test_an_mlflow_that_is_silent_at_a_trials_end_ends_the_command_and_is_no_failure_of_the_trial(
    study_folder: Path,
    database: Path,
    small_table: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["small", "--local", "--data", str(small_table)]
    with monkeypatch.context() as patch:

        def silent(*arguments: object) -> None:
            raise NoAnswerError("MLflow is silent")

        patch.setattr("study.tracking.Tracker.finish", silent)
        assert main(command) == 1
    assert capsys.readouterr().err.endswith("error: MLflow is silent; the same command goes on from here\n")
    assert main([*command, "--plan"]) == 0
    assert "cut off at epoch 3" in capsys.readouterr().out
    assert main(command) == 0


def test_help_answers_without_importing_the_model() -> None:
    program = (
        "import sys\nfrom study.run import main\ntry:\n    main(['--help'])\nfinally:\n"
        "    assert not {'torch', 'mlflow', 'ray', 'pandas'} & sys.modules.keys()"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--gpus-per-trial" in done.stdout


@pytest.mark.measured
def test_the_plan_of_table1_on_the_measured_cells_begins_with_whose_labels_they_are(
    study_folder: Path, measured_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table1", "--plan", "--data", str(measured_table)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == (
        "labels: measured: nasbench101_measured.csv, validation_accuracy at 108 epochs, one run each, "
        "20,001 of 423,624 cells"
    )
    assert sum(line.endswith("  missing") for line in lines) == 15


def test_without_a_source_every_output_says_that_the_labels_are_predicted(
    study_folder: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study_folder / "search_spaces" / "only.yaml").write_text(ONLY)
    said = (
        "surrogate: PREDICTED, not measured, validation_accuracy at 108 epochs, mean of 3 runs, "
        "423,624 of 423,624 cells"
    )
    assert main(["only", "--local"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"labels: {said}\n")
    assert "favours the baseline" in output
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs([client.get_experiment_by_name("only").experiment_id])
    assert (run.data.tags["labels"], run.data.tags["label_source"]) == (said, "surrogate")
    config = json.loads(Path(client.download_artifacts(run.info.run_id, "model/config.json")).read_text())
    assert config["labels"]["description"] == said
    for suffix in ("csv", "md", "tex"):
        text = (study_folder / "results" / f"only-surrogate.{suffix}").read_text()
        assert said in text
        assert "other labels: source surrogate, not official" in text
        assert suffix == "csv" or "favours the baseline" in text
    assert not (study_folder / "results" / "only.md").exists()  # where those on other labels would be
