"""Images to a set of places: what Slot Attention attends to (Locatello et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from setexp.ops.convolutions import channels_last, xavier_convolutions
from setexp.ops.layers import MLP, Linear
from setexp.sets import Encoding, SetBatch


class PositionCNN(nn.Module):
    """Convolutions, learned positions added, a network on every place.

    Args:
        width: C, of all layers.
        kernel: odd side of the convolutions, which keep the resolution but for their strides.
        strides: of each convolution; there are as many as strides.
        norm_epsilon: of the layer norm.

    Pictures are read in [-1, 1], as the authors have them.

    Shapes: images (B, 3, H, W) in [0, 1] to an `Encoding` with z (B, 0) and elements
    (B, H' * W', C), row by row and all present, H' being H divided by the strides.
    """

    def __init__(
        self, *, width: int, kernel: int, strides: Sequence[int], norm_epsilon: float
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel}: an even one has no middle; make it odd")
        layers: list[nn.Module] = []
        for before, stride in zip([3, *[width] * len(strides)], strides, strict=False):
            convolution = nn.Conv2d(before, width, kernel, stride=stride, padding=kernel // 2)
            layers += [convolution, nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        xavier_convolutions(self)
        channels_last(self)
        self.position = Linear(4, width)
        self.norm = nn.LayerNorm(width, eps=norm_epsilon)
        self.mlp = MLP([width, width, width])

    def forward(self, images: Tensor) -> Encoding:
        images = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        features = self.convolutions(images).movedim(1, -1)
        places = (features + self.position(grid(features))).flatten(1, 2)
        x = self.mlp(self.norm(places))
        return Encoding(z=x.new_zeros(len(x), 0), elements=SetBatch(x, x.new_ones(x.shape[:-1])))


def grid(features: Tensor) -> Tensor:
    """How far down and across each place is, and how far from there: (B, H, W, C) to (H, W, 4).

    All four lie in [0, 1].
    """

    def shares(count: int) -> Tensor:
        return torch.linspace(0, 1, count, device=features.device, dtype=features.dtype)

    height, width = features.shape[1:3]
    down = shares(height).unsqueeze(1).expand(height, width)
    across = shares(width).expand(height, width)
    return torch.stack([down, across, 1 - down, 1 - across], dim=-1)
