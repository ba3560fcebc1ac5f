"""Poolings: a set of features to one vector, sum, mean and max.

Each maps features (B, N, C) and mask (B, N) to a pooled vector (B, C) and the relaxed order it
used, which is None here. `masked=False` lets padded rows take part, as the authors' code often
does. FSPool has a file of its own. Those that make a multiple of their features a multiple of what
they pool say that they are `homogeneous`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SumPool(nn.Module):
    """Sum over elements (Deep Sets; relation networks)."""

    homogeneous = True

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.masked = masked

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return (x * mask.unsqueeze(-1) if self.masked else x).sum(-2), None


class MeanPool(nn.Module):
    """Mean over elements.

    Args:
        masked: leave padded rows out of the sum.
        by_set_size: divide by the true set size; otherwise by the number of rows, padded ones
            included. The released auto-encoders add up all rows and divide by the set size.
    """

    homogeneous = True

    def __init__(self, *, masked: bool, by_set_size: bool) -> None:
        super().__init__()
        self.masked, self.by_set_size = masked, by_set_size

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        total = (x * mask.unsqueeze(-1) if self.masked else x).sum(-2)
        size = mask.sum(-1, keepdim=True).clamp(min=1) if self.by_set_size else x.shape[-2]
        return total / size, None


class MaxPool(nn.Module):
    """Maximum over elements; an empty set gives zeros."""

    homogeneous = True

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.masked = masked

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        if not self.masked:
            return x.amax(-2), None
        present = mask.unsqueeze(-1) > 0
        largest = torch.where(present, x, -torch.inf).amax(-2)
        return torch.where(present.any(-2), largest, 0.0), None
