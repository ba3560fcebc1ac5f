"""Overlap of axis-parallel boxes: intersection over union (Thesis, Eq. 3.3; A.4.3)."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_iou(first: Tensor, second: Tensor, *, plus_one: bool) -> Tensor:
    """IoU of every box of the first set with every box of the second.

    Side lengths keep their sign: a predicted box whose right side lies left of its left side has a
    negative area. Every ratio lies in 0..1: it is floored at 0, and is 0 where boxes do not touch,
    also with `plus_one`, and where the union is not positive.

    Args:
        first, second: boxes (..., N, 4) and (..., M, 4) as xmin, ymin, xmax, ymax.
        plus_one: add 1 to each side length of both boxes and of the intersection, a rule for pixel
            coordinates that Tables 6.2 and 6.3 applied to coordinates in 0..1.

    Returns:
        (..., N, M).
    """
    one = 1.0 if plus_one else 0.0
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    areas = [(box[..., 2:] - box[..., :2] + one).prod(-1) for box in (a, b)]
    intersection = (sides + one).prod(-1)
    union = areas[0] + areas[1] - intersection
    counts = _touching(a, b) & (union > 0)
    return torch.where(counts, intersection / union, 0.0).clamp(min=0)


def _touching(a: Tensor, b: Tensor) -> Tensor:
    """Whether no side separates the boxes; common edges count."""
    return ((a[..., :2] <= b[..., 2:]) & (b[..., :2] <= a[..., 2:])).all(-1)
