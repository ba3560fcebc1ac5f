"""Image encoders: a ResNet's features to one vector."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from setexp.ops.convolutions import channels_last, xavier_convolutions
from setexp.sets import Encoding


class ImageInit(Enum):
    """Initial weights.

    xavier: Xavier uniform and zero biases (DSPN). default: torchvision's for the ResNet, PyTorch's
    for the head (iDSPN).
    """

    xavier = "xavier"
    default = "default"


class ResNet(nn.Sequential):
    """A ResNet of basic blocks without pooling and classifier.

    Args:
        blocks, widths: basic blocks and channels of each stage; every stage but the first halves
            the resolution. ResNet34 is [3, 4, 6, 3] and [64, 128, 256, 512].
        max_pool: halve the resolution after the stem once more, as ResNets do.

    Shapes: images (B, 3, H, W) to features (B, C, H', W'), H' being H divided by `shrinks`.
    """

    def __init__(self, *, blocks: Sequence[int], widths: Sequence[int], max_pool: bool) -> None:
        from torchvision.models.resnet import BasicBlock

        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        if max_pool:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        before = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(before, width, stride, _shortcut(before, width, stride)))
                before = width
        super().__init__(*layers)
        self.shrinks = 2 ** (max_pool + len(widths))


class TwoConvolutions(nn.Sequential):
    """Features of 4 x 4 places to a vector: two convolutions (Thesis, A.4).

    They have batch norm and nothing else between them, as in the authors' code.

    Args:
        channels: C. latent: L.

    Shapes: (B, C, 4, 4) to (B, L, 1, 1).
    """

    side = 4

    def __init__(self, *, channels: int, latent: int) -> None:
        super().__init__(
            nn.Conv2d(channels, latent, 3, stride=2, padding=1),
            nn.BatchNorm2d(latent),
            nn.Conv2d(latent, latent, 2),
        )


class OneConvolution(nn.Sequential):
    """Features to a quarter of their places, with the channels that make L of it (iDSPN, F.3).

    Args:
        channels: C.
        side: H, places in height and width.
        latent: L, a multiple of the places that are left.

    Shapes: (B, C, H, H) to (B, 4 L / (H * H), H / 2, H / 2).
    """

    def __init__(self, *, channels: int, side: int, latent: int) -> None:
        places = (side // 2) ** 2
        if side % 2 or latent % places:
            raise ValueError(
                f"side={side}, latent={latent}: the side must be even, and the latent size a "
                f"multiple of a quarter of side * side"
            )
        super().__init__(
            nn.BatchNorm2d(channels), nn.Conv2d(channels, latent // places, 2, stride=2)
        )
        self.side = side


class ImageEncoder(nn.Module):
    """A ResNet, a head, and all that the head yields as one vector.

    Args:
        trunk: `ResNet`.
        head: `TwoConvolutions` (DSPN) or `OneConvolution` (iDSPN).
        image_size: side of the square images.
        init: see `ImageInit`.

    Shapes: images (B, 3, H, W) in [0, 1] to z (B, L).
    """

    def __init__(
        self,
        *,
        trunk: ResNet,
        head: TwoConvolutions | OneConvolution,
        image_size: int,
        init: ImageInit,
    ) -> None:
        super().__init__()
        if image_size != head.side * trunk.shrinks:
            raise ValueError(
                f"image_size={image_size}: this trunk shrinks images by {trunk.shrinks} and this "
                f"head reads {head.side} x {head.side} places, so the images must be "
                f"{head.side * trunk.shrinks} pixels wide"
            )
        self.trunk, self.head = trunk, head
        if ImageInit(init) is ImageInit.xavier:
            xavier_convolutions(self)
        else:
            _as_torchvision(trunk)
        channels_last(self)

    def forward(self, images: Tensor) -> Encoding:
        images = images.contiguous(memory_format=torch.channels_last)
        return Encoding(z=self.head(self.trunk(images)).flatten(1))


def _shortcut(before: int, width: int, stride: int) -> nn.Module | None:
    if stride == 1 and before == width:
        return None
    return nn.Sequential(
        nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
    )


def _as_torchvision(trunk: ResNet) -> None:
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
