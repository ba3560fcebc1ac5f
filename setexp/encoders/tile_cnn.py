"""Features of image tiles: one convolution and pooling (Mena et al., 2018; Thesis, A.2.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from setexp.ops.convolutions import channels_last, xavier_convolutions


class TileCNN(nn.Module):
    """The same 5 x 5 convolution, ReLU and 2 x 2 max pooling on every tile.

    Args:
        channels: of the image. side: height and width of a tile. width: channels of the features.

    Shapes: (B, N, channels * side * side) to (B, N, width * (side // 2) ** 2).

    Raises:
        ValueError: tiles of one pixel.
    """

    def __init__(self, *, channels: int, side: int, width: int) -> None:
        super().__init__()
        if side < 2:
            raise ValueError(
                f"side={side}: a tile of 1 pixel cannot be pooled; use fewer dataset.tiles"
            )
        self.size = (channels, side, side)
        self.convolution = nn.Conv2d(channels, width, 5, padding=2)
        xavier_convolutions(self)
        channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        tiles = x.reshape(-1, *self.size)
        pooled = F.max_pool2d(self.convolution(tiles), 2)  # before ReLU, which commutes with it
        return pooled.relu().reshape(*x.shape[:-1], -1)
