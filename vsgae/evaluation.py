"""How well predicted accuracies fit the true ones."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vsgae.cells import Cells
from vsgae.predictor import AccuracyPredictor

CELLS_AT_ONCE = 32_768  # of a whole-space evaluation: larger batches share more states, and need more memory


@torch.no_grad()
def predict(model: AccuracyPredictor, cells: Cells) -> Tensor:
    """float32 ``[N]`` on the CPU: predictions without dropout for any number of cells, made on the model's device."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    parts = [cells[start : start + CELLS_AT_ONCE] for start in range(0, max(len(cells), 1), CELLS_AT_ONCE)]
    predicted = torch.cat([model(part.to(device)).cpu() for part in parts])
    model.train(was_training)
    return predicted


def regression_metrics(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """The scores of a prediction, by name.

    ``rmse`` and ``mae`` in the unit of the labels; ``r2``; ``kendall_tau`` (tau-b) and ``spearman``, not a number where
    all predictions are the same.

    Raises:
        ValueError: fewer than two values, a different number of each, or a prediction that is not finite.
    """
    p, t = predicted.double().numpy(force=True), true.double().numpy(force=True)
    if p.shape != t.shape or len(p) < 2:
        raise ValueError(f"{len(p)} predictions for {len(t)} labels; as many are needed, and at least 2")
    if not np.isfinite(p).all():
        raise ValueError(f"prediction {int(np.argmin(np.isfinite(p)))} is {p[~np.isfinite(p)][0]}; it must be finite")
    error = p - t
    spread = np.square(t - t.mean()).sum()
    constant = np.ptp(p) == 0 or spread == 0
    return {
        "rmse": float(np.sqrt(np.square(error).mean())),
        "mae": float(np.abs(error).mean()),
        "r2": float(1 - np.square(error).sum() / spread) if spread else float("nan"),
        "kendall_tau": float("nan") if constant else float(stats.kendalltau(p, t).statistic),
        "spearman": float("nan") if constant else float(stats.spearmanr(p, t).statistic),
    }
