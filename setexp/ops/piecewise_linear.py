"""Monotone piecewise linear functions from [0, 1] onto [0, 1] (Thesis, 3.4.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def knots(weight: Tensor) -> Tensor:
    """Heights at 0, 1/d, ..., 1 of functions with these slopes, up to sign and scale.

    The first height is 0, the last 1, and none is below the one before; equal weights make the
    identity.

    Shapes: (..., d) to (..., d + 1).
    """
    height = weight.abs().cumsum(-1)
    return F.pad(height / height[..., -1:], (1, 0))


def piecewise_linear(height: Tensor, x: Tensor) -> Tensor:
    """Each of F functions, given by its heights at the knots, at all of x (Thesis, Eq. 3.1).

    Shapes: height (F, d + 1) and x (...) in [0, 1] to (F, ...).
    """
    pieces = height.shape[-1] - 1
    position = x.flatten() * pieces
    left = position.detach().long().clamp(0, pieces - 1)
    at = left.expand(len(height), -1)
    # two look-ups, whatever the number of pieces: hat functions would cost a pass over x for each
    rise = height.diff(dim=-1).gather(-1, at)
    return (height.gather(-1, at) + (position - left) * rise).unflatten(-1, x.shape)
