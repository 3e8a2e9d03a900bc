"""The autoencoder that comes with the package can do what its card says, as far as a few seconds can tell."""

from __future__ import annotations

import torch

from study.space import load_study, plan_trials
from vsgae.autoencoder import PRETRAINED, VSGAE
from vsgae.cells import is_nasbench101
from vsgae.generation import generate, interpolate, reconstruct
from vsgae.nasbench101 import load_space
from vsgae.splits import SplitConfig, split


def test_it_is_the_model_of_its_study_and_small() -> None:
    [trial] = plan_trials(load_study("pretrained"), {})
    assert VSGAE.from_pretrained().config == trial.config.model  # type: ignore[attr-defined]
    assert PRETRAINED.stat().st_size < 12e6


def test_it_reconstructs_held_out_cells_and_its_prior_is_mostly_valid() -> None:
    model, cells = VSGAE.from_pretrained(), load_space().cells
    held_out = cells[split(cells, SplitConfig(name="random_90_10")).test][::85]
    assert len(held_out) == 499
    generator = torch.Generator().manual_seed(0)
    assert reconstruct(model, held_out, generator, from_mean=True).exact.value > 0.99
    assert reconstruct(model, held_out, generator, samples=2, decodings=2).exact.value > 0.97
    assert generate(model, [], generator, points=500, decodings=2).valid.value > 0.9


def test_a_line_between_two_cells_leads_from_one_to_the_other() -> None:
    model, cells = VSGAE.from_pretrained(), load_space().cells
    first, last = cells[100_000:100_001], cells[400_000:400_001]
    line = interpolate(model, first, last, steps=9)
    assert line[:1].equal(first).all()
    assert line[8:].equal(last).all()
    assert is_nasbench101(line).float().mean() > 0.5
    assert not line[4:5].equal(first).any()
