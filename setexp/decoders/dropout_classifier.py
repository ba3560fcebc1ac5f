"""Classifier with dropout before its last layer (Thesis, A.3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from setexp.ops.layers import MLP, Linear, LinearInit
from setexp.sets import Encoding


class DropoutClassifier(nn.Module):
    """An MLP on the latent vector that drops some of its last hidden features in training.

    Args:
        latent: L. hidden: widths of the hidden layers, at least one. classes: C.
        dropout: share that is dropped. init: see `LinearInit`.

    Shapes: z (B, L) to logits (B, C).
    """

    def __init__(
        self,
        *,
        latent: int,
        hidden: Sequence[int],
        classes: int,
        dropout: float,
        init: LinearInit,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: a share in [0, 1)")
        self.features = nn.Sequential(*MLP([latent, *hidden], init=init), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.scores = Linear(hidden[-1], classes, init=init)

    def forward(self, encoding: Encoding) -> Tensor:
        return self.scores(self.dropout(self.features(encoding.z)))
