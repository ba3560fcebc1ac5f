"""Projection onto the unit simplex (iDSPN, Eq. 10 and 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(x: Tensor) -> Tensor:
    """Nearest point of the simplex {p >= 0, sum p = 1} for each row: (..., F) to (..., F).

    The nearest point is max(x - t, 0); t follows from the largest coordinates that stay positive
    (Held, Wolfe and Crowder, 1974). The gradient is that of the formula at a fixed support.
    """
    ordered = x.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    # (sum of the k largest - 1) / k grows while the k-th coordinate stays above it
    levels = (ordered.cumsum(-1) - 1) / count
    support = (ordered > levels).sum(-1, keepdim=True)
    return torch.relu(x - levels.gather(-1, support - 1))
