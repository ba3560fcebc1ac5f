"""A number as a vector of classes, interpolated between its two neighbours (Thesis, Eq. 3.9)."""

from __future__ import annotations

import torch
from torch import Tensor


def two_hot(count: Tensor, most: int) -> Tensor:
    """1 at a whole number's place; between two of them, shares that say how near each is.

    Numbers above `most` count as `most`.

    Shapes: (...) of at least 0 to (..., most + 1).
    """
    place = torch.arange(most + 1, device=count.device, dtype=count.dtype)
    return torch.relu(1 - (count.clamp(max=most).unsqueeze(-1) - place).abs())
