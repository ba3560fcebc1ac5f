"""Pictures of elements to one picture (SSLR, Eq. 7)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Superposition(NamedTuple):
    """A picture and what it is made of.

    Args:
        picture: (B, C, H, W) in [0, 1].
        parts: weighted pictures of the elements, which add up to it, (B, N, C, H, W).
        alone: the same before they are weighted, each in [0, 1].
    """

    picture: Tensor
    parts: Tensor
    alone: Tensor


def superpose(raw: Tensor) -> Superposition:
    """Unbounded pictures (B, N, C, H, W) weighted by their softmax over elements, and added up."""
    alone = torch.sigmoid(raw)
    parts = raw.softmax(1) * alone
    # a sum of weights that rounds to more than one must not leave the range
    return Superposition(parts.sum(1).clamp(0, 1), parts, alone)
