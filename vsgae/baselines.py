"""Two baselines that stand next to every score: they say what a model must beat on the same cells."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from vsgae.cells import Cells
from vsgae.evaluation import regression_metrics
from vsgae.features import cell_features
from vsgae.splits import Split

BASELINES = {"constant": "constant predictor", "boosted_trees": "boosted trees on cell features"}  # and their titles


def fit_baselines(cells: Cells, values: Tensor, split: Split) -> dict[str, dict[str, float]]:
    """Fit both on the training cells and score them on the test cells: :func:`regression_metrics` by baseline.

    ``constant`` predicts the mean of the training labels. ``boosted_trees`` is scikit-learn's histogram gradient
    boosting with its default settings on :func:`cell_features`. Neither uses the validation cells; both are
    deterministic.
    """
    features = np.stack(list(cell_features(cells).values()), axis=1)
    train, test = split.train.numpy(), split.test.numpy()
    trees = HistGradientBoostingRegressor(random_state=0).fit(features[train], values[split.train].numpy())
    predictions = {
        "constant": values[split.train].double().mean().expand(len(test)),
        "boosted_trees": torch.from_numpy(trees.predict(features[test])),
    }
    return {name: regression_metrics(predictions[name], values[split.test]) for name in BASELINES}
