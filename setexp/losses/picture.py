"""Losses of one picture (SSLR, 4.1 and 4.2)."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn

from setexp.ops.superposition import Superposition
from setexp.sets import SetBatch


class PixelCost(Enum):
    """How two values in [0, 1] are compared: squared difference, or binary cross-entropy."""

    squared = "squared"
    cross_entropy = "cross_entropy"


class PixelReduction(Enum):
    """Over channels and pixels of one picture."""

    sum = "sum"
    mean = "mean"


class PictureLoss(nn.Module):
    """Cost of all pixels and channels.

    Args:
        cost: see `PixelCost`. reduction: see `PixelReduction`.

    Shapes: a picture and what it should be, (B, 3, H, W), to (B,).
    """

    def __init__(self, *, cost: PixelCost, reduction: PixelReduction) -> None:
        super().__init__()
        self.cost, self.reduction = PixelCost(cost), PixelReduction(reduction)

    def forward(
        self, shown: Superposition, picture: Tensor, objects: SetBatch | None = None
    ) -> Tensor:
        del objects  # which other measures of a superposition read
        if self.cost is PixelCost.squared:
            costs = (shown.picture - picture).square()
        else:
            costs = cross_entropy(shown.picture.to(picture.dtype), picture)
        costs = costs.flatten(1)
        return costs.sum(1) if self.reduction is PixelReduction.sum else costs.mean(1)


def cross_entropy(p: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of each value, finite everywhere; PyTorch's own refuses autocast."""
    least = torch.finfo(p.dtype).tiny
    yes, no = p.clamp(min=least).log(), (1 - p).clamp(min=least).log()
    return -(target * yes + (1 - target) * no)
