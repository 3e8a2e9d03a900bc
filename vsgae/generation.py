"""What a trained autoencoder can do: reconstruct cells, generate valid ones, use its latent space (paper section 7.2,
table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vsgae.autoencoder import VSGAE, kl_divergence
from vsgae.cells import Cells, is_nasbench101, is_valid
from vsgae.nasbench101 import module_hashes

CELLS_AT_ONCE = 8192  # encoded together: larger batches share more states, and need more memory
ACTIVE = 0.01  # the variance of a dimension's posterior mean over the cells from which on it counts as used


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1] with its standard error, over n cells or points.

    The draws of one cell or point depend on each other; the error is that of a mean of n independent shares.
    """

    value: float
    error: float
    n: int

    @staticmethod
    def of(shares: Tensor) -> Estimate:
        """float ``[n]``, one share a cell or point."""
        shares = shares.double()
        error = shares.std() / len(shares) ** 0.5 if len(shares) > 1 else torch.tensor(float("nan"))
        return Estimate(float(shares.mean()), float(error), len(shares))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, normal approximation, within [0, 1]. Where every share is the same, it is the rule of three's."""
        if self.error == 0 and self.value in (0, 1):
            return (0.0, min(1.0, 3 / self.n)) if self.value == 0 else (max(0.0, 1 - 3 / self.n), 1.0)
        return max(0.0, self.value - 1.96 * self.error), min(1.0, self.value + 1.96 * self.error)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2%} ({low:.2%} to {high:.2%}, n = {self.n:,})"


@torch.no_grad()
def encode(model: VSGAE, cells: Cells) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of any number of cells, float32 ``[N, d_g]`` each, on the model's device."""
    device = next(model.parameters()).device
    parts = [model.encode(cells[i : i + CELLS_AT_ONCE].to(device)) for i in range(0, len(cells), CELLS_AT_ONCE)]
    mean, log_variance = (torch.cat(part) for part in zip(*parts, strict=True))
    return mean, log_variance


@dataclass(frozen=True)
class Reconstruction:
    """Shares of decoded cells that are the encoded one: ``exact``, node by node in the stored order, or ``isomorphic``,
    by the module hash."""

    exact: Estimate
    isomorphic: Estimate


def reconstruct(
    model: VSGAE,
    cells: Cells,
    generator: torch.Generator,
    *,
    samples: int = 10,
    decodings: int = 10,
    from_mean: bool = False,
) -> Reconstruction:
    """How often a cell is decoded from its own place in the latent space.

    Args:
        cells: of NAS-Bench-101, not trained on.
        generator: of z and of the decoder's draws, on the model's device.
        samples: of z from the posterior of each cell.
        decodings: of each sample.
        from_mean: decode the posterior's mean once, greedily, in place of all that.
    """
    mean, log_variance = encode(model, cells)
    hashes = np.array(module_hashes(cells))
    if from_mean:
        samples = decodings = 1
    exact, isomorphic = torch.zeros(2, len(cells)).unbind()
    for _ in range(samples):
        z = mean
        if not from_mean:
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            z = mean + noise * torch.exp(0.5 * log_variance)
        for _ in range(decodings):
            decoded = model.decode(z, generator, greedy=from_mean).to("cpu")
            same = decoded.equal(cells)
            like = same.clone()
            other = torch.nonzero(~same & is_nasbench101(decoded)).squeeze(1)
            if len(other):
                found = np.array(module_hashes(decoded[other]))
                like[other] = torch.from_numpy(found == hashes[other.numpy()])
            exact += same
            isomorphic += like
    total = samples * decodings
    return Reconstruction(Estimate.of(exact / total), Estimate.of(isomorphic / total))


@dataclass(frozen=True)
class Generation:
    """Shares of cells decoded from points of a prior.

    Args:
        valid: the five checks of section 7.2 hold.
        in_space: it is a cell of NAS-Bench-101: valid, with at most nine edges, the output last.
        unique: of those in the space, the share of different ones, up to isomorphism; NaN where there are none.
        novel: of these, the share that was not trained on; NaN where there are none.
    """

    valid: Estimate
    in_space: Estimate
    unique: float
    novel: float


def generate(
    model: VSGAE,
    trained_on: Sequence[str],
    generator: torch.Generator,
    *,
    points: int = 1000,
    decodings: int = 10,
    mean: Tensor | float = 0.0,
    deviation: Tensor | float = 1.0,
) -> Generation:
    """Cells decoded from points of N(mean, deviation²), by default the prior N(0, I).

    Args:
        trained_on: the module hashes of the training cells.
        generator: of the points and of the decoder's draws, on the model's device.
        mean, deviation: of each dimension ``[d_g]``: those of the training latents for the published code's reading.
    """
    device = next(model.parameters()).device
    z = torch.randn(points, model.config.encoder.graph_dim, generator=generator, device=device) * deviation + mean
    cells = [model.decode(z, generator).to("cpu") for _ in range(decodings)]
    valid, in_space = (torch.stack([check(part).float() for part in cells]) for check in (is_valid, is_nasbench101))
    inside = Cells.concatenate(cells)
    inside = inside[torch.nonzero(in_space.flatten()).squeeze(1)]
    different = set(module_hashes(inside)) if len(inside) else set()
    return Generation(
        valid=Estimate.of(valid.mean(0)),
        in_space=Estimate.of(in_space.mean(0)),
        unique=len(different) / len(inside) if len(inside) else float("nan"),
        novel=len(different.difference(trained_on)) / len(different) if different else float("nan"),
    )


@torch.no_grad()
def spot_check(model: VSGAE, cells: Cells, *, seed: int, points: int = 1000) -> dict[str, float]:
    """A quick look at a model in training, by the same draws each time.

    Args:
        cells: that are not trained on, some hundreds.
        points: of the prior.

    Returns:
        ``held_out_loss`` (the mean over the cells, of the divergence too), ``held_out_reconstruction`` (exact, greedily
        from the mean) and ``prior_validity`` (one draw a point of N(0, I)).
    """
    device = next(model.parameters()).device
    cells, generator = cells.to(device), torch.Generator(device).manual_seed(seed)
    losses = model.loss(cells, generator=generator)
    mean, log_variance = encode(model, cells)
    divergence = kl_divergence(mean, log_variance).sum(1).mean()
    z = torch.randn(points, mean.shape[1], generator=generator, device=device)
    return {
        "held_out_loss": float(losses["node"] + losses["edge"] + model.config.alpha * divergence),
        "held_out_reconstruction": float(model.decode(mean, greedy=True).equal(cells).float().mean()),
        "prior_validity": float(is_valid(model.decode(z, generator)).float().mean()),
    }


@dataclass(frozen=True, eq=False)
class LatentUse:
    """How the latent dimensions are used, ``[d_g]`` each: the mean divergence from the prior in nats, and whether the
    posterior's mean varies over the cells (variance above 0.01; Burda et al. 2016)."""

    kl: Tensor
    active: Tensor


def latent_use(model: VSGAE, cells: Cells) -> LatentUse:
    """Over ``cells``."""
    mean, log_variance = encode(model, cells)
    return LatentUse(kl_divergence(mean, log_variance).mean(0), mean.var(0) > ACTIVE)


def interpolate(model: VSGAE, first: Cells, last: Cells, steps: int = 8) -> Cells:
    """The most likely cells on the straight line between the means of two cells, both included.

    Args:
        first, last: one cell each.
        steps: points on the line, at least 2.

    Raises:
        ValueError: not one cell each, or fewer than two steps.
    """
    if len(first) != 1 or len(last) != 1:
        raise ValueError(f"{len(first)} and {len(last)} cells; the line leads from one cell to one other")
    if steps < 2:
        raise ValueError(f"steps is {steps}; it must be at least 2")
    ends, _ = encode(model, Cells.concatenate([first, last]))
    share = torch.linspace(0, 1, steps, device=ends.device)[:, None]
    return model.decode(torch.lerp(ends[:1], ends[1:], share), greedy=True)
