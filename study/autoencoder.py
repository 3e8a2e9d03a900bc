"""Trials of the autoencoder, and the abilities that they are trained for (paper section 7.2, Table 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from study.trial import CHECKPOINT, CONFIG, MODEL, OURS, PER_CENT, Data, Measure, TrialConfig, timed
from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.generation import Estimate, encode, generate, latent_use, reconstruct, spot_check
from vsgae.nasbench101 import load_space
from vsgae.splits import SplitConfig, split
from vsgae.training import AutoencoderTrainingConfig, train_autoencoder

LATENT = "latent.csv"
SPOT_CELLS = 1000  # held-out cells that are looked at after every epoch


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much of section 7.2's protocol is carried out; the defaults are all of it.

    Args:
        cells: held-out cells that are reconstructed, drawn by the split's seed; 0 for all of them.
        samples: of z from the posterior of each.
        points: of each prior.
        decodings: of each sample and of each point.
    """

    cells: int = 0
    samples: int = 10
    points: int = 1000
    decodings: int = 10

    def __post_init__(self) -> None:
        for name, least in (("cells", 0), ("samples", 1), ("points", 1), ("decodings", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrial(TrialConfig):
    """Train on cells without labels, then measure how well held-out cells are reconstructed and how many of the cells
    decoded from the prior are valid. The model of the last epoch is evaluated: nothing is chosen on held-out cells.

    Final metrics: ``MEASURES``; for each that is an estimate also ``*_low`` and ``*_high``, its 95 % interval; and
    ``parameters``, the number of weights, and ``training_seconds``.
    """

    MEASURES: ClassVar[Mapping[str, Measure]] = {
        "test_reconstruction": Measure("Reconstruction accuracy", "Abilities", PER_CENT, higher_is_better=True),
        "test_validity": Measure("Prior validity", "Abilities", PER_CENT, higher_is_better=True),
        "test_isomorphic_reconstruction": Measure(
            "of samples, up to isomorphism", "Reconstruction", PER_CENT, higher_is_better=True
        ),
        "test_mean_reconstruction": Measure(
            "of the posterior's mean, greedily", "Reconstruction", PER_CENT, higher_is_better=True
        ),
        "test_isomorphic_mean_reconstruction": Measure(
            "the same, up to isomorphism", "Reconstruction", PER_CENT, higher_is_better=True
        ),
        "test_in_space": Measure("in NAS-Bench-101", "Cells from N(0, I)", PER_CENT, higher_is_better=True),
        "test_unique": Measure("of these unique", "Cells from N(0, I)", PER_CENT, higher_is_better=True),
        "test_novel": Measure("of the unique not trained on", "Cells from N(0, I)", PER_CENT, higher_is_better=True),
        "test_scaled_validity": Measure(
            "valid", "Cells from the training latents' mean and deviation", PER_CENT, higher_is_better=True
        ),
        "test_scaled_in_space": Measure(
            "in NAS-Bench-101", "Cells from the training latents' mean and deviation", PER_CENT, True
        ),
        "test_kl": Measure("KL divergence, nats", "Latent space"),
        "test_active_dimensions": Measure("Active dimensions", "Latent space"),
    }
    METHODS: ClassVar[Mapping[str, str]] = {"": OURS}
    CELLS: ClassVar[Mapping[str, str]] = {
        "train_cells": "training",
        "test_cells": "held out",
        "reconstructed_cells": "reconstructed",
    }
    FILES: ClassVar[tuple[str, ...]] = (MODEL, CONFIG, LATENT)

    model: VSGAEConfig = field(default_factory=VSGAEConfig)
    training: AutoencoderTrainingConfig = field(default_factory=AutoencoderTrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    split: SplitConfig = field(default_factory=lambda: SplitConfig(name="random_90_10"))

    @property
    def epochs(self) -> int:
        return self.training.epochs

    @property
    def curve(self) -> str:
        return "train_loss"

    def data(self) -> Data:
        num_cells = len(load_space().cells)
        return Data(f"none needed; the {num_cells:,} enumerated cells", {"cells": num_cells})

    def run(self, directory: Path, device: str = "cpu") -> Iterator[dict[str, float]]:
        directory.mkdir(parents=True, exist_ok=True)
        space = load_space()
        parts = split(space.cells, self.split)
        training_cells, held_out = space.cells[parts.train], space.cells[parts.test]
        spot_cells = held_out[_some(len(held_out), SPOT_CELLS, self.split.seed)]
        training = train_autoencoder(
            self.model,
            self.training,
            training_cells,
            seed=self.seed,
            monitor=partial(spot_check, cells=spot_cells, seed=self.seed),
            checkpoint=directory / CHECKPOINT,
            device=device,
        )
        model, seconds = yield from timed(training)
        generator = torch.Generator(device).manual_seed(self.seed)
        chosen = held_out[_some(len(held_out), self.evaluation.cells or len(held_out), self.split.seed)]
        samples, decodings, points = self.evaluation.samples, self.evaluation.decodings, self.evaluation.points
        sampled = reconstruct(model, chosen, generator, samples=samples, decodings=decodings)
        of_mean = reconstruct(model, chosen, generator, from_mean=True)
        trained_on = parts.train.numpy()[self.training.chosen(len(parts.train), self.seed)]
        hashes = np.asarray(space.hashes)[trained_on].tolist()
        latents, _ = encode(model, space.cells[trained_on])
        draw = partial(generate, model, hashes, generator, points=points, decodings=decodings)
        drawn, scaled = draw(), draw(mean=latents.mean(0), deviation=latents.std(0))
        estimates = {
            "test_reconstruction": sampled.exact,
            "test_isomorphic_reconstruction": sampled.isomorphic,
            "test_mean_reconstruction": of_mean.exact,
            "test_isomorphic_mean_reconstruction": of_mean.isomorphic,
            "test_validity": drawn.valid,
            "test_in_space": drawn.in_space,
            "test_scaled_validity": scaled.valid,
            "test_scaled_in_space": scaled.in_space,
        }
        final = {name: value for name, estimate in estimates.items() for name, value in _with_interval(name, estimate)}
        final |= {"test_unique": drawn.unique, "test_novel": drawn.novel}
        use = latent_use(model, held_out)
        final |= {"test_kl": float(use.kl.sum()), "test_active_dimensions": float(use.active.sum())}
        final |= {"train_cells": float(len(trained_on)), "test_cells": float(len(held_out))}
        final["reconstructed_cells"] = float(len(chosen))
        final["parameters"] = float(self.parameters())
        final["training_seconds"] = seconds

        latent = pd.DataFrame({"kl": use.kl.cpu(), "active": use.active.cpu()})
        latent.to_csv(directory / LATENT, index_label="dimension")
        model.save_pretrained(directory / MODEL)
        self.write_config(directory)
        yield final

    def network(self) -> VSGAE:
        return VSGAE(self.model)

    def progress(self, metrics: Mapping[str, float]) -> str:
        return (
            f"epoch {metrics['epoch']:.0f}/{self.epochs}, training loss {metrics['train_loss']:.3g}, "
            f"held-out reconstruction {metrics['held_out_reconstruction']:.1%}, "
            f"prior validity {metrics['prior_validity']:.1%}"
        )

    @staticmethod
    def scores(metrics: Mapping[str, float]) -> str:
        return (
            f"reconstruction {metrics['test_reconstruction']:.2%} ({metrics['test_mean_reconstruction']:.2%} from the "
            f"mean), prior validity {metrics['test_validity']:.2%}"
        )

    @staticmethod
    def report(metrics: Mapping[str, float]) -> str:
        """Every measure, with its 95 % interval if it has one."""
        rows = []
        for name, measure in AutoencoderTrial.MEASURES.items():
            is_share = measure.unit == PER_CENT
            figure = f"{metrics[name]:.2%}" if is_share else f"{metrics[name]:.4g}"
            if f"{name}_low" in metrics:
                figure += f" ({metrics[f'{name}_low']:.2%} to {metrics[f'{name}_high']:.2%})"
            rows.append((f"{measure.block}: {measure.title}", figure))
        width = max(len(title) for title, _ in rows)
        cells = f"{metrics['reconstructed_cells']:,.0f} of {metrics['test_cells']:,.0f} held-out cells reconstructed"
        return "\n".join([cells, *(f"{title:<{width}}  {figure}" for title, figure in rows)])


def _some(total: int, wanted: int, seed: int) -> np.ndarray:
    """So many indices below ``total``, at random, ascending; all of them where more are wanted than there are."""
    if wanted >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, wanted, replace=False))


def _with_interval(name: str, estimate: Estimate) -> list[tuple[str, float]]:
    low, high = estimate.interval
    return [(name, estimate.value), (f"{name}_low", low), (f"{name}_high", high)]
