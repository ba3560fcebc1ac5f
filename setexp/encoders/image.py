"""Image encoders: a ResNet to one vector."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from setexp.sets import Encoding


class ImageInit(Enum):
    """Initial weights: Xavier uniform and zero biases (DSPN), or as torchvision's ResNets."""

    xavier = "xavier"
    kaiming = "kaiming"


class ResNet(nn.Module):
    """A ResNet of basic blocks without pooling and classifier, then two convolutions (DSPN, A.4).

    The two convolutions have batch norm and nothing else between them, as in the authors' code.

    Args:
        blocks, widths: basic blocks and channels of each stage; every stage but the first halves
            the resolution. ResNet34 is [3, 4, 6, 3] and [64, 128, 256, 512].
        max_pool: halve the resolution after the stem once more, as ResNets do.
        latent: L.
        image_size: side of the square images; the last stage must see 4 x 4.
        init: see `ImageInit`.

    Shapes: images (B, 3, H, W) in [0, 1] to z (B, L).
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        max_pool: bool,
        latent: int,
        image_size: int,
        init: ImageInit,
    ) -> None:
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        halvings = 1 + max_pool + len(widths) - 1
        if image_size != 4 << halvings:
            raise ValueError(
                f"image_size={image_size}: with {len(widths)} stages and max_pool={max_pool} "
                f"the images must be {4 << halvings} pixels wide"
            )
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
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Conv2d(before, latent, 3, stride=2, padding=1),
            nn.BatchNorm2d(latent),
            nn.Conv2d(latent, latent, 2),
        )
        _initialise(self, init)

    def forward(self, images: Tensor) -> Encoding:
        images = images.contiguous(memory_format=torch.channels_last)
        return Encoding(z=self.head(self.trunk(images)).flatten(1))


def _shortcut(before: int, width: int, stride: int) -> nn.Module | None:
    if stride == 1 and before == width:
        return None
    return nn.Sequential(
        nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
    )


def _initialise(module: nn.Module, init: ImageInit) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if init is ImageInit.xavier:
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    # convolutions are a third faster in this layout, on CPUs and GPUs
    module.to(memory_format=torch.channels_last)
