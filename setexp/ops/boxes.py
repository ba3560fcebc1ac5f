"""Overlap of axis-parallel boxes: intersection over union (Thesis, Eq. 3.3; A.4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pairwise_iou(first: Tensor, second: Tensor, *, plus_one: bool) -> Tensor:
    """`iou` of every box of the first set with every box of the second.

    Shapes: (..., N, 4) and (..., M, 4) to (..., N, M).
    """
    return iou(first.unsqueeze(-2), second.unsqueeze(-3), plus_one=plus_one)


def iou(first: Tensor, second: Tensor, *, plus_one: bool, eps: float = 0.0) -> Tensor:
    """IoU of boxes with those at the same place.

    Side lengths keep their sign: a predicted box whose right side lies left of its left side has a
    negative area. Every ratio lies in 0..1: it is floored at 0, and is 0 where boxes do not touch,
    also with `plus_one`, and where the union is not positive.

    Args:
        first, second: boxes (..., 4) as xmin, ymin, xmax, ymax, broadcast.
        plus_one: add 1 to each side length of both boxes and of the intersection, a rule for pixel
            coordinates that Tables 6.2 and 6.3 applied to coordinates in 0..1.
        eps: added to the union.

    Returns:
        (...).
    """
    one = 1.0 if plus_one else 0.0
    # coordinates one by one: an axis of two or four would be most of the time this takes
    a, b = first.unbind(-1), second.unbind(-1)
    wide, high = (torch.minimum(a[k + 2], b[k + 2]) - torch.maximum(a[k], b[k]) for k in (0, 1))
    areas = [(box[2] - box[0] + one) * (box[3] - box[1] + one) for box in (a, b)]
    intersection = (wide + one) * (high + one)
    union = areas[0] + areas[1] - intersection + eps
    counts = _touching(a, b) & (union > 0)
    return torch.where(counts, intersection / union, 0.0).clamp(min=0)


def _touching(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Whether no side separates the boxes, coordinate by coordinate; common edges count."""
    columns = (a[0] <= b[2]) & (b[0] <= a[2])
    return columns & (a[1] <= b[3]) & (b[1] <= a[3])
