from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from study.predictor import PredictorTrial
from study.space import Compare, Study, Trial, load_study, plan_trials
from study.tables import Published, write_tables
from study.tracking import Recorded

HUBER = {"training.loss": "huber"}


@pytest.fixture
def study(study_folder: Path) -> Study:
    return load_study("small")


@pytest.fixture
def trials(study: Study, small_table: Path) -> list[Trial]:
    return plan_trials(study, {}, str(small_table))


def finished(trial: Trial, test_rmse: float) -> Recorded:
    metrics = {
        "test_rmse": test_rmse,
        "best_validation_rmse": 2 * test_rmse,
        "test_kendall_tau": 0.5,
        "test_rmse_ratio": test_rmse / 0.04,
        "baseline_constant_test_rmse": 0.04,
        "baseline_constant_test_rmse_ratio": 1.0,
        "baseline_constant_test_kendall_tau": float("nan"),
        "baseline_boosted_trees_test_rmse": 0.03,
        "baseline_boosted_trees_test_rmse_ratio": 0.75,
        "baseline_boosted_trees_test_kendall_tau": 0.6,
        "train_cells": 190.0,
        "validation_cells": 27.0,
        "test_cells": 54.0,
    }
    tags = {"overrides": json.dumps(trial.overrides), "setting": trial.setting, "git_commit": "abc"}
    return Recorded(f"run of {trial.key}", "FINISHED", 3, 3, metrics, tags)


def failed(trial: Trial) -> Recorded:
    tags = {"overrides": json.dumps(trial.overrides), "git_commit": "abc", "error": "ValueError: a | b"}
    return Recorded("failed run", "FAILED", 1, 3, {"train_loss": 1.0}, tags)


def written(files: list[Path]) -> tuple[pd.DataFrame, str, str]:
    assert [str(file) for file in files] == ["results/small.csv", "results/small.md", "results/small.tex"]
    return pd.read_csv(files[0]), files[1].read_text(), files[2].read_text()


def test_a_table_states_n_mean_and_relative_sample_deviation(study: Study, trials: list[Trial]) -> None:
    rmse = {trial.key: 0.02 + 0.001 * trial.index for trial in trials}
    runs = {trial.key: finished(trial, rmse[trial.key]) for trial in trials}
    table, markdown, latex = written(write_tables(study, trials, runs, command="the command"))
    row = table[(table["method"] == "VS-GAE") & (table["configuration"] == "zero-shot-6")].iloc[0]
    own = [rmse[trial.key] for trial in trials if trial.configuration == "zero-shot-6"]
    assert row["setting"] == "small"
    assert row["n"] == 2
    assert row["test_rmse"] == pytest.approx(statistics.mean(own))
    assert row["test_rmse_relative_std"] == pytest.approx(statistics.stdev(own) / statistics.mean(own), rel=1e-4)
    assert "| VS-GAE, small | 0.0205 ± 3.4 % (n = 2) | 0.0225 ± 3.1 % (n = 2) | 0.0245 ± 2.9 % (n = 2) |" in markdown
    assert "VS-GAE, small & 0.0205 $\\pm$ 3.4 \\% (n = 2) & " in latex
    description = trials[0].config.data().description
    for text in (description, "the command", "abc", "ddof = 1", "prediction: 190 / 27 / 54"):
        assert text in markdown
    assert set(table["labels"]) == {description}


def test_a_trial_that_predicts_a_constant_counts_in_the_errors_and_is_named(study: Study, trials: list[Trial]) -> None:
    study = replace(study, repeats=3)
    trials = plan_trials(study, {}, trials[0].config.source)
    runs = {trial.key: finished(trial, 0.02) for trial in trials}
    runs[trials[2].key] = finished(trials[2], 0.8)
    runs[trials[2].key].metrics["test_kendall_tau"] = float("nan")
    table, markdown, _ = written(write_tables(study, trials, runs, command=""))
    assert "| VS-GAE, small | 0.2800 ± 160.8 % (n = 3, median 0.0200) | 0.0200 ± 0.0 % (n = 3, median" in markdown
    assert "| VS-GAE, small | 0.5000 ± 0.0 % (n = 2) | 0.5000 ± 0.0 % (n = 3, median" in markdown
    assert "1 of the 9 VS-GAE trials ended in the same prediction for every cell" in markdown
    assert markdown.count(trials[2].name) == 1
    assert table.loc[table["method"] == "VS-GAE", "test_kendall_tau_n"].tolist() == [2, 3, 3]


def test_baselines_stand_above_the_model_once(study: Study, trials: list[Trial], small_table: Path) -> None:
    others = plan_trials(study, HUBER, str(small_table))
    runs = {trial.key: finished(trial, 0.02) for trial in [*trials, *others]}
    table, markdown, _ = written(write_tables(study, trials, runs, command=""))
    block = markdown.split("## Test RMSE\n")[1].split("##")[0]
    rows = [line.split("|")[1].strip() for line in block.splitlines() if line.startswith("|")][2:]
    assert rows == [
        "published, not comparable, Friede et al. 2019, Table 1",
        "constant predictor",
        "boosted trees on cell features",
        "VS-GAE, small",
        "VS-GAE, training.loss=huber",
    ]
    assert "| constant predictor | 0.0400 (n = 1) | 0.0400 (n = 1) | 0.0400 (n = 1) |" in block
    assert (table["method"] == "constant predictor").sum() == 3
    tau = markdown.split("## Test Kendall tau\n")[1].split("##")[0]
    assert "constant predictor" not in tau
    assert "boosted trees on cell features | 0.6000" in tau


def test_a_setting_with_another_split_has_baselines_of_its_own(
    study: Study, trials: list[Trial], small_table: Path
) -> None:
    others = plan_trials(study, {"split.seed": 1}, str(small_table))
    runs = {trial.key: finished(trial, 0.02) for trial in [*trials, *others]}
    _, markdown, _ = written(write_tables(study, trials, runs, command=""))
    assert "| constant predictor, split.seed=1 |" in markdown


def test_another_setting_is_shown_only_when_all_of_its_trials_are_finished(
    study: Study, trials: list[Trial], small_table: Path
) -> None:
    others = plan_trials(study, HUBER, str(small_table))
    runs = {trial.key: finished(trial, 0.02) for trial in [*trials, *others[:-1]]}
    _, markdown, _ = written(write_tables(study, trials, runs, command=""))
    assert "huber" not in markdown
    _, markdown, _ = written(write_tables(study, others, runs, command=""))
    assert "VS-GAE, training.loss=huber" in markdown
    assert "VS-GAE, small" in markdown
    others_only = {key: run for key, run in runs.items() if key not in {trial.key for trial in trials}}
    _, markdown, _ = written(write_tables(study, others, others_only, command=""))
    assert "VS-GAE, small" not in markdown
    assert "| constant predictor |" in markdown


def test_runs_on_other_labels_and_of_settings_that_are_gone_are_not_shown(
    study: Study, trials: list[Trial], study_folder: Path, small_table: Path
) -> None:
    Path("less.csv").write_text("".join(small_table.read_text().splitlines(keepends=True)[:-1]))
    others = plan_trials(study, HUBER, "less.csv")
    gone = finished(trials[0], 0.02)
    gone = replace(gone, tags={**gone.tags, "overrides": json.dumps({"training.momentum": 0.9})})
    runs = {trial.key: finished(trial, 0.02) for trial in [*trials, *others]} | {"gone": gone}
    table, _, _ = written(write_tables(study, trials, runs, command=""))
    assert set(table["setting"]) == {"small", "Friede et al. 2019, Table 1"}


def test_a_failed_trial_is_a_row_with_its_error(study: Study, trials: list[Trial]) -> None:
    runs = {trial.key: finished(trial, 0.02) for trial in trials[1:]} | {trials[0].key: failed(trials[0])}
    table, markdown, _ = written(write_tables(study, trials, runs, command=""))
    row = table[table["method"] == "failed"].iloc[0]
    assert (row["configuration"], row["note"]) == ("prediction", "seed 0: ValueError: a | b")
    assert "| prediction | small | seed 0: ValueError: a \\| b |" in markdown
    assert "| VS-GAE, small | 0.0200 (n = 1) | 0.0200 ± 0.0 % (n = 2) |" in markdown


def test_a_table_of_nothing_but_failures_can_be_written(study: Study, trials: list[Trial]) -> None:
    runs = {trial.key: failed(trial) for trial in trials}
    table, markdown, _ = written(write_tables(study, trials, runs, command=""))
    assert (table["method"] == "failed").sum() == 6
    assert "VS-GAE" not in markdown.split("## Failed trials")[0].split("## Test RMSE")[1]


def test_the_published_figures_are_the_papers_and_comparable_only_on_the_same_labels(trials: list[Trial]) -> None:
    published = Published.read("table1")
    assert published.values == {
        "prediction": {"test_rmse": {"mean": 0.0487, "relative_deviation": 0.003}},
        "zero-shot-6": {"test_rmse": {"mean": 0.0526, "relative_deviation": 0.04}},
        "zero-shot-7": {"test_rmse": {"mean": 0.0571, "relative_deviation": 0.014}},
    }
    assert Published.read("table2").values == {
        "text": {"test_reconstruction": {"mean": 0.9999}, "test_validity": {"mean": 0.9509}}
    }
    data = trials[0].config.data()
    assert published.not_comparable(data) == "other labels: source invented.csv, not official, cells 271, not 423624"
    same = replace(published, labels={"source": "invented.csv", "metric": "validation_accuracy", "cells": 271})
    assert same.not_comparable(data) == ""
    with pytest.raises(ValueError, match=r"^the published figures of .*Table 2 are test_reconstruction, "):
        Published.read("table2").check(PredictorTrial)
    published.check(PredictorTrial)
    with pytest.raises(ValueError, match=r"published is 'table9'; results/paper.yaml has table1, table2"):
        Published.read("table9")


def decoded(trial: Trial, reconstruction: float) -> Recorded:
    metrics = dict.fromkeys(type(trial.config).MEASURES, reconstruction)
    metrics |= {"train_cells": 381262.0, "test_cells": 42362.0, "reconstructed_cells": 2000.0 * reconstruction}
    return replace(finished(trial, 0.0), metrics=metrics)


def test_where_columns_are_measures_every_configuration_is_a_row_and_shares_are_per_cent(study_folder: Path) -> None:
    study = load_study("table2")
    trials = plan_trials(study, {})
    runs = {trial.key: decoded(trial, 0.95 + 0.01 * trial.config.seed) for trial in trials[:8]}
    others = plan_trials(study, {"training.epochs": 1})
    runs |= {trial.key: decoded(trial, 0.5) for trial in others}
    files = write_tables(study, trials, runs, command="")
    block = files[1].read_text().split("## Abilities\n")[1].split("##")[0]
    assert [line for line in block.splitlines() if line] == [
        "|  | Reconstruction accuracy | Prior validity |",
        "| --- | --- | --- |",
        "| published, Friede et al. 2019, Table 2, text | 99.99 % | 95.09 % |",
        "| VS-GAE, text | 97.00 % ± 1.58 (n = 5, median 97.00 %) | 97.00 % ± 1.58 (n = 5, median 97.00 %) |",
        "| VS-GAE, published code | 96.00 % ± 1.00 (n = 3, median 96.00 %) | 96.00 % ± 1.00 (n = 3, median 96.00 %) |",
        "| VS-GAE, training.epochs=1, text | 50.00 % ± 0.00 (n = 5, median 50.00 %) "
        "| 50.00 % ± 0.00 (n = 5, median 50.00 %) |",
        "| VS-GAE, training.epochs=1, published code | 50.00 % ± 0.00 (n = 5, median 50.00 %) "
        "| 50.00 % ± 0.00 (n = 5, median 50.00 %) |",
    ]
    assert "VS-GAE, text & 97.00 \\% $\\pm$ 1.58 (n = 5" in files[2].read_text()
    assert pd.read_csv(files[0])["test_novel_n"].tolist()[1:] == [5, 3, 5, 5]


@pytest.fixture
def gridded(study_folder: Path) -> Study:
    content = yaml.safe_load(Path("search_spaces/small.yaml").read_text())
    del content["configurations"]
    content |= {"grid": {"sampling.method": ["edit", "uniform"], "sampling.share": {"10 %": 0.1, "half": 0.5}}}
    content |= {"repeats": 4, "stability": "test_rmse", "published": None}
    Path("search_spaces/gridded.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_study("gridded")


def test_of_a_grid_the_last_axis_is_the_columns_and_baselines_are_fitted_anew_for_every_sample(
    gridded: Study, small_table: Path
) -> None:
    trials = plan_trials(gridded, {}, str(small_table))
    runs = {trial.key: finished(trial, 0.02 + 0.001 * trial.index) for trial in trials}
    for trial in trials:
        runs[trial.key].metrics["train_cells"] = 190 * trial.config.sampling.share
        runs[trial.key].metrics["baseline_constant_test_rmse"] = 0.04 + 0.01 * trial.config.seed
    files = write_tables(gridded, trials, runs, command="")
    block = files[1].read_text().split("## Test RMSE\n")[1].split("##")[0]
    assert block.splitlines()[1] == "|  | 10 % | half |"
    assert [line.split("|")[1].strip() for line in block.splitlines() if line.startswith("|")][2:] == [
        "constant predictor, edit",
        "constant predictor, uniform",
        "boosted trees on cell features, edit",
        "boosted trees on cell features, uniform",
        "VS-GAE, small, edit",
        "VS-GAE, small, uniform",
    ]
    assert "| constant predictor, edit | 0.0550 ± 23.5 % (n = 4, median 0.0550) |" in block
    assert "| VS-GAE, small, uniform | 0.0295 ± 4.4 % (n = 4, median 0.0295) | 0.0335 ± 3.9 %" in block
    assert "cells (training / validation / test): 10 %: 19 / 27 / 54; half: 95 / 27 / 54\n" in files[1].read_text()


def test_a_study_shows_the_measures_that_it_names_and_published_rows_in_its_columns(
    study_folder: Path, small_table: Path
) -> None:
    study = load_study("label_efficiency")
    trials = plan_trials(study, {}, str(small_table))
    runs = {trial.key: finished(trial, 0.02) for trial in trials}
    for trial in trials:
        run = runs[trial.key].metrics
        del run["best_validation_rmse"]
        run["baseline_boosted_trees_test_kendall_tau"] = float("nan") if trial.config.sampling.size == 16 else 0.6
        run["train_cells"], run["validation_cells"] = float(trial.config.sampling.size or 3), 0.0
    markdown = write_tables(study, trials, runs, command="")[1].read_text()
    titles = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert titles == ["## Test Kendall tau", "## Test RMSE", "## Test RMSE over that of the constant predictor"]
    block = markdown.split("## Test Kendall tau\n")[1].split("##")[0]
    assert block.splitlines()[1] == "|  | 16 | 32 | 64 | 128 | 256 | 512 | 1 % | 5 % |"
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in block.splitlines()[3:] if line}
    published, figures = "published, not comparable, NAS predictors of 2024", ["0.4790", "0.5970", "-"]
    figures += ["0.7290", "0.7660", "0.8090"]
    assert [cell.strip() for cell in rows[f"{published}, FLAN"]] == [*figures, "-", "-"]
    assert rows[f"{published}, FlowerFormer"][6].strip() == "0.7500"
    assert list(rows)[3:] == [
        "boosted trees on cell features",
        "VS-GAE, small budgets, from scratch",
        "VS-GAE, small budgets, pretrained",
    ]
    assert [cell.strip() for cell in rows["boosted trees on cell features"]][:2] == [
        "-",
        "0.6000 ± 0.0 % (n = 10, median 0.6000)",
    ]
    assert "16: 16 / 0 / 54" in markdown


def test_the_stability_of_the_rows_stands_beside_the_table_and_in_it(gridded: Study, small_table: Path) -> None:
    trials = plan_trials(gridded, {}, str(small_table))
    calm, wild = (0.0200, 0.0201, 0.0202, 0.0199), (0.02, 0.04, 0.03, 0.01)
    runs = {
        trial.key: finished(trial, (calm if trial.config.sampling.method == "edit" else wild)[trial.config.seed])
        for trial in trials
    }
    files = write_tables(gridded, trials, runs, command="")
    assert [str(file) for file in files[3:]] == ["results/gridded_stability.csv"]
    table = pd.read_csv(files[3])
    ours = table[table["method"] == "VS-GAE"].set_index("row")
    deviation = statistics.stdev(map(math.log, wild))
    assert ours["deviation"]["uniform"] == pytest.approx(deviation, rel=1e-4)
    assert ours["deviation_low"]["uniform"] < deviation < ours["deviation_high"]["uniform"]
    assert ours["n"].tolist() == [8, 8]
    assert ours["p_against_uniform"]["edit"] == ours["p_against_edit"]["uniform"] < 0.05
    markdown = files[1].read_text()
    assert "* do all rows deviate alike?: VS-GAE: F(1, 10) = " in markdown
    block = markdown.split("## Stability of VS-GAE: deviation of the Test RMSE over repeats\n")[1]
    assert "|  | n | deviation | beyond the seed | p against edit | p against uniform |" in block
    assert f"| uniform | 8 | {deviation:.1%} (" in block
    assert "## Stability of boosted trees" not in markdown  # which have the same error in every repeat

    runs[trials[0].key].metrics["test_kendall_tau"] = float("nan")
    files = write_tables(gridded, trials, runs, command="")
    table = pd.read_csv(files[3]).set_index("row")
    assert table.loc[table["method"] == "VS-GAE", "n"].to_dict() == {"edit": 7, "uniform": 8}
    assert "* stability leaves out: 1 trials with constant predictions" in files[1].read_text()


def test_rows_are_compared_with_the_reference_beside_the_table_and_in_it(gridded: Study, small_table: Path) -> None:
    study = replace(gridded, stability=None, compare=Compare(measure="test_kendall_tau", reference="edit"))
    trials = plan_trials(study, {}, str(small_table))
    runs = {trial.key: finished(trial, 0.02) for trial in trials}
    for trial in trials:
        is_edit, seed = trial.config.sampling.method == "edit", trial.config.seed
        tau = 0.5 + 0.1 * seed + (0 if is_edit else 0.04 + 0.01 * seed)
        costs = {"parameters": 1234.0 if is_edit else 2345.0, "training_seconds": 10.0 + seed}
        runs[trial.key].metrics.update(test_kendall_tau=tau, **costs)
    files = write_tables(study, trials, runs, command="")
    assert [str(file) for file in files[3:]] == ["results/gridded_comparison.csv"]
    table = pd.read_csv(files[3])
    assert table[["row", "column"]].to_numpy().tolist() == [
        ["edit", "all"],
        ["uniform", "all"],
        *([row, column] for row in ("edit", "uniform") for column in ("10 %", "half")),
    ]
    row = table.iloc[1]
    assert row[["n", "difference", "effect", "mean_rank"]].tolist() == pytest.approx([8, 0.055, 1, 1])
    assert row[["p", "p_holm"]].tolist() == pytest.approx([2 / 2**8] * 2)
    assert row[["parameters", "training_seconds", "undefined"]].tolist() == [2345, 11.5, 0]
    assert table["like_best"].tolist()[:2] == [False, True]
    block = files[1].read_text().split("## VS-GAE: Test Kendall tau, against edit\n")[1].splitlines()
    assert block[1] == (
        "|  | 10 % | half | all | effect | p | mean rank | against the best | undefined | parameters | training, s |"
    )
    assert block[3] == "| edit | - | - | - | - | - | 2.0 | 0.008 | 0 | 1,234 | 12 |"
    assert block[4].startswith("| uniform | +0.0550 (")
    assert block[4].endswith(") | +1.00 | 0.008 | 1.0 | the best | 0 | 2,345 | 12 |")
    assert "against edit" in files[2].read_text()


def test_a_trial_without_a_tau_counts_as_one_that_ranks_nothing_in_every_row(gridded: Study, small_table: Path) -> None:
    study = replace(gridded, stability=None, compare=Compare(measure="test_kendall_tau", reference="edit"))
    trials = plan_trials(study, {}, str(small_table))
    runs = {trial.key: finished(trial, 0.02) for trial in trials}  # of which each has a tau of 0.5
    for trial in (trials[0], trials[-1]):
        runs[trial.key].metrics["test_kendall_tau"] = float("nan")
    files = write_tables(study, trials, runs, command="")
    table = pd.read_csv(files[3]).set_index(["row", "column"])
    assert table["difference"]["uniform"].to_dict() == {"all": 0, "10 %": 0.125, "half": -0.125}
    assert table["undefined"][:, "all"].to_dict() == {"edit": 1, "uniform": 1}
    assert table["p"]["uniform", "all"] == 1
    assert "undefined), as 0\n" in files[1].read_text()
    assert "* comparison counts: 2 of 16 trials" in files[1].read_text()


def test_without_columns_the_configurations_are_compared_and_shares_in_points(study_folder: Path) -> None:
    study = replace(load_study("table2"), compare=Compare(measure="test_reconstruction", reference="text"))
    trials = plan_trials(study, {})
    runs = {trial.key: decoded(trial, 0.9 + 0.01 * trial.config.seed * (trial.index > 4)) for trial in trials}
    files = write_tables(study, trials, runs, command="")
    block = files[1].read_text().split("## VS-GAE: Reconstruction accuracy, against text\n")[1].splitlines()
    assert block[1].startswith("|  | all | effect | p |")
    assert block[4].startswith("| published code | +2.00 (+")
    assert block[4].endswith("| +1.00 | 0.125 | 1.1 | the best | 0 | - | - |")


def test_without_a_second_repeat_there_is_no_stability_to_compare(gridded: Study, small_table: Path) -> None:
    trials = plan_trials(gridded, {}, str(small_table))
    runs = {trials[0].key: finished(trials[0], 0.02)}
    files = write_tables(gridded, trials, runs, command="")
    assert len(files) == 3
    assert "stability" not in files[1].read_text()
