"""Upright boxes around connected pixels, as one operator on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


@torch.library.custom_op("setexp::filled_boxes", mutates_args=())
def filled_boxes(mask: Tensor) -> Tensor:
    """Fill the smallest box around each group of pixels that touch, corners included.

    Boxes of external contours are these: a group within a hole of another lies in its box.

    Args:
        mask: bool (..., H, W).

    Returns:
        bool (..., H, W).
    """
    from scipy import ndimage

    masks = mask.cpu().numpy().reshape(-1, *mask.shape[-2:])
    filled = np.zeros_like(masks)
    for own, boxes in zip(masks, filled, strict=True):
        if own.any():
            labels, _ = ndimage.label(own, structure=np.ones((3, 3)))
            for place in ndimage.find_objects(labels):
                boxes[place] = True
    return torch.from_numpy(filled).reshape(mask.shape).to(mask.device, non_blocking=True)


@filled_boxes.register_fake
def _(mask: Tensor) -> Tensor:
    return torch.empty_like(mask)
