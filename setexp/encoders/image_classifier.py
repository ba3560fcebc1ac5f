"""ResNet-18 as an image classifier (Thesis, A.2.3)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.convolutions import channels_last


class ResNet18(nn.Module):
    """torchvision's ResNet-18.

    Args:
        channels: of the images. classes: C.
        small: replace the first convolution by one of 3 x 3 without stride (MNIST and CIFAR-10);
            its max pooling stays.

    Shapes: images (B, channels, H, W) to logits (B, C).
    """

    def __init__(self, *, channels: int, classes: int, small: bool) -> None:
        from torchvision.models import resnet18

        super().__init__()
        self.net = resnet18(num_classes=classes)
        if small:
            self.net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.net.conv1.weight, mode="fan_out", nonlinearity="relu")
        channels_last(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)
