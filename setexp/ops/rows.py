"""Rows of sets by their index."""

from __future__ import annotations

from torch import Tensor


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (..., N, D) at index, int64 (..., M): (..., M, D)."""
    return x.gather(-2, index.unsqueeze(-1).expand(*index.shape, x.shape[-1]))
