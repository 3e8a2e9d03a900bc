import numpy as np
import pytest
import torch

from vsgae import evaluation
from vsgae.encoder import EncoderConfig
from vsgae.evaluation import predict, regression_metrics
from vsgae.predictor import AccuracyPredictor, PredictorConfig


def test_the_scores_of_a_small_example_by_hand():
    metrics = regression_metrics(torch.tensor([0.5, 0.7, 0.6, 0.9]), torch.tensor([0.4, 0.6, 0.7, 0.8]))
    assert metrics["rmse"] == pytest.approx(0.1)
    assert metrics["mae"] == pytest.approx(0.1)
    assert metrics["r2"] == pytest.approx(1 - 0.04 / 0.0875)
    assert metrics["kendall_tau"] == pytest.approx((5 - 1) / 6)
    assert metrics["spearman"] == pytest.approx(0.8)


def test_an_error_smaller_than_the_fourth_digit_is_not_rounded_away():
    true = torch.linspace(0.8, 0.9, 100, dtype=torch.float64)
    assert regression_metrics(true + 3e-7, true)["rmse"] == pytest.approx(3e-7, rel=1e-6)


def test_ranks_of_a_constant_prediction_are_not_a_number():
    metrics = regression_metrics(torch.full((5,), 0.9), torch.rand(5))
    assert np.isnan([metrics["kendall_tau"], metrics["spearman"]]).all()
    assert np.isfinite([metrics["rmse"], metrics["mae"], metrics["r2"]]).all()


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        ([0.1, float("nan")], [0.1, 0.2], "prediction 1 is nan; it must be finite"),
        ([0.1, 0.2, 0.3], [0.1, 0.2], "3 predictions for 2 labels"),
        ([0.1], [0.1], "at least 2"),
    ],
)
def test_bad_input_is_refused(predicted, true, message):
    with pytest.raises(ValueError, match=message):
        regression_metrics(torch.tensor(predicted), torch.tensor(true))


def test_predictions_in_parts_are_the_predictions(thousand_cells, monkeypatch):
    torch.manual_seed(0)
    model = AccuracyPredictor(PredictorConfig(encoder=EncoderConfig(node_dim=8)))
    whole = predict(model, thousand_cells)
    assert whole.shape == (1000,)
    assert not whole.requires_grad
    monkeypatch.setattr(evaluation, "CELLS_AT_ONCE", 170)
    torch.testing.assert_close(predict(model, thousand_cells), whole, rtol=0, atol=1e-6)
