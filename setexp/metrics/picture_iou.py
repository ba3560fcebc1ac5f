"""Intersection over union of pictures and of the objects in them (SSLR, Table 2 and B.2)."""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from setexp.ops.filled_boxes import filled_boxes
from setexp.ops.superposition import Superposition
from setexp.sets import SetBatch

_SMOOTHING = 1e-6  # so that nothing and nothing are the same


class PictureIoU(nn.Module):
    """Of all channels and pixels that show something, predicted and true.

    Args:
        threshold: a predicted value of at least this shows something; a true one that is not zero.

    Shapes: a superposition and the picture (B, 3, H, W) to (B,).
    """

    def __init__(self, *, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, shown: Superposition, picture: Tensor, objects: SetBatch) -> Tensor:
        del objects
        mine, true = (shown.picture >= self.threshold).flatten(1), (picture != 0).flatten(1)
        both, either = (mine & true).sum(1), (mine | true).sum(1)
        return ((both + _SMOOTHING) / (either + _SMOOTHING)).to(picture.dtype)


class Direction(Enum):
    """Which side looks for its best partner: true boxes (released code), or elements (paper)."""

    true_to_predicted = "true_to_predicted"
    predicted_to_true = "predicted_to_true"


class ObjectIoU(nn.Module):
    """Mean over boxes of the best IoU with a box, or boxes, of the other side.

    An element's boxes are those around what it shows. True boxes are padded with empty ones to the
    number of elements; an empty one equals any other.

    Args:
        threshold: an element shows something where a channel is at least this.
        direction: see `Direction`.
        count_empty: empty slots of the side that looks count, as in the released code.

    Shapes: a superposition of N elements of (H, W), the picture, boxes xmin, ymin, xmax, ymax as
    shares of the sides with a mask (B, M), to (B,).
    """

    def __init__(self, *, threshold: float, direction: Direction, count_empty: bool) -> None:
        super().__init__()
        self.threshold, self.count_empty = threshold, count_empty
        self.direction = Direction(direction)

    def forward(self, shown: Superposition, picture: Tensor, objects: SetBatch) -> Tensor:
        predicted = filled_boxes((shown.parts >= self.threshold).any(2)).flatten(2)
        true = rectangles(objects, picture.shape[-2:]).flatten(2)
        missing = max(0, predicted.shape[1] - true.shape[1])
        true = F.pad(true, (0, 0, 0, missing))
        iou = pair_iou(true.to(picture.dtype), predicted.to(picture.dtype))
        if self.direction is Direction.true_to_predicted:
            best, own = iou.amax(2), true
        else:
            best, own = iou.amax(1), predicted
        counts = torch.ones_like(best) if self.count_empty else own.any(-1).to(best.dtype)
        return (best * counts).sum(1) / counts.sum(1).clamp(min=1)


def rectangles(boxes: SetBatch, size: torch.Size) -> Tensor:
    """Boxes drawn into pictures of (H, W), from one corner up to the other: bool (B, M, H, W).

    Corners are cut to whole pixels, of which the last row and column are left out (released code).
    A box beyond the upper or left edge is cut here, and lost there, where its corner wraps around.
    """
    height, width = size
    left, top, right, bottom = (boxes.x[..., k, None, None] for k in range(4))
    x = torch.arange(width, device=boxes.x.device)
    y = torch.arange(height, device=boxes.x.device).unsqueeze(-1)
    inside = (x >= (left * width).trunc()) & (x < (right * width).trunc())
    inside = inside & (y >= (top * height).trunc()) & (y < (bottom * height).trunc())
    return inside & (boxes.mask[..., None, None] > 0)


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of all pairs of masks of zeros and ones, (B, N, P) and (B, M, P) to (B, N, M)."""
    both = torch.bmm(a, b.mT)
    either = a.sum(-1).unsqueeze(2) + b.sum(-1).unsqueeze(1) - both
    return (both + _SMOOTHING) / (either + _SMOOTHING)
