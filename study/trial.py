"""One trial: a configuration in, metrics epoch by epoch and a model out. No Ray and no MLflow in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from safetensors.torch import save_file

from study.settings import CHECKED, flatten, merge
from vsgae.baselines import fit_baselines
from vsgae.nasbench101.labels import LabelConfig, Labels, load_labels
from vsgae.predictor import PredictorConfig
from vsgae.splits import SplitConfig, split
from vsgae.training import TrainingConfig, train_predictor

SCHEMA_VERSION = 1
"""Part of every trial's key. Raise it when a change of the code changes the results of an unchanged configuration."""

CHECKPOINT, MODEL, CONFIG = "checkpoint.pt", "model.safetensors", "config.json"


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """All that a trial depends on.

    Args:
        seed: of the weights and the order of batches. The split has its own.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    model: PredictorConfig = field(default_factory=PredictorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    seed: int = 0

    def without_path(self) -> dict[str, Any]:
        """As nested dictionaries, without where the labels lie: the same table elsewhere is the same trial."""
        values = asdict(self)
        del values["labels"]["source"]
        return values


def trial_key(config: TrialConfig, label_digest: str) -> str:
    """16 hexadecimal digits that name the trial by what determines its result.

    Of the configuration only what differs from the defaults: a setting that a later version adds, with today's
    behaviour as its default, leaves the keys of today's trials as they are.
    """
    defaults = flatten(TrialConfig().without_path())
    changed = {name: value for name, value in flatten(config.without_path()).items() if value != defaults[name]}
    content = {"config": changed, "labels": label_digest, "schema": SCHEMA_VERSION}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run_trial(config: TrialConfig, directory: Path, device: str = "cpu") -> Iterator[dict[str, float]]:
    """Train, score on the test cells once, and leave the best model in ``directory``.

    Run again with the same directory, it goes on after the last finished epoch, having yielded the finished ones again.

    Yields:
        For every epoch a dictionary with ``epoch`` (from 1) and its metrics; last, without ``epoch``, the scores at the
        epoch chosen on the validation cells (``best_validation_*``, ``test_*``) and those of the baselines on the same
        test cells (``baseline_<name>_test_*``).
    """
    directory.mkdir(parents=True, exist_ok=True)
    labels = _labels(config.labels)
    cells, values = labels.cells, labels.values
    parts = split(cells, config.split)
    result = yield from train_predictor(
        config.model,
        config.training,
        cells,
        values,
        parts,
        seed=config.seed,
        checkpoint=directory / CHECKPOINT,
        device=device,
    )
    final = {"best_epoch": float(result.best_epoch)}
    final |= {f"best_validation_{name}": value for name, value in result.validation.items()}
    final |= {f"test_{name}": value for name, value in result.test.items()}
    baselines = fit_baselines(cells, values, parts)
    constant = baselines["constant"]["rmse"]
    final["test_rmse_ratio"] = final["test_rmse"] / constant
    for baseline, scores in baselines.items():
        final |= {f"baseline_{baseline}_test_{name}": value for name, value in scores.items()}
        final[f"baseline_{baseline}_test_rmse_ratio"] = scores["rmse"] / constant
    for name in ("train", "validation", "test"):
        final[f"{name}_cells"] = float(len(getattr(parts, name)))

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in result.model.state_dict().items()}
    save_file(weights, directory / MODEL)
    stands_on = {"labels": {"description": labels.description, "digest": labels.digest}}
    (directory / CONFIG).write_text(json.dumps(merge(config.without_path(), stands_on), indent=2) + "\n")
    yield final


@lru_cache(maxsize=1)
def _labels(config: LabelConfig) -> Labels:
    """Kept for the next trial in this process."""
    return load_labels(config)
