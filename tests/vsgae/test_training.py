import math
import os
from dataclasses import replace

import pytest
import torch
from epochs import train
from torch.nn import functional as F

from vsgae.checkpoints import DamagedCheckpointError
from vsgae.encoder import EncoderConfig
from vsgae.evaluation import predict, regression_metrics
from vsgae.predictor import AccuracyPredictor, PredictorConfig
from vsgae.splits import Split, SplitConfig, split
from vsgae.training import TrainingConfig, ranking_loss, train_predictor

MODEL = PredictorConfig(encoder=EncoderConfig(node_dim=16, graph_dim=8))
CONFIG = TrainingConfig(lr=1e-3, epochs=5, batch_size=64)
EVERYTHING = {
    "schedule": "cosine",
    "warmup": 3,
    "cooldown": 1,
    "weight_decay": 0.1,
    "averaging": 0.9,
    "max_norm": 1.0,
    "loss": "ranking",
}


@pytest.fixture(scope="module")
def data(thousand_cells):
    """Invented labels: the share of 3x3 convolutions, moved a little by the number of edges."""
    values = (thousand_cells.operations == 1).float().mean(1) + 0.01 * thousand_cells.num_edges
    return thousand_cells, values, split(thousand_cells, SplitConfig())


def run(data, config=CONFIG, epochs=None, model=MODEL, **kwargs):
    """The metrics of the first ``epochs`` epochs (without timings), and the result if training ended."""
    return train(train_predictor(model, config, *data, **{"seed": 0, **kwargs}), epochs)


def test_training_is_deterministic_for_a_seed_and_differs_between_seeds(data):
    first, second, other = run(data), run(data), run(data, seed=1)
    assert first[0] == second[0]
    assert first[1].test == second[1].test
    assert first[0] != other[0]


def test_training_leaves_the_callers_random_state_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(data, epochs=1)
    assert torch.rand(1) == expected


def test_training_in_bfloat16_is_nearly_that_in_float32(data):
    [expected], _ = run(data, epochs=1)
    [metrics], _ = run(data, replace(CONFIG, precision="bfloat16"), epochs=1)
    assert metrics["train_loss"] != expected["train_loss"]
    assert metrics["train_loss"] == pytest.approx(expected["train_loss"], rel=0.02)


@pytest.mark.parametrize("stopped_after", [1, 3, 5])
@pytest.mark.parametrize("changed", [{}, EVERYTHING], ids=["paper", "everything"])
def test_an_interrupted_training_goes_on_to_the_same_numbers(data, tmp_path, stopped_after, changed):
    config, model = replace(CONFIG, **changed), replace(MODEL, dropout=0.1 if changed else 0.0)
    whole, expected = run(data, config, model=model)
    checkpoint = tmp_path / "checkpoint.pt"
    before, _ = run(data, config, epochs=stopped_after, model=model, checkpoint=checkpoint)
    assert before == whole[:stopped_after]
    after, result = run(data, config, model=model, checkpoint=checkpoint)
    assert after == whole  # the record first, then the epochs that were missing
    assert (result.best_epoch, result.test) == (expected.best_epoch, expected.test)
    for a, b in zip(result.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_version_is_told_and_the_training_starts_again(data, tmp_path, caplog):
    checkpoint = tmp_path / "checkpoint.pt"
    expected, _ = run(data)
    run(data, epochs=2, checkpoint=checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "version": 1}, checkpoint)
    metrics, _ = run(data, checkpoint=checkpoint)
    assert metrics == expected
    assert caplog.messages == [f"The checkpoint {checkpoint} has version 1, not 4: the training starts again."]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"no checkpoint",
        lambda whole: whole.replace(b"history", b"HISTORY"),
        lambda whole: whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
    ],
    ids=["half of it", "empty", "text", "a name changed", "a bit of a weight flipped"],
)
def test_a_damaged_checkpoint_is_told_and_left_as_it_is(data, tmp_path, damage):
    checkpoint = tmp_path / "checkpoint.pt"
    run(data, epochs=2, checkpoint=checkpoint)
    damaged = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt is damaged: "):
        run(data, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == damaged


class MakesADirectory:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_that_holds_code_is_damaged_and_the_code_is_not_run(data, tmp_path):
    checkpoint, made = tmp_path / "checkpoint.pt", tmp_path / "made"
    torch.save({"version": 3, "model": MakesADirectory(str(made))}, checkpoint)
    with pytest.raises(DamagedCheckpointError, match="Weights only load failed"):
        run(data, checkpoint=checkpoint)
    assert not made.exists()


def test_a_finished_training_is_not_trained_again(data, tmp_path):
    run(data, checkpoint=tmp_path / "checkpoint.pt")
    generator = train_predictor(MODEL, CONFIG, *data, seed=0, checkpoint=tmp_path / "checkpoint.pt")
    first = run(data, checkpoint=tmp_path / "checkpoint.pt")
    recorded = [next(generator)["seconds"] for _ in range(5)]
    assert recorded == [
        m["seconds"] for m in train_predictor(MODEL, CONFIG, *data, seed=0, checkpoint=tmp_path / "checkpoint.pt")
    ]
    assert len(first[0]) == 5


def test_the_best_epoch_is_the_one_with_the_lowest_validation_error_and_its_weights_are_kept(data):
    cells, values, parts = data
    values = values.clone()
    values[parts.validation] *= -1  # the better the training cells fit, the worse these do
    metrics, result = run((cells, values, parts))
    errors = [m["validation_rmse"] for m in metrics]
    assert result.best_epoch == 1 + errors.index(min(errors))
    assert result.best_epoch < len(errors)
    again = regression_metrics(predict(result.model, cells[parts.validation]), values[parts.validation])
    assert again == result.validation
    assert again["rmse"] == min(errors)
    assert result.test == regression_metrics(predict(result.model, cells[parts.test]), values[parts.test])


def without_validation(data):
    cells, values, parts = data
    return cells, values, Split(parts.train, parts.train[:0], parts.test)


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_the_last_epoch_can_be_the_result_and_needs_no_validation_cells(data, averaging):
    cells, values, parts = data
    config = replace(CONFIG, select="last", averaging=averaging)
    metrics, result = run(without_validation(data), config)
    validated, same = run(data, config)
    assert result.best_epoch == same.best_epoch == CONFIG.epochs
    assert result.validation == {}
    assert same.validation == regression_metrics(predict(same.model, cells[parts.validation]), values[parts.validation])
    assert not any(name.startswith("validation") for name in metrics[0])
    assert [m["train_loss"] for m in metrics] == [m["train_loss"] for m in validated]
    assert result.test == same.test == regression_metrics(predict(result.model, cells[parts.test]), values[parts.test])


def test_an_interrupted_training_without_validation_cells_goes_on_to_the_same_numbers(data, tmp_path):
    config = replace(CONFIG, **EVERYTHING, passes=2, select="last")
    whole, expected = run(without_validation(data), config)
    run(without_validation(data), config, epochs=3, checkpoint=tmp_path / "checkpoint.pt")
    after, result = run(without_validation(data), config, checkpoint=tmp_path / "checkpoint.pt")
    assert (after, result.test) == (whole, expected.test)


def test_the_passes_of_an_epoch_take_every_cell_once_each_and_as_many_steps_of_the_schedule(data):
    config = replace(CONFIG, lr=1e-9, epochs=2, passes=3, schedule="cosine")
    metrics, _ = run(data, config)
    [still], _ = run(data, replace(CONFIG, lr=1e-9, epochs=1))
    assert metrics[0]["train_loss"] == pytest.approx(still["train_loss"], rel=1e-4)  # a mean over the passes
    assert metrics[0]["train_rmse"] == pytest.approx(still["train_rmse"], rel=1e-4)
    whole, expected = run(data, replace(CONFIG, epochs=1, passes=4, batch_size=1000, schedule="cosine"))
    stepwise, same = run(data, replace(CONFIG, epochs=4, batch_size=1000, schedule="cosine"))
    assert whole[0]["train_loss"] == pytest.approx(sum(m["train_loss"] for m in stepwise) / 4, rel=1e-5)
    assert expected.validation == pytest.approx(same.validation, rel=1e-4)


def test_an_encoder_that_is_given_is_the_first_and_all_else_is_drawn_as_without(data):
    cells, *_ = data
    torch.manual_seed(7)
    given = AccuracyPredictor(MODEL).encoder
    still = TrainingConfig(lr=1e-30, epochs=1)
    _, result = run(data, still, encoder=given.state_dict())
    _, drawn = run(data, still)
    assert torch.equal(result.model.encoder(cells), given(cells))
    assert not torch.equal(drawn.model.encoder(cells), given(cells))
    assert torch.equal(result.model.output.weight, drawn.model.output.weight)


def test_standardised_labels_give_a_model_of_the_labels_as_they_are(data):
    cells, values, parts = data
    train = values[parts.train]
    by_hand = (values - train.mean()) / train.std(correction=0)
    metrics, result = run(data, replace(CONFIG, standardize=True))
    expected, other = run((cells, by_hand, parts))
    assert [m["train_loss"] for m in metrics] == pytest.approx([m["train_loss"] for m in expected], rel=1e-4)
    for name in ("train_rmse", "validation_rmse"):
        scaled = [m[name] * float(train.std(correction=0)) for m in expected]
        assert [m[name] for m in metrics] == pytest.approx(scaled, rel=1e-4)
    assert result.best_epoch == other.best_epoch
    predicted = predict(other.model, cells) * train.std(correction=0) + train.mean()
    assert torch.allclose(predict(result.model, cells), predicted, atol=1e-5)
    assert result.validation == pytest.approx(
        regression_metrics(predict(result.model, cells[parts.validation]), values[parts.validation]), rel=1e-4
    )


def test_labels_that_are_all_the_same_are_shifted_only(data):
    cells, _, parts = data
    _, result = run((cells, torch.full((len(cells),), 0.9), parts), replace(CONFIG, standardize=True, epochs=1))
    assert predict(result.model, cells).mean() == pytest.approx(0.9, abs=0.5)


def test_the_test_cells_change_nothing_but_the_test_score(data):
    cells, values, parts = data
    changed = values.clone()
    changed[parts.test] = 0.5 - values[parts.test]
    a, b = run(data), run((cells, changed, parts))
    assert a[0] == b[0]
    assert a[1].best_epoch == b[1].best_epoch
    assert a[1].test != b[1].test


def test_training_learns(data):
    _, values, parts = data
    _, result = run(data, TrainingConfig(lr=3e-3, epochs=30, batch_size=64))
    assert result.test["rmse"] < 0.5 * values[parts.test].std()
    assert result.test["kendall_tau"] > 0.7


def test_a_golden_loss_of_the_papers_configuration(thousand_cells):
    """Two epochs of the published configuration on 1,000 cells; the value was taken on the CPU from torch 2.13."""
    values = thousand_cells.num_edges / 10
    parts = Split(torch.arange(896), torch.arange(896, 948), torch.arange(948, 1000))
    metrics, _ = run((thousand_cells, values, parts), TrainingConfig(epochs=2), model=PredictorConfig())
    assert [m["train_loss"] for m in metrics] == pytest.approx([0.98826204, 0.97652299], rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_the_losses_are_torchs(loss):
    predicted, true = torch.tensor([0.9, 0.5]), torch.tensor([0.905, 0.9])
    value = TrainingConfig(loss=loss, huber_delta=0.01).loss_function()(predicted, true)
    squared = 0.5 * 0.005**2 + 0.01 * (0.4 - 0.005), 0.005**2 + 0.4**2
    assert value.item() == pytest.approx(squared[loss == "mse"] / 2, rel=1e-4)


def test_the_ranking_loss_is_that_of_all_ordered_pairs():
    predicted, true = [0.91, 0.93, 0.9, 0.95], [0.9, 0.92, 0.92, 0.8]
    pairs = [(i, j) for i in range(4) for j in range(4) if true[i] > true[j]]
    assert len(pairs) == 5
    expected = sum(math.log1p(math.exp(-(predicted[i] - predicted[j]) / 0.02)) for i, j in pairs) / 5 * 0.02**2
    assert ranking_loss(torch.tensor(predicted), torch.tensor(true), 0.02).item() == pytest.approx(expected, rel=1e-5)
    assert ranking_loss(torch.tensor(predicted), torch.full((4,), 0.9), 0.02) == 0
    loss = TrainingConfig(loss="ranking", huber_delta=0.02).loss_function()(torch.tensor(predicted), torch.tensor(true))
    huber = F.huber_loss(torch.tensor(predicted), torch.tensor(true), delta=0.02).item()
    assert loss.item() == pytest.approx(expected + huber, rel=1e-5)


def test_a_step_is_torchs_adamw_and_the_result_is_the_average(data):
    cells, values, parts = data
    config = TrainingConfig(lr=1e-2, epochs=4, batch_size=1000, weight_decay=0.3, averaging=0.8)
    _, result = run(data, config)
    torch.manual_seed(0)
    model = AccuracyPredictor(MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.3)
    averages = []
    for _ in range(4):
        optimizer.zero_grad()
        F.mse_loss(model(cells[parts.train]), values[parts.train]).backward()
        optimizer.step()
        weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
        averages.append(torch.lerp(weights, averages[-1], 0.8) if averages else weights)
    weights = torch.cat([weight.detach().flatten() for weight in result.model.parameters()])
    assert torch.allclose(weights, averages[result.best_epoch - 1], atol=1e-5)


def test_dropout_is_for_training_only(data):
    cells, *_ = data
    model = AccuracyPredictor(replace(MODEL, dropout=0.5))
    assert not torch.equal(model(cells), model(cells))
    assert torch.equal(predict(model, cells), predict(model, cells))
    assert model.training


def test_a_loss_that_is_no_longer_finite_is_an_error(data):
    cells, values, parts = data
    values = values.clone()
    values[parts.train[0]] = float("inf")
    with pytest.raises(FloatingPointError, match=r"training diverged in epoch 1: its loss is (inf|nan)"):
        run((cells, values, parts))


def test_weights_that_are_ruined_by_the_last_step_of_an_epoch_are_noticed(data):
    """The loss is that before the step, and still finite."""
    message = r"training diverged in epoch 1: its loss is \d.*, \d+ of \d+ validation predictions are not finite"
    with pytest.raises(FloatingPointError, match=message):
        run(data, TrainingConfig(lr=1e30, epochs=1, batch_size=1000))


def test_a_split_without_validation_cells_is_refused(data):
    cells, values, _ = data
    with pytest.raises(ValueError, match="select is 'best_validation', and the split has 0 validation cells"):
        run((cells, values, split(cells, SplitConfig(name="random_90_10"))))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be greater than 0"),
        ({"lr": float("nan")}, "lr is nan; it must be greater than 0"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1; it must be at least 1"),
        ({"passes": 0}, "passes is 0; it must be at least 1"),
        ({"select": "best"}, "select is 'best'; allowed are best_validation, last"),
        ({"loss": "hinge"}, "loss is 'hinge'; allowed are mse, huber, ranking"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must be at least 0"),
        ({"schedule": "step"}, "schedule is 'step'; allowed are constant, cosine, plateau"),
        ({"huber_delta": -1.0}, "huber_delta is -1.0; it must be greater than 0"),
    ],
)
def test_a_wrong_setting_is_quoted(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**setting)


def test_a_wrong_dropout_is_quoted():
    with pytest.raises(ValueError, match="dropout is 1; it must be at least 0 and below 1"):
        PredictorConfig(dropout=1)
