"""Linear layers whose weights are a length times a direction (Salimans and Kingma, 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.layers import Linear, LinearInit, project


class WeightNormLinear(Linear):
    """A linear layer with one learned length for its whole weight matrix, as BAN has them.

    It begins as PyTorch's linear layer.

    Shapes: (..., in_features) to (..., out_features).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, init=LinearInit.pytorch)
        self.length = nn.Parameter(self.weight.detach().norm())

    def normed(self) -> Tensor:
        """The weight that is applied, (out_features, in_features)."""
        return self.weight * (self.length / self.weight.norm())

    def forward(self, x: Tensor) -> Tensor:
        return project(x, self.normed()) + self.bias
