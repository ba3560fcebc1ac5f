"""What one forward pass of a task yields."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from setexp.sets import SetBatch


class Outcome(NamedTuple):
    """Per-set values; every reduction over sets is the training loop's.

    Args:
        loss: what is minimised, one value per set, (B,).
        prediction: x (T, B, N, D) and mask (T, B, N): all inner steps, or T = 1; None where no set
            is predicted: of classifiers, and of `Match`.
        stats: further values per set, (B,) or (B, K), by name.
    """

    loss: Tensor
    prediction: SetBatch | None
    stats: dict[str, Tensor]
