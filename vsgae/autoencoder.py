"""VS-GAE: the variational encoder and the sequential decoder, trained without labels (paper section 5)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vsgae.cells import Cells
from vsgae.decoder import Decoder, DecoderConfig
from vsgae.encoder import Encoder, EncoderConfig
from vsgae.files import replacing
from vsgae.modules import READOUTS
from vsgae.refinement import Refinement

SHIPPED_FILE = Path(__file__).with_name("pretrained.safetensors")  # docs/pretrained.md is its model card


@dataclass(frozen=True, kw_only=True)
class VSGAEConfig:
    """The defaults are the paper's text; where its published code departs from it, see also :class:`DecoderConfig`.

    Args:
        encoder: of the cell; the decoder's GraphProp has the same modules with weights of its own.
        decoder: the steps' settings.
        alpha: the weight of the Kullback-Leibler divergence, equation (17).
        kl_reduction: over a batch the ``mean``, as of the reconstruction, or the ``sum`` (published code).
        noise: the factor of the reparameterisation's noise in training: 1, or 0.01 (published code).
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    alpha: float = 0.005
    kl_reduction: Literal["mean", "sum"] = "mean"
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha", "noise"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.kl_reduction not in ("mean", "sum"):
            raise ValueError(f"kl_reduction is {self.kl_reduction!r}; allowed are mean, sum")


class VSGAE(nn.Module):
    """Cells to points of the latent space, and back."""

    def __init__(self, config: VSGAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        readout = READOUTS[config.encoder.readout]
        self.log_variance = readout(config.encoder.node_dim, config.encoder.graph_dim)
        self.decoder = Decoder(config.encoder, config.decoder)

    @classmethod
    def from_pretrained(cls, path: str | Path = SHIPPED_FILE) -> VSGAE:
        """The model that :meth:`save_pretrained` wrote, on the CPU and in evaluation mode; by default the one that
        comes with this project.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                values = json.loads((file.metadata() or {})["config"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            encoder, decoder = EncoderConfig(**values.pop("encoder")), DecoderConfig(**values.pop("decoder"))
            model = cls(VSGAEConfig(encoder=encoder, decoder=decoder, **values))
            model.load_state_dict(weights)
        except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no VS-GAE, or damaged: {' '.join(str(error).split())[:200]}") from error
        return model.eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Weights and configuration, as safetensors."""
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with replacing(Path(path)) as temporary:
            save_file(weights, temporary, metadata={"config": json.dumps(asdict(self.config))})

    def encode(self, cells: Cells | Refinement) -> tuple[Tensor, Tensor]:
        """The mean and the log-variance of the posterior, float32 ``[N, d_g]`` each; invariant under a relabelling of a
        cell's nodes."""
        refinement = self.encoder.refine(cells) if isinstance(cells, Cells) else cells
        h, nodes, offsets = self.encoder.propagate(refinement), refinement.nodes, refinement.offsets
        readouts = self.encoder.readout, self.log_variance
        mean, log_variance = (readout(h, nodes, offsets).to(h.dtype) for readout in readouts)  # not autocast's
        return mean, log_variance

    def decode(self, z: Tensor, generator: torch.Generator | None = None, *, greedy: bool = False) -> Cells:
        """A cell for every point ``[N, d_g]``, drawn or the most likely in every step; see :meth:`Decoder.decode`."""
        return self.decoder.decode(z, generator, greedy=greedy).cells

    def loss(
        self, cells: Cells, refinement: Refinement | None = None, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The loss of equation (17), a scalar, and its parts.

        Args:
            cells: in the order of nodes in which they are to be reconstructed.
            refinement: of the same cells, as ``encoder.refine`` gives it, where it is at hand.
            generator: of the noise; torch's own by default.

        Returns:
            ``loss``, which is ``node`` + ``edge`` + alpha ``kl``; each of these is the mean over the cells, but ``kl``
            with ``kl_reduction = sum``.
        """
        mean, log_variance = self.encode(cells if refinement is None else refinement)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        z = mean + self.config.noise * noise * torch.exp(0.5 * log_variance)
        node, edge = (part.mean() for part in self.decoder.losses(z, cells))
        divergence = kl_divergence(mean, log_variance).sum(1)
        kl = divergence.sum() if self.config.kl_reduction == "sum" else divergence.mean()
        return {"loss": node + edge + self.config.alpha * kl, "node": node, "edge": edge, "kl": kl}


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of N(mean, variance) from N(0, 1), by dimension, in nats (equation 16 has their sum): ``[N, d_g]`` each."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp())
