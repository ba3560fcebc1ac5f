"""Costs between elements: for matched rows, and for all pairs of two sets.

Every cost is a mean over features (protocol of all of the authors' repositories), except the
Euclidean distance and the cross-entropy.
"""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor


class Cost(Enum):
    """How two elements are compared.

    squared: squared difference. huber: half the square up to 1, linear beyond. l2: Euclidean
    distance. cross_entropy: predicted logits against a one-hot target.
    """

    squared = "squared"
    huber = "huber"
    l2 = "l2"
    cross_entropy = "cross_entropy"


def matched_cost(prediction: Tensor, target: Tensor, cost: Cost) -> Tensor:
    """Cost of each row against the same row: twice (..., N, D) to (..., N)."""
    if cost is Cost.squared:
        return (prediction - target).square().mean(-1)
    if cost is Cost.huber:
        return F.smooth_l1_loss(prediction, target.expand_as(prediction), reduction="none").mean(-1)
    if cost is Cost.l2:
        return torch.linalg.vector_norm(prediction - target, dim=-1)
    return -(target * prediction.log_softmax(-1)).sum(-1)


def pair_cost(prediction: Tensor, target: Tensor, cost: Cost) -> Tensor:
    """Cost of every row against every row: (..., N, D) and (..., M, D) to (..., N, M).

    Nothing larger than the result is held: features are added one after the other.
    """
    if cost is Cost.cross_entropy:
        return -prediction.log_softmax(-1) @ target.mT
    if cost is Cost.l2:
        return pair_cost(prediction, target, Cost.squared).mul(prediction.shape[-1]).sqrt()
    total: Tensor | None = None
    for p, t in zip(prediction.unbind(-1), target.unbind(-1), strict=True):
        rows, columns = torch.broadcast_tensors(p.unsqueeze(-1), t.unsqueeze(-2))
        if cost is Cost.squared:
            part = (rows - columns).square()
        else:
            part = F.smooth_l1_loss(rows, columns, reduction="none")
        total = part if total is None else total + part
    assert total is not None
    return total / prediction.shape[-1]
