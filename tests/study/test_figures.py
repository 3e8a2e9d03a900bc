from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure as Drawing
from mlflow import MlflowClient

from study.figures import FIGURES, STYLE, frame, write_figures
from study.figures.ablation import draw_ablation
from study.figures.label_efficiency import draw_label_efficiency, label_efficiency
from study.figures.latent_space import draw_latent_space, draw_properties
from study.figures.predictions import draw_density, draw_errors_by_accuracy, draw_sorted
from study.figures.records import Curve, Predictions, best_predictions, shipped_latents
from study.figures.sampling import draw_stability
from study.figures.search import draw_history, draw_importance, draw_pareto
from study.figures.training import draw_autoencoder, draw_errors
from study.run import main
from study.space import load_study, plan_trials
from study.statistics import Comparison, compare
from study.tracking import Recorded, Tracker

OF_TABLE1 = ["figure3", "figure4", "figure5", "figure6", "figure7", "latent_space", "predicted_and_true"]


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """What one test's figures were drawn from is not there for the next."""
    best_predictions.cache_clear()
    shipped_latents.cache_clear()


def epoch(number: int) -> dict[str, float]:
    shares = {"held_out_reconstruction": 1 - 0.1**number, "prior_validity": 1 - 0.5**number}
    errors = {"train_rmse": 0.1 / number, "validation_rmse": 0.2 / number}
    return {"epoch": number, "train_loss": 1 / number, "seconds": 1800.0, **shares, **errors}


def curve(name: str, metrics: Mapping[str, float] | None = None) -> Curve:
    table = pd.DataFrame([epoch(number) for number in (1, 2, 3)]).set_index("epoch")
    tags = {"mlflow.runName": name, "device": "cpu"}
    status = "FINISHED" if metrics else "RUNNING"
    return Curve("pretrained", Recorded("id", status, 3, 4, dict(metrics or {}), tags), table)


def predictions(true: np.ndarray, predicted: np.ndarray) -> Predictions:
    return Predictions("table1", Recorded("id", "FINISHED", 3, 3, {}, {}), true, predicted)


def test_without_runs_it_says_which_study_to_run_for_which_figure(
    study_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figures"]) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(said) == list(FIGURES)
    assert said["figure4"] == "no finished run; python -m study.run table1"
    assert said["figure7"] == "no recorded epoch; python -m study.run table1"
    assert said["figure8"] == ("no finished run; python -m study.run sampling or python -m study.run sampling_reduced")
    assert said["autoencoder_training"].startswith("no recorded epoch; python -m study.run pretrained or")
    assert sorted(path.name for path in study_folder.iterdir()) == ["search_spaces"]
    with pytest.raises(SystemExit):
        main(["figures", "--trial", "1"])
    assert "figures takes no --trial" in capsys.readouterr().err


def test_the_training_of_the_autoencoder_is_drawn_from_the_runs_of_the_whole_study(
    study_folder: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker("pretrained")
    [whole] = plan_trials(load_study("pretrained"), {})
    [small] = plan_trials(load_study("pretrained"), {"training.epochs": 5})
    for trial, epochs in ((whole, 4), (small, 1)):
        tracker.start(trial, device="cpu")
        for number in range(1, epochs + 1):
            tracker.log_epoch(trial, epoch(number))
    assert main(["figures"]) == 0
    assert "written: results/figures/autoencoder_training.svg" in capsys.readouterr().out
    drawn = Path("results/figures/autoencoder_training.svg").read_bytes()
    assert plt.imread("results/figures/autoencoder_training.png").std() > 0
    write_figures()
    assert Path("results/figures/autoencoder_training.svg").read_bytes() == drawn

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    assert len(client.search_runs([client.get_experiment_by_name("pretrained").experiment_id])) == 2


def test_a_curve_is_drawn_point_by_point_under_its_runs_name() -> None:
    drawing = draw_autoencoder([curve("node_dim 128/seed=0")])
    [reconstruction, validity] = drawing.axes
    assert reconstruction.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert reconstruction.lines[0].get_ydata().tolist() == pytest.approx([10, 1, 0.1])
    assert validity.lines[0].get_xydata().tolist() == [[1, 50], [2, 25], [3, 12.5]]
    assert validity.lines[1].get_ydata()[0] == pytest.approx(100 - 95.09)
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == [
        "pretrained: node_dim 128/seed=0, 3 epochs, 1.5 h on cpu",
        "Friede et al. 2019, Table 2: 95.09%",
    ]


def test_the_test_error_is_a_mark_at_the_chosen_epoch_of_a_finished_run() -> None:
    scores = {"best_epoch": 2.0, "test_rmse": 0.15, "baseline_constant_test_rmse": 0.3}
    drawing = draw_errors({"seen": [curve("a", scores), curve("b")], "unseen": [curve("c", scores)]})
    seen, unseen = drawing.axes
    assert len(draw_errors({"seen": [curve("a")]}).axes) == 1
    assert [line.get_marker() for line in seen.lines].count("D") == 1
    [mark] = [line for line in unseen.lines if line.get_marker() == "D"]
    assert mark.get_xydata().tolist() == [[2, 0.15]]
    assert unseen.lines[1].get_ydata().tolist() == pytest.approx([0.2, 0.1, 0.2 / 3])
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == [
        "training error",
        "validation error",
        "test error at the epoch chosen on the validation cells",
        "constant predictor, test cells",
    ]


def test_a_hundred_cells_are_sorted_by_their_true_accuracy() -> None:
    true = np.random.default_rng(1).random(300)
    truth, predicted = draw_sorted(predictions(true, true + 1)).axes[0].lines
    assert len(truth.get_ydata()) == 100
    assert (np.diff(truth.get_ydata()) >= 0).all()
    assert (predicted.get_ydata() - truth.get_ydata()).tolist() == pytest.approx([1] * 100)


def test_squared_errors_have_mean_and_variance_by_bin_of_true_accuracy() -> None:
    true = np.array([0.05, 0.92, 0.95, 1.0])
    drawing = draw_errors_by_accuracy(predictions(true, true + np.array([0.1, 0.1, 0.2, 0.3])))
    mean, variance = ([bar.get_height() for bar in panel.patches] for panel in drawing.axes)
    assert mean[0] == pytest.approx(0.01)
    assert np.isnan(mean[1:9]).all()
    assert mean[9] == pytest.approx(np.mean([0.01, 0.04, 0.09]))  # 1.0 is in the last bin
    assert variance[9] == pytest.approx(np.var([0.01, 0.04, 0.09]))


def test_a_density_states_how_well_cells_are_ranked() -> None:
    true = np.linspace(0.8, 0.9, 50)
    drawing = draw_density(predictions(true, true**2))
    assert "Kendall tau 1.000\nSpearman 1.000" in drawing.axes[1].texts[0].get_text()


def test_the_explained_variance_is_that_of_the_principal_components() -> None:
    latents = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32) * [3, 1, 2]
    drawing = draw_properties(np.array([0.05, 0.85, 0.95, 0.95]), latents)
    histogram, variance = drawing.axes
    assert [bar.get_height() for bar in histogram.patches] == [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    assert "75.0%" in histogram.get_title()
    assert [bar.get_height() for bar in variance.patches] == pytest.approx([900 / 14, 400 / 14, 100 / 14], rel=0.1)
    assert variance.lines[0].get_ydata()[-1] == pytest.approx(100)


def test_the_latent_space_is_coloured_by_the_mean_accuracy_of_the_cells_in_a_place() -> None:
    latents = np.repeat([[0.0, 0.0], [9.0, 1.0], [1.0, 9.0]], 2, axis=0)
    drawing = draw_latent_space(latents, np.array([0.8, 0.9, 0.5, 0.7, 0.1, 0.3]))
    [mean] = drawing.axes[0].collections
    assert sorted(mean.get_array().tolist()) == pytest.approx([0.2, 0.6, 0.85])


def test_stability_is_drawn_twice_with_a_line_a_method_and_a_dot_a_run() -> None:
    rows = [
        (method, share, 0.03 + 0.01 * seed / share)
        for method in ("edit", "latent")
        for share in (1, 5)
        for seed in (1, 2)
    ]
    drawing = draw_stability(pd.DataFrame(rows, columns=["method", "share", "test_rmse"]))
    whole, zoomed = drawing.axes
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["edit", "latent"]
    for panel in drawing.axes:
        means = [
            line.get_ydata().tolist()
            for line in panel.lines
            if len(line.get_ydata()) == 2 and line.get_linestyle() == "-"
        ]
        assert means == [pytest.approx([0.045, 0.033])] * 2
        assert [label.get_text() for label in panel.get_xticklabels()] == ["100", "500"]
    assert zoomed.get_ylim()[1] < whole.get_ylim()[1]


def ablated() -> Comparison:
    rows = [
        (row, task, seed, 0.5 + gain + 0.01 * seed * (row != "paper"))
        for row, gain in (("paper", 0.0), ("rounds 3", 0.1), ("replace", -0.2))
        for task in ("seen", "unseen")
        for seed in range(5)
    ]
    values = pd.DataFrame(rows, columns=["group", "block", "repeat", "value"])
    result = compare(values, "paper", higher_is_better=True)
    assert result is not None
    return result


def test_an_ablation_is_a_line_a_row_by_mean_rank_with_a_mark_a_task_and_one_for_all() -> None:
    drawing = draw_ablation(ablated(), pd.Series({"paper": 2e6, "rounds 3": 3e6, "replace": 1.5e6}), "tau")
    [panel] = drawing.axes
    labels = panel.get_yticklabels()
    assert [label.get_text() for label in labels] == ["replace  (1.50 M)", "paper  (2.00 M)", "rounds 3  (3.00 M)"]
    assert [label.get_fontweight() for label in labels] == ["normal", "normal", "bold"]
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["seen", "unseen", "all tasks"]
    *_, whole = panel.containers
    assert whole.lines[0].get_xydata().tolist() == [pytest.approx([-0.18, 0]), pytest.approx([0.12, 2])]
    [bars] = whole.lines[2]
    low, high = bars.get_segments()[1][:, 0]
    assert 0.1 < low < 0.12 < high < 0.14


def test_the_ablation_is_drawn_from_recorded_runs_of_the_rows_that_there_are(
    study_folder: Path, database: Path, small_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(Path("search_spaces/small.yaml").read_text())
    content |= {"configurations": {"paper": {}, "rounds 2": {"model.encoder.rounds": 2}}, "published": None}
    content |= {"grid": {"split.name": {"seen": "edit_sampled", "unseen": "zero_shot_6"}}}
    content |= {"compare": {"measure": "test_kendall_tau", "reference": "paper"}}
    Path("search_spaces/ablation.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(["ablation", "--local", "--data", str(small_table)]) == 0
    assert main(["figures"]) == 1
    assert "ablation: no finished run of paper and another row; python -m study.run ablation" in capsys.readouterr().out
    assert main(["ablation", "--local", "--trial", "4", "--data", str(small_table)]) == 0
    assert main(["figures"]) == 0
    assert "results/figures/ablation.svg" in capsys.readouterr().out


def test_kendall_tau_is_drawn_by_number_of_labels_with_published_figures_as_open_marks() -> None:
    rows = [
        (method, labels, tau + 0.1 * seed)
        for method, tau in (("boosted trees on cell features", 0.1), ("pretrained", 0.3), ("from scratch", 0.2))
        for labels in (16, 512)
        for seed in (1, 2)
    ]
    published = pd.DataFrame([("FLAN", 16, 0.479), ("FLAN", 512, 0.809)], columns=["method", "labels", "tau"])
    drawing = draw_label_efficiency(pd.DataFrame(rows, columns=["method", "labels", "tau"]), published)
    [panel] = drawing.axes
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == [
        "FLAN, as published",
        "pretrained",
        "from scratch",
        "boosted trees on cell features",
    ]
    [flan] = [line for line in panel.lines if line.get_fillstyle() == "none"]
    assert flan.get_xydata().tolist() == [[16, 0.479], [512, 0.809]]
    [bars] = [each for each in panel.containers if each.get_label() == "pretrained"]
    assert bars.lines[0].get_xydata().tolist() == [[16, pytest.approx(0.45)], [512, pytest.approx(0.45)]]
    [segments] = [each.get_segments() for each in bars.lines[2]]
    assert segments[0][:, 1].tolist() == pytest.approx([0.45 - 0.1 / 2**0.5, 0.45 + 0.1 / 2**0.5])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["16", "512"]


def test_label_efficiency_is_drawn_from_the_runs_of_the_study_and_the_trees_of_a_draw_once(
    study_folder: Path, database: Path, small_table: Path
) -> None:
    trials, tracker = plan_trials(load_study("label_efficiency"), {}, str(small_table)), Tracker("label_efficiency")
    for i in (0, 1, 10, 80):  # two draws of 16 cells, one of 32, and the first again, pretrained
        config = trials[i].config
        trials[i].place.directory.mkdir(parents=True)
        for file in config.FILES:
            (trials[i].place.directory / file).write_text("")
        metrics = {"train_cells": config.sampling.size, "test_kendall_tau": 0.5 + 0.001 * i}
        tracker.start(trials[i], device="cpu")
        tracker.finish(trials[i], metrics | {"baseline_boosted_trees_test_kendall_tau": float("nan") if i else 0.25})
    drawing, foot = label_efficiency()
    means = {each.get_label(): each.lines[0].get_xydata().tolist() for each in drawing.axes[0].containers}
    assert means == {
        "from scratch": [[16, pytest.approx(0.5005)], [32, pytest.approx(0.51)]],
        "pretrained": [[16, pytest.approx(0.58)]],
        "boosted trees on cell features": [[16, 0.25], [32, pytest.approx(np.nan, nan_ok=True)]],
    }
    assert foot.startswith("4 runs of label_efficiency. labels: ")
    assert "FlowerFormer" not in str([line.get_label() for line in drawing.axes[0].lines])


@pytest.fixture
def trials() -> pd.DataFrame:
    """Of two searches: state, tau, seconds."""
    states = {"c": "complete", "e": "stopped early"}
    rows = [
        ("tpe", number, states[state], 4 if state == "c" else 1, tau, 0.1, 10.0 * number)
        for number, state, tau in [(1, "c", 0.5), (2, "e", np.nan), (3, "c", 0.4), (4, "c", 0.7)]
    ]
    rows += [("search.sampler=random", 0, "complete", 4, 0.6, 0.1, 5.0)]
    columns = ["setting", "trial", "state", "epochs", "tau", "last", "training_seconds"]
    return pd.DataFrame(rows, columns=columns).assign(sampler=["tpe"] * 4 + ["random"])


def test_the_best_so_far_is_drawn_by_trials_and_by_epochs_for_each_search(trials: pd.DataFrame) -> None:
    drawing = draw_history(trials, "tau", "maximize")
    each, by_trials, by_epochs = drawing.axes
    assert each.lines[0].get_xydata().tolist() == [[1, 0.5], [3, 0.4], [4, 0.7]]
    assert each.lines[1].get_xydata().tolist() == [[2, 0.1]]  # stopped early
    assert by_trials.lines[0].get_xydata().tolist() == [[1, 0.5], [3, 0.5], [4, 0.7], [4, 0.7]]
    assert by_epochs.lines[0].get_xydata().tolist() == [[4, 0.5], [9, 0.5], [13, 0.7], [13, 0.7]]
    assert by_epochs.lines[1].get_xydata().tolist() == [[4, 0.6], [4, 0.6]]
    names = [text.get_text() for text in drawing.legends[0].get_texts()]
    assert names == ["tpe", "random (search.sampler=random)"]


def test_a_search_that_has_no_complete_trial_yet_is_drawn_without_a_best(trials: pd.DataFrame) -> None:
    trials.loc[trials["sampler"] == "random", ["state", "tau"]] = "cut off", np.nan
    each, by_trials, _ = draw_history(trials, "tau", "maximize").axes
    assert len(each.lines) == 4  # of each search the complete, and those stopped early
    assert len(by_trials.lines) == 1


def test_the_front_is_drawn_through_what_nothing_else_beats(trials: pd.DataFrame) -> None:
    panel = draw_pareto(trials, "tau", "maximize").axes[0]
    assert panel.lines[-1].get_xydata().tolist() == [[5, 0.6], [40, 0.7]]


def test_importance_is_a_bar_a_setting_the_largest_on_top() -> None:
    panel = draw_importance({"training.lr": 0.7, "model.dropout": 0.3}).axes[0]
    assert [bar.get_width() for bar in panel.patches] == [0.7, 0.3]
    assert panel.yaxis_inverted()


def test_a_frame_leaves_room_for_title_legend_and_foot() -> None:
    with mpl.rc_context(STYLE):
        drawing = Drawing(figsize=(5, 3))
        panel = drawing.subplots()
        panel.plot([0, 1], [0, 1], label="a line")
        panel.set(title="a panel", xlabel="x")
        drawing.legend(loc="upper left")
        frame(drawing, "A title", "what it stands on, " * 20)
        drawing.draw_without_rendering()
        boxes = [
            text.get_window_extent() for text in (*drawing.texts, drawing.legends[0], panel.title, panel.xaxis.label)
        ]
        boxes.append(panel.get_window_extent())
    assert len(boxes) == 6
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert drawing.bbox.x0 <= box.x0 < box.x1 <= drawing.bbox.x1
        assert drawing.bbox.y0 <= box.y0 < box.y1 <= drawing.bbox.y1


def test_figures_of_the_predictor_are_drawn_from_recorded_runs_their_models_and_their_labels(
    study_folder: Path,
    database: Path,
    small_table: Path,
    shipped_autoencoder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy("search_spaces/small.yaml", "search_spaces/table1.yaml")
    shutil.copy(small_table, "labels.csv")
    for _ in range(6):
        assert main(["table1", "--local", "--data", "labels.csv"]) == 0
    capsys.readouterr()
    assert main(["figures"]) == 0
    written = capsys.readouterr().out.splitlines()[-1]
    assert sorted(path.stem for path in Path("results/figures").glob("*.svg")) == sorted(OF_TABLE1)
    for name in OF_TABLE1:
        assert f"results/figures/{name}.svg, results/figures/{name}.png" in written
        assert plt.imread(f"results/figures/{name}.png").std() > 0

    best = best_predictions("table1", "prediction")
    rmse = np.sqrt(np.mean((best.predicted - best.true) ** 2))
    assert rmse == pytest.approx(best.run.metrics["test_rmse"])
    others = [
        run.metrics["best_validation_rmse"]
        for run in Tracker("table1").runs().values()
        if run.tags["configuration"] == "prediction"
    ]
    assert len(others) == 2
    assert best.run.metrics["best_validation_rmse"] == min(others)

    Path("labels.csv").write_text("".join(small_table.read_text().splitlines(keepends=True)[:-1]))
    best_predictions.cache_clear()
    assert main(["figures"]) == 0  # those that need no labels
    said = capsys.readouterr().out
    assert "figure4: the labels of its runs are gone: " in said
    assert "labels.csv holds others now" in said
    assert "figure6.svg" in said
    Path("labels.csv").unlink()
    main(["figures"])
    assert "latent_space: the labels of its runs are gone: source is" in capsys.readouterr().out


def test_the_latents_of_the_whole_space_are_those_of_the_shipped_autoencoder(
    shipped_autoencoder: Path,
) -> None:
    latents, name = shipped_latents()
    assert latents.shape == (423_624, 5)
    assert "SHA-256" in name
