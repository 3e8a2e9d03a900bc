"""Where cells are in the latent space of a trained autoencoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from vsgae.autoencoder import SHIPPED_FILE, VSGAE
from vsgae.cells import Cells
from vsgae.generation import encode

SHIPPED = "shipped"


def model_file(model: str) -> Path:
    """The file of an autoencoder: ``shipped``, the one that comes with this project, or a path.

    Raises:
        ValueError: there is no such file.
    """
    path = SHIPPED_FILE if model == SHIPPED else Path(model)
    if not path.is_file():
        raise ValueError(f"{model!r} is no autoencoder, there is no file {path}; it must be {SHIPPED!r} or a path")
    return path


def model_digest(model: str) -> str:
    """The SHA-256 of the autoencoder's file.

    Raises:
        ValueError: as :func:`model_file`.
    """
    with open(model_file(model), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoder_means(model: str, cells: Cells) -> Tensor:
    """float32 ``[N, d_g]``, on the CPU: the mean of each cell's posterior.

    Raises:
        ValueError: as :func:`model_file`, or the file holds something else.
    """
    mean, _ = encode(VSGAE.from_pretrained(model_file(model)), cells)
    return mean
