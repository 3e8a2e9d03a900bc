from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from mlflow import MlflowClient

from study.figures import FIGURES, Curve, write_figures
from study.run import main
from study.space import load_study, plan_trials
from study.tracking import Recorded, Tracker


def epoch(number: int) -> dict[str, float]:
    shares = {"held_out_reconstruction": 1 - 0.1**number, "prior_validity": 1 - 0.5**number}
    return {"epoch": number, "train_loss": 1 / number, "seconds": 1800.0, **shares}


def test_without_runs_it_says_which_study_to_run_for_which_figure(
    study_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figures"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == list(FIGURES)
    assert "autoencoder_training: no recorded epoch; python -m study.run pretrained or" in printed[0]
    assert sorted(path.name for path in study_folder.iterdir()) == ["search_spaces"]
    with pytest.raises(SystemExit):
        main(["figures", "--trial", "1"])
    assert "figures takes no --trial" in capsys.readouterr().err


def test_the_training_of_the_autoencoder_is_drawn_from_the_runs_of_the_whole_study(
    study_folder: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker("pretrained")
    [whole] = plan_trials(load_study("pretrained"), {})
    [small] = plan_trials(load_study("pretrained"), {"training.epochs": 1})
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
    table = pd.DataFrame([epoch(number) for number in (1, 2, 3)]).set_index("epoch")
    tags = {"mlflow.runName": "node_dim 128/seed=0", "device": "cpu"}
    drawing = FIGURES["autoencoder_training"].draw(
        [Curve("pretrained", Recorded("id", "RUNNING", 3, 4, {}, tags), table)]
    )
    [reconstruction, validity] = drawing.axes
    assert reconstruction.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert reconstruction.lines[0].get_ydata().tolist() == pytest.approx([10, 1, 0.1])
    assert validity.lines[0].get_xydata().tolist() == [[1, 50], [2, 25], [3, 12.5]]
    assert validity.lines[1].get_ydata()[0] == pytest.approx(100 - 95.09)
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == [
        "pretrained: node_dim 128/seed=0, 3 epochs, 1.5 h on cpu",
        "Friede et al. 2019, Table 2: 95.09%",
    ]
