"""Classifier: a latent vector to scores of classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from setexp.ops.layers import MLP, LinearInit
from setexp.sets import Encoding


class Classifier(nn.Module):
    """An MLP on the latent vector.

    Args:
        latent: L. hidden: widths of the hidden layers. classes: C. init: see `LinearInit`.

    Shapes: z (B, L) to logits (B, C).
    """

    def __init__(
        self,
        *,
        latent: int,
        hidden: Sequence[int],
        classes: int,
        init: LinearInit = LinearInit.xavier,
    ) -> None:
        super().__init__()
        self.mlp = MLP([latent, *hidden, classes], init=init)

    def forward(self, encoding: Encoding) -> Tensor:
        return self.mlp(encoding.z)
