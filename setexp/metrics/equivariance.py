"""Set- and multiset-equivariance of a map from sets to sets, measured (iDSPN, 2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from setexp.ops.assignment import assignment
from setexp.ops.rows import take_rows


class Deviations(NamedTuple):
    """Largest distances of two elements that would be equal, were the map equivariant.

    Args:
        set: of f(PX) from Pf(X) (Definition 1).
        multiset: of f(PX) from P'f(X) with the best P' for which P'X = PX (Definition 2).
    """

    set: float
    multiset: float


def deviations(f: Callable[[Tensor], Tensor], x: Tensor, order: Tensor) -> Deviations:
    """How far a map is from being set-equivariant and multiset-equivariant on some multisets.

    Multisets without equal elements cannot tell the two apart.

    Args:
        f: (B, N, D) to (B, N, M), the same at every call.
        x: multisets, (B, N, D). order: a permutation of each, int64 (B, N).
    """

    given = take_rows(x, order)
    expected, found = take_rows(f(x), order), f(given)
    # pairs of unequal elements are out of reach: farther than all others together
    distance = torch.cdist(found, expected, compute_mode="donot_use_mm_for_euclid_dist")
    apart = torch.cdist(given, given, compute_mode="donot_use_mm_for_euclid_dist") > 0
    costs = distance + apart * (1 + distance.sum((-2, -1), keepdim=True))
    matched = distance.gather(-1, assignment(costs).unsqueeze(-1))
    return Deviations((found - expected).norm(dim=-1).max().item(), matched.max().item())
