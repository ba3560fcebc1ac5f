"""Images to a vector and a first guess of a set, from one stack of convolutions (SSLR, A.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from setexp.ops.convolutions import channels_last
from setexp.ops.layers import Linear, LinearInit
from setexp.sets import Encoding, SetBatch

_KERNEL, _PADDING = 4, 1


class GroupedCNN(nn.Module):
    """Strided convolutions; all they yield to a vector, and groups of channels to elements.

    SSLR's H_embed and H_set: two linear maps of the same features, of which the second is shared
    by all groups. Batch norm follows every convolution but the first.

    Args:
        widths, strides: of the convolutions.
        image_size: side of the square images.
        set_size: groups of channels N. element_dim: D.
        latent: L; 0 for no vector.

    Shapes: images (B, 3, H, H) to z (B, L) and elements x (B, N, D), all present.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        strides: Sequence[int],
        image_size: int,
        set_size: int,
        element_dim: int,
        latent: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, side = 3, image_size
        for width, stride in zip(widths, strides, strict=True):
            layers.append(nn.Conv2d(before, width, _KERNEL, stride, _PADDING, bias=False))
            layers += [nn.BatchNorm2d(width)] if before != 3 else []
            layers.append(nn.ReLU(inplace=True))
            before, side = width, (side + 2 * _PADDING - _KERNEL) // stride + 1
        if side < 1 or before % set_size:
            raise ValueError(
                f"image_size={image_size}, set_size={set_size}: {len(widths)} convolutions leave "
                f"{max(side, 0)} x {max(side, 0)} places, and the set size must divide the last "
                f"width, {before}"
            )
        self.trunk = nn.Sequential(*layers)
        channels_last(self.trunk)
        self.set_size = set_size
        features = before * side**2
        init = LinearInit.pytorch
        self.guess = Linear(features // set_size, element_dim, init=init)
        self.embed = Linear(features, latent, init=init) if latent else None

    def forward(self, images: Tensor) -> Encoding:
        images = images.contiguous(memory_format=torch.channels_last)
        features = self.trunk(images).flatten(1)
        z = features[:, :0] if self.embed is None else self.embed(features)
        x = self.guess(features.unflatten(1, (self.set_size, -1)))
        return Encoding(z=z, elements=SetBatch(x, x.new_ones(x.shape[:-1])))
