"""Training the accuracy predictor (paper section 7.1) and the autoencoder (section 5.2): generators of one dict of
metrics an epoch, which write a checkpoint after each and go on from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vsgae.autoencoder import VSGAE, VSGAEConfig
from vsgae.cells import Cells
from vsgae.checkpoints import TrainingState
from vsgae.evaluation import predict, regression_metrics
from vsgae.predictor import AccuracyPredictor, PredictorConfig
from vsgae.splits import Split

M = TypeVar("M", bound=nn.Module)

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS = get_args(Precision)
"""Of the matrix products in training: float32; TensorFloat-32, where the GPU has it; or bfloat16 (autocast), on the CPU
too. Evaluation is in float32."""


Loss = Literal["mse", "huber", "ranking"]
LOSSES = get_args(Loss)

Schedule = Literal["constant", "cosine", "plateau"]
SCHEDULES = get_args(Schedule)

Select = Literal["best_validation", "last"]
SELECTS = get_args(Select)


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """How weights are optimised, by Adam, whatever the loss.

    Args:
        lr: the learning rate.
        schedule: ``constant``; ``cosine``, from ``lr`` to 0 over all steps; or ``plateau``, times ``factor`` whenever
            the training loss has not dropped for ``patience`` epochs.
        warmup: steps over which the learning rate rises to what the schedule says.
        cooldown: epochs at the end over which it falls, in a line, from what the schedule says to 0; with fewer epochs,
            it is as in the last ones.
        weight_decay: decoupled from the gradient (AdamW, Loshchilov and Hutter 2019); a share of a weight that a step
            takes off, in units of the learning rate.
        max_norm: of the gradient; a longer one is shortened to it.
        batch_size: cells a step; the last batch of an epoch may be smaller.
        epochs: after each there are metrics and a checkpoint.
        passes: over the training cells, an epoch; with few cells there may be many, since a step costs less than what
            follows an epoch.
        averaging: of the weights: after every step the average is this times itself plus the rest times the weights,
            and the average is the model that is evaluated and returned. 0: the weights of the last step are.
        precision: of the training's matrix products, see :data:`PRECISIONS`; weights are float32 in each.
    """

    lr: float
    epochs: int
    schedule: Schedule
    patience: int = 10
    factor: float = 0.1
    warmup: int = 0
    cooldown: int = 0
    weight_decay: float = 0.0
    max_norm: float = float("inf")
    batch_size: int = 128
    passes: int = 1
    averaging: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr}; it must be greater than 0")
        if not self.max_norm > 0:
            raise ValueError(f"max_norm is {self.max_norm}; it must be greater than 0")
        for name in ("batch_size", "epochs", "passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("patience", "warmup", "cooldown"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be at least 0")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor is {self.factor}; it must be between 0 and 1")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging is {self.averaging}; it must be at least 0 and below 1")
        for name, allowed in {"schedule": SCHEDULES, "precision": PRECISIONS}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(OptimizationConfig):
    """How a predictor is trained; the defaults are the paper's, and the rest is in :class:`OptimizationConfig`.

    Args:
        epochs: 50 in figures 6 and 7 and table 1, 100 in section 7.3.
        loss: ``mse``; ``huber``, which is less drawn to the few cells that failed to train; or ``ranking``, the Huber
            loss plus :func:`ranking_loss`.
        select: which epoch's model is the result: ``best_validation``, that with the lowest error on the validation
            cells, or the ``last``, which needs none.
        standardize: train on labels with mean 0 and deviation 1 over the training cells, which is undone in the last
            layer of the result; the loss and ``huber_delta`` are then in that unit. No step is spent on learning where
            accuracies lie, and how little they differ.
        huber_delta: the error, in the unit of the labels, from which on the Huber loss grows linearly.
    """

    lr: float = 1e-5
    epochs: int = 50
    schedule: Schedule = "constant"
    loss: Loss = "mse"
    huber_delta: float = 0.01
    select: Select = "best_validation"
    standardize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.huber_delta < float("inf"):
            raise ValueError(f"huber_delta is {self.huber_delta}; it must be greater than 0")
        for name, allowed in {"loss": LOSSES, "select": SELECTS}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")

    def loss_function(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Of predicted and true accuracies, float ``[B]`` each."""
        if self.loss == "mse":
            return F.mse_loss
        huber = partial(F.huber_loss, delta=self.huber_delta)
        if self.loss == "huber":
            return huber
        return lambda predicted, true: huber(predicted, true) + ranking_loss(predicted, true, self.huber_delta)


def ranking_loss(predicted: Tensor, true: Tensor, scale: float) -> Tensor:
    """``scale^2 mean_ij log(1 + exp(-sign(t_i - t_j) (p_i - p_j) / scale))`` over the pairs of a batch with different
    labels: each pair should be predicted in its order, by more than ``scale`` (RankNet, Burges et al. 2005).

    The factor gives it the unit of a squared error. 0 where no two labels differ.

    Args:
        predicted, true: float ``[B]``.
        scale: the difference of two predictions, in the unit of the labels, that counts as a clear order.
    """
    order = torch.sign(true[:, None] - true)
    losses = F.softplus(-order * (predicted[:, None] - predicted) / scale) * order.abs()
    return scale**2 * losses.sum() / order.abs().sum().clamp(min=1)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Args:
    model: with the weights of the selected epoch.
    best_epoch: that epoch, from 1; see ``TrainingConfig.select``.
    validation, test: :func:`regression_metrics` of that model, the former empty without validation cells; the test
        cells were used for nothing else.
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
    encoder: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
) -> Generator[dict[str, float], None, TrainingResult]:
    """Train on ``split.train``, select an epoch, by default on ``split.validation``, score it on ``split.test``.

    Args:
        cells, values: the labelled cells and their labels, float32 ``[N]``.
        seed: of the initialisation and of the order of the cells.
        encoder: the weights that the encoder has at first, instead of drawn ones.
        checkpoint: a file written after each epoch. If it exists, its epochs are yielded again from the record and
            training goes on after them, to the same numbers as without the interruption. One of another version of
            this project is reported on stderr, and the training starts again.

    Yields:
        ``epoch`` (from 1), ``train_loss``, ``train_rmse`` (over the epoch's batches, while the weights change),
        ``validation_rmse`` and the other :func:`regression_metrics` where there are validation cells, ``seconds``
        (training and validation) and ``cells_per_second`` (training).

    Raises:
        ValueError: the epoch is to be selected on validation cells, and the split has none.
        DamagedCheckpointError: the checkpoint cannot be read; nothing was trained.
        FloatingPointError: the loss or a validation prediction is no longer finite.
    """
    if config.select == "best_validation" and not len(split.validation):
        raise ValueError("select is 'best_validation', and the split has 0 validation cells; it must be 'last'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AccuracyPredictor(model_config)
    if encoder is not None:
        model.encoder.load_state_dict(encoder)
    model.to(device)
    descent = _Descent(model, config, len(split.train))
    run = descent.start(checkpoint)
    yield from run.history

    loss_function = config.loss_function()
    cells, values = cells.to(device), values.to(device)
    refined_train, train_values = model.encoder.refine(cells[split.train]), values[split.train]
    mean, deviation = 0.0, 1.0
    if config.standardize:
        mean, deviation = float(train_values.mean()), float(train_values.std(correction=0)) or 1.0
        train_values = (train_values - mean) / deviation
    validation_cells, validation_values = cells[split.validation], values[split.validation]
    for epoch in range(len(run.history) + 1, config.epochs + 1):
        started = time.perf_counter()
        loss_sum, square_sum = torch.zeros((), device=device), torch.zeros((), device=device)
        with _drawing_from((seed, epoch), device):
            for batch in descent.batches((seed, epoch), device):
                true = train_values[batch]
                with _multiplied_in(config.precision, device) as forward:
                    with forward:
                        predicted = model(refined_train[batch]).to(true.dtype)
                        loss = loss_function(predicted, true)
                    descent.step(loss)
                loss_sum += loss.detach() * len(batch)
                square_sum += (predicted.detach() - true).square().sum()
        num_trained = config.passes * len(refined_train)
        train_loss = float(loss_sum) / num_trained
        trained = time.perf_counter()
        predicted = mean + deviation * predict(descent.result, validation_cells)
        if not (np.isfinite(train_loss) and predicted.isfinite().all()):
            raise FloatingPointError(
                f"training diverged in epoch {epoch}: its loss is {train_loss}, "
                f"{(~predicted.isfinite()).sum()} of {len(predicted)} validation predictions are not finite"
            )
        validation = regression_metrics(predicted, validation_values) if len(predicted) else {}
        metrics = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_rmse": deviation * (float(square_sum) / num_trained) ** 0.5,
            **{f"validation_{name}": value for name, value in validation.items()},
            "seconds": time.perf_counter() - started,
            "cells_per_second": num_trained / (trained - started),
        }
        descent.end_epoch(train_loss)
        run.record(metrics)
        yield metrics

    if config.select == "last":
        model, best = descent.result, run.history[-1]
    else:
        model.load_state_dict(run.best)
        best = min(run.history, key=lambda metrics: metrics["validation_rmse"])
    with torch.no_grad():
        model.output.weight.mul_(deviation)
        model.output.bias.mul_(deviation).add_(mean)
    return TrainingResult(
        model=model,
        best_epoch=int(best["epoch"]),
        validation={name.removeprefix("validation_"): best[name] for name in best if name.startswith("validation_")},
        test=regression_metrics(predict(model, cells[split.test]), values[split.test]),
    )


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainingConfig(OptimizationConfig):
    """How VS-GAE is trained; the defaults are the paper's (supplement B), and the rest is in
    :class:`OptimizationConfig`.

    Args:
        train_share: of the training cells, in (0, 1], the share that is used: the first of a random order.
    """

    lr: float = 1e-4
    epochs: int = 300
    schedule: Schedule = "plateau"
    train_share: float = 1.0

    def chosen(self, num_cells: int, seed: int) -> np.ndarray:
        """Which of ``num_cells`` training cells are used, int64, ascending."""
        order = np.random.default_rng((seed, 0)).permutation(num_cells)
        return np.sort(order[: math.ceil(self.train_share * num_cells)])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.train_share <= 1:
            raise ValueError(f"train_share is {self.train_share}; it must be above 0 and at most 1")


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
    cells = cells[config.chosen(len(cells), seed)].to(device)
    refined = model.encoder.refine(cells)
    descent = _Descent(model, config, len(cells))
    run = descent.start(checkpoint)
    yield from run.history

    for epoch in range(len(run.history) + 1, config.epochs + 1):
        started = time.perf_counter()
        noise = torch.Generator(device).manual_seed(_torch_seed(seed, epoch))
        sums = {name: torch.zeros((), device=device) for name in ("loss", "node", "edge", "kl")}
        for batch in descent.batches((seed, epoch), device):
            with _multiplied_in(config.precision, device) as forward:
                with forward:
                    losses = model.loss(cells[batch], refined[batch], noise)
                descent.step(losses["loss"])
            for name, total in sums.items():
                total += losses[name].detach() * len(batch)
        seconds = time.perf_counter() - started
        metrics: dict[str, float] = {"epoch": epoch}
        num_trained = config.passes * len(cells)
        metrics |= {f"train_{name}": float(total) / num_trained for name, total in sums.items()}
        metrics |= {"lr": descent.lr, "seconds": seconds, "cells_per_second": num_trained / seconds}
        if not np.isfinite(metrics["train_loss"]):
            raise FloatingPointError(f"training diverged in epoch {epoch}: its loss is {metrics['train_loss']}")
        if monitor is not None:
            metrics |= monitor(descent.result)
        descent.end_epoch(metrics["train_loss"])
        run.record(metrics)
        yield metrics
    return descent.result


def _torch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


@contextmanager
def _drawing_from(seed: tuple[int, int], device: str | torch.device) -> Iterator[None]:
    """Dropout draws from torch's own generator: from a seed of the epoch's, and the caller's is left alone."""
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(_torch_seed(*seed))
        yield


@contextmanager
def _multiplied_in(precision: str, device: str | torch.device) -> Iterator[torch.autocast]:
    """A step's precision; what is yielded is the forward pass's own context."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")
    finally:
        torch.set_float32_matmul_precision(before)


class _Descent(Generic[M]):
    """Steps along the gradient: Adam, the learning rate of every step, and the average of the weights.

    Args:
        num_cells: that are trained on.
    """

    def __init__(self, model: M, config: OptimizationConfig, num_cells: int) -> None:
        self.model, self.config, self.num_cells = model, config, num_cells
        self.steps_an_epoch = config.passes * math.ceil(num_cells / config.batch_size)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.average = None
        if config.averaging:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.averaging))
        self.rate, self.steps = _LearningRate(config, config.epochs * self.steps_an_epoch), 0

    @property
    def result(self) -> M:
        """The model that is evaluated: with the weights of the last step, or the average."""
        return self.model if self.average is None else cast(M, self.average.module)

    @property
    def lr(self) -> float:
        """Of the last step."""
        return self.rate.at(self.steps - 1)

    def start(self, checkpoint: Path | None) -> TrainingState:
        """At the first step, or after the last epoch of the checkpoint, if there is one."""
        run = TrainingState.start(self.model, self.optimizer, self.average, checkpoint)
        for metrics in run.history:
            self.rate.end_epoch(metrics["train_loss"])
        self.steps = len(run.history) * self.steps_an_epoch
        return run

    def batches(self, seed: tuple[int, int], device: str | torch.device) -> Iterator[Tensor]:
        """Of an epoch, which has a seed of its own: the indices of each batch's cells, int64."""
        rng = np.random.default_rng(seed)
        for _ in range(self.config.passes):
            yield from torch.from_numpy(rng.permutation(self.num_cells)).to(device).split(self.config.batch_size)

    def step(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.max_norm < float("inf"):
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.steps += 1

    def end_epoch(self, loss: float) -> None:
        """Tell the training loss of an epoch."""
        self.rate.end_epoch(loss)


class _LearningRate:
    """The learning rate of every step: a function of the configuration and of the losses of the epochs so far."""

    def __init__(self, config: OptimizationConfig, steps: int) -> None:
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
