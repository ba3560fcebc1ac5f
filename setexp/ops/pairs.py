"""All ordered pairs of a set: for relation networks, and distances."""

from __future__ import annotations

import torch
from torch import Tensor

# Numbers that make 256 MB.
_HELD = 1 << 26


def add_pairs(first: Tensor, second: Tensor) -> Tensor:
    """first_i + second_j for all ordered pairs, i slow: twice (..., N, C) to (..., N * N, C).

    A linear map of the concatenation of two elements is the sum of two maps of one each, so a
    relation network's first layer costs 2N products instead of N^2.
    """
    return (first.unsqueeze(-2) + second.unsqueeze(-3)).flatten(-3, -2)


def pair_mask(mask: Tensor) -> Tensor:
    """1 where both elements of a pair are present: (..., N) to (..., N * N)."""
    return (mask.unsqueeze(-1) * mask.unsqueeze(-2)).flatten(-2)


def l1_distances(first: Tensor, second: Tensor, held: int | None = None) -> Tensor:
    """Sums over features of |first_i - second_j|, for all pairs.

    Shapes: (B, ..., N, H) and (B, ..., M, H) to (B, ..., N, M).

    PyTorch's gradient of it holds all pairs with their features on a GPU, and none on a CPU.

    Args:
        held: numbers of those pairs, of a seed; so many sets are taken at a time. None for all on a
            CPU, and 256 MB on a GPU.
    """
    if held is None and first.device.type == "cpu":
        return torch.cdist(first, second, p=1.0)
    each = first.shape[1:].numel() * second.shape[-2]
    at_once = max(1, (held or _HELD) // max(1, each))
    parts = zip(first.split(at_once), second.split(at_once), strict=True)
    return torch.cat([torch.cdist(a, b, p=1.0) for a, b in parts])
