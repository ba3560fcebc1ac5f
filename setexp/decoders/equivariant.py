"""Equivariant DeepSets: elements that see the mean of their set (iDSPN, F.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from setexp.ops.layers import Linear, LinearInit
from setexp.sets import Encoding, SetBatch


class EquivariantLayer(nn.Module):
    """A linear map of each element, and one of the mean of all (Deep Sets, equivariant).

    Shapes: (B, N, in_features) to (B, N, out_features).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.own = Linear(in_features, out_features, init=LinearInit.pytorch)
        self.mean = Linear(in_features, out_features, init=LinearInit.pytorch)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x) + self.mean(x.mean(-2, keepdim=True))


class EquivariantDeepSets(nn.Module):
    """Equivariant layers with ReLU between them; every element takes part.

    Args:
        widths: input, hidden and output widths.

    Shapes: encoded elements (B, N, D) to x (1, B, N, widths[-1]), mask (1, B, N).
    """

    def __init__(self, *, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [EquivariantLayer(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        x, mask = encoding.required_elements()
        return SetBatch(self.layers(x).unsqueeze(0), mask.unsqueeze(0))
