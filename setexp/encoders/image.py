"""Image encoders: the ResNets of the set prediction experiments, and a small CNN."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from setexp.sets import Encoding


class ImageInit(Enum):
    """Initial weights: Xavier uniform everywhere with zero biases (DSPN), or PyTorch's (iDSPN)."""

    xavier = "xavier"
    default = "default"


class ResNet(nn.Module):
    """A ResNet without pooling and classifier, then two convolutions to a vector (DSPN, A.4).

    Args:
        depth: 18 or 34.
        latent: L.
        image_size: side of the square images; its 1/32 must be 4 (128 pixels).
        init: see `ImageInit`.

    The two convolutions have batch norm and nothing else between them, as in the authors' code.

    Shapes: images (B, 3, H, W) in [0, 1] to z (B, L).
    """

    def __init__(self, *, depth: int, latent: int, image_size: int, init: ImageInit) -> None:
        from torchvision.models import resnet18, resnet34

        super().__init__()
        if depth not in (18, 34):
            raise ValueError(f"depth={depth}: 18 or 34")
        if image_size != 128:
            raise ValueError(f"image_size={image_size}: this ResNet's last convolution fits 128")
        trunk = (resnet18 if depth == 18 else resnet34)(weights=None)
        self.trunk = nn.Sequential(*list(trunk.children())[:-2])
        self.head = nn.Sequential(
            nn.Conv2d(512, latent, 3, stride=2, padding=1),
            nn.BatchNorm2d(latent),
            nn.Conv2d(latent, latent, 2),
        )
        _initialise(self, init)

    def forward(self, images: Tensor) -> Encoding:
        images = images.contiguous(memory_format=torch.channels_last)
        return Encoding(z=self.head(self.trunk(images)).flatten(1))


class SmallCNN(nn.Module):
    """Strided 3x3 convolutions with batch norm and ReLU, then a linear map: the laptop's ResNet.

    Args:
        widths: channels after each halving of the resolution.
        latent: L.
        image_size: side of the square images, divisible by 2 ** len(widths).
        init: see `ImageInit`.

    Shapes: images (B, 3, H, W) in [0, 1] to z (B, L).
    """

    def __init__(
        self, *, widths: Sequence[int], latent: int, image_size: int, init: ImageInit
    ) -> None:
        super().__init__()
        side = image_size >> len(widths)
        if side << len(widths) != image_size:
            raise ValueError(f"image_size={image_size}: not divisible by {1 << len(widths)}")
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * side * side, latent)
        _initialise(self, init)

    def forward(self, images: Tensor) -> Encoding:
        images = images.contiguous(memory_format=torch.channels_last)
        return Encoding(z=self.head(self.trunk(images).flatten(1)))


def _initialise(module: nn.Module, init: ImageInit) -> None:
    if init is ImageInit.xavier:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    # convolutions are a third faster in this layout, on CPUs and GPUs
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
