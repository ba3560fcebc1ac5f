"""All ordered pairs of a set, for relation networks."""

from __future__ import annotations

from torch import Tensor


def add_pairs(first: Tensor, second: Tensor) -> Tensor:
    """first_i + second_j for all ordered pairs, i slow: twice (..., N, C) to (..., N * N, C).

    A linear map of the concatenation of two elements is the sum of two maps of one each, so a
    relation network's first layer costs 2N products instead of N^2.
    """
    return (first.unsqueeze(-2) + second.unsqueeze(-3)).flatten(-3, -2)


def pair_mask(mask: Tensor) -> Tensor:
    """1 where both elements of a pair are present: (..., N) to (..., N * N)."""
    return (mask.unsqueeze(-1) * mask.unsqueeze(-2)).flatten(-2)
