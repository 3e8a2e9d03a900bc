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
from torch.optim.swa_utils import AveragedModel

from vsgae.files import replacing

CHECKPOINT_VERSION = 4  # to be raised when the names or shapes of weights change, or what else a checkpoint holds

logger = logging.getLogger(__name__)


class DamagedCheckpointError(Exception):
    """A file that should be a checkpoint is none, or not whole."""


@dataclass(eq=False)
class TrainingState:
    """What an interrupted training needs to go on: weights, Adam's moments, the average of the weights if there is one,
    the record, and the best weights so far where there are validation cells."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    checkpoint: Path | None
    history: list[dict[str, float]]
    best: dict[str, Any]

    @staticmethod
    def start(
        model: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None, checkpoint: Path | None
    ) -> TrainingState:
        """At the first epoch, or, if there is a checkpoint, after its last, model, optimizer and average too; one of
        another version is reported and passed over.

        Raises:
            DamagedCheckpointError: it cannot be read.
        """
        run = TrainingState(model, optimizer, average, checkpoint, [], {})
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
                if average is not None:
                    average.load_state_dict(state["average"])
                run.history, run.best = state["history"], state["best"]
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
            weights = self.model.state_dict() if self.average is None else self.average.module.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        self.history.append(metrics)
        if self.checkpoint is not None:
            state = {
                "version": CHECKPOINT_VERSION,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
                "average": self.average.state_dict() if self.average is not None else {},
                "best": self.best,
            }
            content = io.BytesIO()  # torch's own writing to a file does not say that the disk is full
            torch.save(state, content)
            with replacing(self.checkpoint) as path:
                path.write_bytes(content.getbuffer())
