"""An element to a picture: transposed convolutions, the same for all elements (SSLR, A.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from setexp.ops.convolutions import channels_last
from setexp.ops.layers import Linear, LinearInit

_SHRINKS = 16  # two strides of 2 and one of 4


class ElementPictures(nn.Module):
    """A linear map to a few places, two transposed convolutions of stride 2, one of stride 4.

    Batch norm, over all elements of a batch, and ReLU follow all but the last.

    Args:
        element_dim: D.
        widths: channels before each transposed convolution.
        image_size: side of the pictures, a multiple of 16.

    Shapes: elements (B, N, D) to unbounded pictures (B, N, 3, H, H).
    """

    def __init__(self, *, element_dim: int, widths: Sequence[int], image_size: int) -> None:
        super().__init__()
        if image_size % _SHRINKS or len(widths) != 3:
            raise ValueError(
                f"image_size={image_size}, widths={list(widths)}: pictures are multiples of "
                f"{_SHRINKS} pixels wide, and there are 3 widths"
            )
        side = image_size // _SHRINKS
        first, second, third = widths
        size = first * side**2
        self.start = nn.Sequential(
            Linear(element_dim, size, init=LinearInit.pytorch),
            nn.BatchNorm1d(size),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (first, side, side)),
        )
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(first, second, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(second, third, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(third, 3, 4, stride=4, bias=False),
        )
        channels_last(self.grow)

    def forward(self, x: Tensor) -> Tensor:
        places = self.start(x.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        pictures = self.grow(places).contiguous()
        return pictures.unflatten(0, x.shape[:2])
