"""Greedy non-maximum suppression of boxes, a batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from setexp.ops.boxes import pairwise_iou
from setexp.ops.rows import take_rows


def survivors(boxes: Tensor, score: Tensor, *, threshold: float) -> Tensor:
    """Which boxes remain where each, from the best on, removes those that overlap it more.

    Boxes whose score is -inf are none: they are not kept, and remove nothing.

    Args:
        boxes: (B, N, 4) as x1, y1, x2, y2. score: (B, N). threshold: of intersection over union.

    Returns:
        bool (B, N), in the order of the boxes.
    """
    order = score.sort(dim=-1, descending=True, stable=True).indices
    ranked = take_rows(boxes, order)
    overlap = pairwise_iou(ranked, ranked, plus_one=False) > threshold
    kept = score.gather(-1, order) > -torch.inf
    later = torch.arange(order.shape[-1], device=order.device)
    for i in range(order.shape[-1]):
        kept = kept & ~(overlap[..., i, :] & kept[..., i : i + 1] & (later > i))
    return torch.zeros_like(kept).scatter(-1, order, kept)
