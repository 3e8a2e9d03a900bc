"""A training between two epochs, in memory and as a file from which it goes on."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import nn

from vsgae.files import replacing

CHECKPOINT_VERSION = 3  # to be raised when the names or shapes of weights change, or what else a checkpoint holds

logger = logging.getLogger(__name__)


class DamagedCheckpointError(Exception):
    """A file that should be a checkpoint is none, or not whole."""


@dataclass(eq=False)
class TrainingState:
    """What an interrupted training needs to go on: weights, Adam's moments, the record, and what is kept of earlier
    weights: the best so far where there are validation cells, or the average."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    checkpoint: Path | None
    history: list[dict[str, float]]
    kept: dict[str, Any]

    @staticmethod
    def start(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path | None) -> TrainingState:
        """At the first epoch, or, if there is a checkpoint, after its last, model and optimizer too; one of another
        version is reported and passed over.

        Raises:
            DamagedCheckpointError: it cannot be read.
        """
        run = TrainingState(model, optimizer, checkpoint, [], {})
        if checkpoint is None or not checkpoint.exists():
            return run
        content = io.BytesIO(checkpoint.read_bytes())
        try:
            if part := ZipFile(content).testzip():  # torch writes checksums, but does not read them
                raise BadZipFile(f"{part} does not have its checksum")
            content.seek(0)
            state = torch.load(content, map_location="cpu", weights_only=True)
            version = state["version"]
            if version == CHECKPOINT_VERSION:
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                run.history, run.kept = state["history"], state["kept"]
        except torch.OutOfMemoryError:
            raise
        except (BadZipFile, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
            raise DamagedCheckpointError(f"{checkpoint} is damaged: {' '.join(str(error).split())[:120]}") from error
        if version != CHECKPOINT_VERSION:
            message = "The checkpoint %s has version %s, not %s: the training starts again."
            logger.warning(message, checkpoint, version, CHECKPOINT_VERSION)
        return run

    def record(self, metrics: dict[str, float]) -> None:
        """Add an epoch to the record, and write the checkpoint."""
        validated = "validation_rmse" in metrics
        if validated and all(metrics["validation_rmse"] < epoch["validation_rmse"] for epoch in self.history):
            self.kept = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        self.history.append(metrics)
        if self.checkpoint is not None:
            state = {
                "version": CHECKPOINT_VERSION,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
                "kept": self.kept,
            }
            content = io.BytesIO()  # torch's own writing to a file does not say that the disk is full
            torch.save(state, content)
            with replacing(self.checkpoint) as path:
                path.write_bytes(content.getbuffer())
