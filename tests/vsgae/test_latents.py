from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from vsgae.autoencoder import VSGAE
from vsgae.cells import Cells
from vsgae.latents import encoder_means, model_digest, model_file


def test_the_latents_are_the_means_of_the_autoencoder_in_the_file(
    small_autoencoder: Path, thousand_cells: Cells
) -> None:
    means = encoder_means(str(small_autoencoder), thousand_cells)
    assert means.shape == (1000, 5)
    assert not means.requires_grad
    with torch.no_grad():
        mean, _ = VSGAE.from_pretrained(small_autoencoder).encode(thousand_cells)
    torch.testing.assert_close(means, mean)


def test_shipped_is_the_file_of_the_project(shipped_autoencoder: Path) -> None:
    assert model_file("shipped") == shipped_autoencoder
    assert model_digest("shipped") == hashlib.sha256(shipped_autoencoder.read_bytes()).hexdigest()


def test_an_autoencoder_that_is_not_there_is_named() -> None:
    for question in (model_file, model_digest):
        with pytest.raises(ValueError, match=r"'gone\.safetensors' is no autoencoder, there is no file gone"):
            question("gone.safetensors")
