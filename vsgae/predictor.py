"""The accuracy predictor: the encoder and a small MLP, trained together (paper section 7.1, supplement B.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from vsgae.cells import Cells
from vsgae.encoder import Encoder, EncoderConfig
from vsgae.refinement import Refinement


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Args:
    encoder: the graph encoder.
    hidden: widths of the MLP's hidden layers.
    dropout: in training, the share of the values that are set to 0 of the embedding and of each hidden layer.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    hidden: tuple[int, ...] = (28, 14, 7)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden is {list(self.hidden)}; each width must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and below 1")


class AccuracyPredictor(nn.Module):
    """Cells to accuracies: ``MLP(encoder(cells))``, d_g -> 28 -> 14 -> 7 -> 1 with ReLU between and none at the end."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        widths = (config.encoder.graph_dim, *config.hidden, 1)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    @property
    def output(self) -> nn.Linear:
        """The MLP's last layer."""
        return cast(nn.Linear, self.mlp[-1])

    def forward(self, cells: Cells | Refinement) -> Tensor:
        """float32 ``[N]``. Where the same cells are predicted often, pass a selection of ``encoder.refine(cells)``."""
        x = self.encoder(cells)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                x = F.dropout(x, self.config.dropout, self.training)
            x = layer(x)
        return x.squeeze(1)
