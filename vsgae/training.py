"""Training the accuracy predictor (paper section 7.1) and the autoencoder (section 5.2): generators of one dict of
metrics an epoch, which write a checkpoint after each and go on from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.cells import Cells
from vsgae.checkpoints import TrainingState
from vsgae.evaluation import predict, regression_metrics
from vsgae.predictor import AccuracyPredictor, PredictorConfig
from vsgae.splits import Split

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS = get_args(Precision)
"""Of the matrix products in training: float32; TensorFloat-32, where the GPU has it; or bfloat16 (autocast), on the CPU
too. Evaluation is in float32."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a predictor is trained; the defaults are the paper's.

    Args:
        lr: Adam's learning rate.
        batch_size: cells a step; the last batch of an epoch may be smaller.
        epochs: 50 in figures 6 and 7 and table 1, 100 in section 7.3.
        loss: ``mse``, or ``huber``, which is less drawn to the few cells that failed to train.
        huber_delta: the error, in the unit of the labels, from which on the Huber loss grows linearly.
        precision: of the training's matrix products, see :data:`PRECISIONS`; weights are float32 in each.
    """

    lr: float = 1e-5
    batch_size: int = 128
    epochs: int = 50
    loss: Literal["mse", "huber"] = "mse"
    huber_delta: float = 0.01
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in ("lr", "huber_delta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.loss not in ("mse", "huber"):
            raise ValueError(f"loss is {self.loss!r}; allowed are mse, huber")
        _check_precision(self.precision)

    def loss_function(self) -> nn.Module:
        return nn.MSELoss() if self.loss == "mse" else nn.HuberLoss(delta=self.huber_delta)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Args:
    model: with the weights of the best epoch.
    best_epoch: the epoch with the lowest validation RMSE, from 1.
    validation, test: :func:`regression_metrics` of that model; the test cells were used for nothing else.
    """

    model: AccuracyPredictor
    best_epoch: int
    validation: dict[str, float]
    test: dict[str, float]


def train_predictor(
    model_config: PredictorConfig,
    config: TrainingConfig,
    cells: Cells,
    values: Tensor,
    split: Split,
    *,
    seed: int,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
) -> Generator[dict[str, float], None, TrainingResult]:
    """Train on ``split.train``, choose the epoch on ``split.validation``, score it on ``split.test``.

    Args:
        cells, values: the labelled cells and their labels, float32 ``[N]``.
        seed: of the initialisation and of the order of the cells.
        checkpoint: a file written after each epoch. If it exists, its epochs are yielded again from the record and
            training goes on after them, to the same numbers as without the interruption. One of another version of
            this project is reported on stderr, and the training starts again.

    Yields:
        ``epoch`` (from 1), ``train_loss``, ``train_rmse`` (over the epoch's batches, while the weights change),
        ``validation_rmse`` and the other :func:`regression_metrics`, ``seconds`` (training and validation) and
        ``cells_per_second`` (training).

    Raises:
        ValueError: the split has no validation cells.
        DamagedCheckpointError: the checkpoint cannot be read; nothing was trained.
        FloatingPointError: the loss or a validation prediction is no longer finite.
    """
    if not len(split.validation):
        raise ValueError("a split with 0 validation cells; the best epoch is chosen on them")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AccuracyPredictor(model_config)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    run = TrainingState.start(model, optimizer, checkpoint)
    yield from run.history

    loss_function = config.loss_function()
    cells, values = cells.to(device), values.to(device)
    refined_train, train_values = model.encoder.refine(cells[split.train]), values[split.train]
    validation_cells, validation_values = cells[split.validation], values[split.validation]
    for epoch in range(len(run.history) + 1, config.epochs + 1):
        started = time.perf_counter()
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(refined_train))).to(device)
        loss_sum, square_sum = torch.zeros((), device=device), torch.zeros((), device=device)
        for batch in order.split(config.batch_size):
            true = train_values[batch]
            with _multiplied_in(config.precision, device) as forward:
                with forward:
                    predicted = model(refined_train[batch]).to(true.dtype)
                    loss = loss_function(predicted, true)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(batch)
            square_sum += (predicted.detach() - true).square().sum()
        train_loss = float(loss_sum) / len(refined_train)
        trained = time.perf_counter()
        predicted = predict(model, validation_cells)
        if not (np.isfinite(train_loss) and predicted.isfinite().all()):
            raise FloatingPointError(
                f"training diverged in epoch {epoch}: its loss is {train_loss}, "
                f"{(~predicted.isfinite()).sum()} of {len(predicted)} validation predictions are not finite"
            )
        validation = regression_metrics(predicted, validation_values)
        metrics = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_rmse": (float(square_sum) / len(refined_train)) ** 0.5,
            **{f"validation_{name}": value for name, value in validation.items()},
            "seconds": time.perf_counter() - started,
            "cells_per_second": len(refined_train) / (trained - started),
        }
        run.record(metrics)
        yield metrics

    model.load_state_dict(run.kept)
    best = min(run.history, key=lambda metrics: metrics["validation_rmse"])
    return TrainingResult(
        model=model,
        best_epoch=int(best["epoch"]),
        validation={name.removeprefix("validation_"): best[name] for name in best if name.startswith("validation_")},
        test=regression_metrics(predict(model, cells[split.test]), values[split.test]),
    )


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainingConfig:
    """How VS-GAE is trained; the defaults are the paper's (supplement B).

    Args:
        lr: Adam's learning rate.
        schedule: ``plateau``, times ``factor`` whenever the training loss has not dropped for ``patience`` epochs;
            ``cosine``, from ``lr`` to 0 over all steps; or ``constant``.
        warmup: steps over which the learning rate rises to what the schedule says.
        cooldown: epochs at the end over which it falls, in a line, from what the schedule says to 0; with fewer epochs,
            it is as in the last ones.
        max_norm: of the gradient; a longer one is shortened to it.
        batch_size: cells a step; the last batch of an epoch may be smaller.
        epochs: passes over the training cells.
        averaging: of the weights: after every step the average is this times itself plus the rest times the weights,
            and the average is the model that is evaluated and returned. 0: the weights of the last step are.
        train_share: of the training cells, in (0, 1], the share that is used: the first of a random order.
        precision: as in :class:`TrainingConfig`.
    """

    lr: float = 1e-4
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    patience: int = 10
    factor: float = 0.1
    warmup: int = 0
    cooldown: int = 0
    max_norm: float = float("inf")
    batch_size: int = 128
    epochs: int = 300
    averaging: float = 0.0
    train_share: float = 1.0
    precision: Precision = "float32"

    def chosen(self, num_cells: int, seed: int) -> np.ndarray:
        """Which of ``num_cells`` training cells are used, int64, ascending."""
        order = np.random.default_rng((seed, 0)).permutation(num_cells)
        return np.sort(order[: math.ceil(self.train_share * num_cells)])

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr}; it must be greater than 0")
        if not self.max_norm > 0:
            raise ValueError(f"max_norm is {self.max_norm}; it must be greater than 0")
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("patience", "warmup", "cooldown"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor is {self.factor}; it must be between 0 and 1")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging is {self.averaging}; it must be at least 0 and below 1")
        if not 0 < self.train_share <= 1:
            raise ValueError(f"train_share is {self.train_share}; it must be above 0 and at most 1")
        if self.schedule not in ("plateau", "cosine", "constant"):
            raise ValueError(f"schedule is {self.schedule!r}; allowed are plateau, cosine, constant")
        _check_precision(self.precision)


def train_autoencoder(
    model_config: VSGAEConfig,
    config: AutoencoderTrainingConfig,
    cells: Cells,
    *,
    seed: int,
    monitor: Callable[[VSGAE], dict[str, float]] | None = None,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
) -> Generator[dict[str, float], None, VSGAE]:
    """Train on ``cells``, without labels; the model after the last epoch is the result.

    Args:
        cells: the training cells; those held out are not among them.
        seed: of the initialisation, the order of the cells and the noise.
        monitor: what else to measure of the model after each epoch, such as
            :func:`~vsgae.generation.spot_check`; it must not draw from torch's own generator.
        checkpoint: as in :func:`train_predictor`.

    Yields:
        ``epoch`` (from 1), ``train_loss`` and its parts ``train_node``, ``train_edge`` and ``train_kl`` (over the
        epoch's batches, while the weights change), ``lr`` (at the end), ``seconds`` and ``cells_per_second`` (of the
        training alone), and what ``monitor`` measured.

    Raises:
        DamagedCheckpointError: the checkpoint cannot be read; nothing was trained.
        FloatingPointError: the loss is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VSGAE(model_config)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    cells = cells[config.chosen(len(cells), seed)].to(device)
    refined = model.encoder.refine(cells)
    rate = _LearningRate(config, steps=config.epochs * math.ceil(len(cells) / config.batch_size))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.averaging)) if config.averaging else None
    result = model if average is None else cast(VSGAE, average.module)
    run = TrainingState.start(model, optimizer, checkpoint)
    if average is not None and run.kept:
        average.load_state_dict(run.kept)
    yield from run.history

    for metrics in run.history:
        rate.end_epoch(metrics["train_loss"])
    step = len(run.history) * math.ceil(len(cells) / config.batch_size)
    for epoch in range(len(run.history) + 1, config.epochs + 1):
        started = time.perf_counter()
        noise = torch.Generator(device).manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(cells))).to(device)
        sums = {name: torch.zeros((), device=device) for name in ("loss", "node", "edge", "kl")}
        for batch in order.split(config.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = rate.at(step)
            with _multiplied_in(config.precision, device) as forward:
                with forward:
                    losses = model.loss(cells[batch], refined[batch], noise)
                optimizer.zero_grad()
                losses["loss"].backward()
            if config.max_norm < float("inf"):
                nn.utils.clip_grad_norm_(model.parameters(), config.max_norm)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            step += 1
            for name, total in sums.items():
                total += losses[name].detach() * len(batch)
        seconds = time.perf_counter() - started
        metrics = {"epoch": epoch}
        metrics |= {f"train_{name}": float(total) / len(cells) for name, total in sums.items()}
        metrics |= {"lr": rate.at(step - 1), "seconds": seconds, "cells_per_second": len(cells) / seconds}
        if not np.isfinite(metrics["train_loss"]):
            raise FloatingPointError(f"training diverged in epoch {epoch}: its loss is {metrics['train_loss']}")
        if monitor is not None:
            metrics |= monitor(result)
        rate.end_epoch(metrics["train_loss"])
        if average is not None:
            run.kept = average.state_dict()
        run.record(metrics)
        yield metrics
    return result


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; allowed are {', '.join(PRECISIONS)}")


@contextmanager
def _multiplied_in(precision: str, device: str | torch.device) -> Iterator[torch.autocast]:
    """A step's precision; what is yielded is the forward pass's own context."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")
    finally:
        torch.set_float32_matmul_precision(before)


class _LearningRate:
    """The learning rate of every step: a function of the configuration and of the losses of the epochs so far."""

    def __init__(self, config: AutoencoderTrainingConfig, steps: int) -> None:
        self.config, self.steps = config, steps
        self.factor, self.lowest, self.waited = 1.0, float("inf"), 0

    def at(self, step: int) -> float:
        """Of a step, from 0."""
        rate = self.config.lr * self.factor
        if self.config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        rising = (step + 1) / (self.config.warmup + 1)
        falling = (self.steps - step) / max(1, self.steps * self.config.cooldown / self.config.epochs)
        return rate * min(1, rising, falling)

    def end_epoch(self, loss: float) -> None:
        """Tell the training loss of an epoch."""
        if loss < self.lowest:
            self.lowest, self.waited = loss, 0
            return
        self.waited += 1
        if self.config.schedule == "plateau" and self.waited > self.config.patience:
            self.factor, self.waited = self.factor * self.config.factor, 0
