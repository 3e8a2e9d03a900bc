from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from epochs import train

from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.encoder import EncoderConfig
from vsgae.training import AutoencoderTrainingConfig, _LearningRate, train_autoencoder

MODEL = VSGAEConfig(encoder=EncoderConfig(node_dim=12, graph_dim=6))
CONFIG = AutoencoderTrainingConfig(lr=1e-3, epochs=3, batch_size=64)


def run(cells, config=CONFIG, epochs: int | None = None, model=MODEL, **kwargs) -> tuple[list[dict], VSGAE | None]:
    """The metrics of the first ``epochs`` epochs (without timings), and the model if training ended."""
    return train(train_autoencoder(model, config, cells, **{"seed": 0, **kwargs}), epochs)


def weights(model: VSGAE | None) -> dict[str, torch.Tensor]:
    assert model is not None
    return model.state_dict()


def test_training_is_deterministic_for_a_seed_and_differs_between_seeds(thousand_cells) -> None:
    first, second, other = run(thousand_cells), run(thousand_cells), run(thousand_cells, seed=1)
    assert first[0] == second[0]
    assert all(torch.equal(a, b) for a, b in zip(weights(first[1]).values(), weights(second[1]).values(), strict=True))
    assert first[0] != other[0]


def test_training_learns(thousand_cells) -> None:
    config = AutoencoderTrainingConfig(lr=1e-2, epochs=15, batch_size=64, schedule="cosine", warmup=20, max_norm=5)
    metrics, _ = run(thousand_cells, config)
    assert metrics[-1]["train_loss"] < 0.7 * metrics[0]["train_loss"]
    for epoch in metrics:
        parts = epoch["train_node"] + epoch["train_edge"] + MODEL.alpha * epoch["train_kl"]
        assert epoch["train_loss"] == pytest.approx(parts)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_lower_precision_is_that_of_the_training_alone(precision, thousand_cells) -> None:
    before = torch.get_float32_matmul_precision()
    [expected], _ = run(thousand_cells[:200], epochs=1)
    [metrics], _ = run(thousand_cells[:200], replace(CONFIG, precision=precision), epochs=1)
    assert metrics["train_loss"] == pytest.approx(expected["train_loss"], rel=0.01)
    assert (metrics["train_loss"] == expected["train_loss"]) == (precision == "tf32")  # which the CPU does not have
    assert torch.get_float32_matmul_precision() == before


def test_under_autocast_the_divergence_is_computed_in_float32(thousand_cells) -> None:
    model = VSGAE(MODEL)
    with torch.autocast("cpu", torch.bfloat16):
        assert {part.dtype for part in model.encode(thousand_cells[:10])} == {torch.float32}
        losses = model.loss(thousand_cells[:10])
    assert {part.dtype for part in losses.values()} == {torch.float32}


def test_what_the_monitor_measures_joins_the_epochs_metrics_and_changes_no_other(thousand_cells) -> None:
    def monitor(model: VSGAE) -> dict[str, float]:
        return {"held_out": float(len(model.encode(held_out)[0]))}

    held_out = thousand_cells[900:]
    plain, _ = run(thousand_cells[:200])
    monitored, _ = run(thousand_cells[:200], monitor=monitor)
    assert monitored == [{**metrics, "held_out": 100.0} for metrics in plain]


@pytest.mark.parametrize(
    "options", [{"schedule": "plateau"}, {"schedule": "cosine"}, {"averaging": 0.8}, {"cooldown": 3}]
)
def test_after_an_interruption_the_weights_are_the_same_to_the_last_bit(
    options, thousand_cells, tmp_path: Path
) -> None:
    config = AutoencoderTrainingConfig(
        lr=0.02, epochs=6, batch_size=100, patience=0, factor=0.5, warmup=15, max_norm=1, **options
    )
    cells = thousand_cells[:300]
    whole, expected = run(cells, config)
    checkpoint = tmp_path / "checkpoint.pt"
    for epochs in (2, 5):
        metrics, _ = run(cells, config, epochs=epochs, checkpoint=checkpoint)
        assert metrics == whole[:epochs]
    metrics, resumed = run(cells, config, checkpoint=checkpoint)
    assert metrics == whole
    for name, value in weights(expected).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_with_averaging_the_model_that_is_measured_and_returned_is_the_weights_moving_average(thousand_cells) -> None:
    cells, a_step_an_epoch = thousand_cells[:100], AutoencoderTrainingConfig(lr=0.01, epochs=3, batch_size=100)
    seen: list[dict[str, torch.Tensor]] = []
    averages: list[dict[str, torch.Tensor]] = []

    def note(into: list[dict[str, torch.Tensor]], model: VSGAE) -> dict[str, float]:
        into.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    plain, _ = run(cells, a_step_an_epoch, monitor=partial(note, seen))
    averaged, model = run(cells, replace(a_step_an_epoch, averaging=0.75), monitor=partial(note, averages))
    assert averaged == plain  # the training itself is the same
    expected = seen[0]
    for step, average in enumerate(averages):
        expected = {name: 0.75 * value + 0.25 * seen[step][name] for name, value in expected.items()}
        for name, value in average.items():
            torch.testing.assert_close(value, expected[name])
    assert all(torch.equal(value, averages[-1][name]) for name, value in weights(model).items())


def test_a_golden_loss_of_the_papers_configuration_after_20_steps(thousand_cells) -> None:
    """The text's settings, 20 steps of 128 cells; the values were taken on the CPU from torch 2.13."""
    config = AutoencoderTrainingConfig(epochs=20)
    metrics, _ = run(thousand_cells[:128], config, model=VSGAEConfig())
    assert [metrics[i]["train_loss"] for i in (0, 19)] == pytest.approx([10.0144129, 7.1253033], rel=1e-4)


def test_the_plateau_schedule_waits_for_epochs_without_a_lower_loss() -> None:
    rate = _LearningRate(AutoencoderTrainingConfig(lr=1.0, patience=2, factor=0.1), steps=100)
    seen = []
    for loss in (5, 4, 4, 4.5, 4, 3, 3, 3, 3, 3, 3, 3):
        rate.end_epoch(loss)
        seen.append(rate.at(0))
    assert seen == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])


def test_the_cosine_schedule_rises_over_the_warm_up_and_falls_to_zero() -> None:
    rate = _LearningRate(AutoencoderTrainingConfig(lr=2.0, schedule="cosine", warmup=9), steps=1000)
    assert [rate.at(step) for step in (0, 9, 500)] == pytest.approx([0.2, 2.0, 1.0], rel=1e-3)
    assert 0 < rate.at(999) < 1e-4


def test_the_rate_falls_to_zero_in_a_line_over_the_epochs_of_the_cooldown() -> None:
    config = AutoencoderTrainingConfig(lr=2.0, schedule="constant", warmup=9, epochs=10, cooldown=4)
    rate = _LearningRate(config, steps=1000)
    steps = (0, 9, 599, 600, 700, 800, 999)
    assert [rate.at(step) for step in steps] == pytest.approx([0.2, 2.0, 2.0, 2.0, 1.5, 1.0, 0.005])
    short = _LearningRate(replace(config, epochs=2), steps=200)
    assert [short.at(step) for step in (9, 100, 199)] == pytest.approx([0.955, 0.5, 0.005])


def test_a_share_of_the_cells_is_trained_on(thousand_cells) -> None:
    few = AutoencoderTrainingConfig(lr=1e-3, epochs=1, batch_size=1000, train_share=0.1)
    epoch = next(train_autoencoder(MODEL, few, thousand_cells, seed=0))
    assert round(epoch["cells_per_second"] * epoch["seconds"]) == 100
    metrics, _ = run(thousand_cells, few)
    every, _ = run(thousand_cells, AutoencoderTrainingConfig(lr=1e-3, epochs=1, batch_size=1000))
    assert metrics[0]["train_loss"] == epoch["train_loss"] != every[0]["train_loss"]


def test_a_loss_that_is_no_longer_finite_is_an_error(thousand_cells) -> None:
    with pytest.raises(FloatingPointError, match=r"training diverged in epoch \d: its loss is (inf|nan)"):
        run(thousand_cells, AutoencoderTrainingConfig(lr=1e30, epochs=3, schedule="constant"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be greater than 0"),
        ({"max_norm": 0.0}, "max_norm is 0.0; it must be greater than 0"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"patience": -1}, "patience is -1; it must be at least 0"),
        ({"warmup": -1}, "warmup is -1; it must be at least 0"),
        ({"cooldown": -1}, "cooldown is -1; it must be at least 0"),
        ({"factor": 1.0}, "factor is 1.0; it must be between 0 and 1"),
        ({"averaging": 1.0}, "averaging is 1.0; it must be at least 0 and below 1"),
        ({"train_share": 0.0}, "train_share is 0.0; it must be above 0 and at most 1"),
        ({"schedule": "linear"}, "schedule is 'linear'; allowed are constant, cosine, plateau"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoencoderTrainingConfig(**values)
