"""Classifier of BAN: two layers with weight norm and dropout between them (Kim et al., 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.weight_norm import WeightNormLinear
from setexp.sets import Encoding


class WeightNormClassifier(nn.Module):
    """Linear, ReLU, dropout, linear on the latent vector.

    Args:
        latent: L. hidden: width. classes: C. dropout: share of the hidden layer that is dropped.

    Shapes: z (B, L) to logits (B, C).
    """

    def __init__(self, *, latent: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = (
            WeightNormLinear(latent, hidden),
            WeightNormLinear(hidden, classes),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, encoding: Encoding) -> Tensor:
        return self.second(self.dropout(self.first(encoding.z).relu()))
