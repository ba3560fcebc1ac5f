"""Accuracy of class-specific numbering (iDSPN, F.1)."""

from __future__ import annotations

from enum import Enum

from torch import Tensor, nn

from setexp.ops.costs import Cost
from setexp.ops.numbering import matched_numbers
from setexp.sets import SetBatch


class Per(Enum):
    """What is right or wrong: a set with all of its elements (reported), or each element."""

    set = "set"
    element = "element"


class NumberingAccuracy(nn.Module):
    """Share of numbers that are those they are matched to: one value per set, like a loss.

    Args:
        cost: of the matching, the loss's. per: see `Per`.

    Shapes: predicted numbers (T, B, N, M), target (B, N, K + M), class and number, to (B,).
    """

    def __init__(self, *, cost: Cost, per: Per) -> None:
        super().__init__()
        self.cost, self.per = Cost(cost), Per(per)

    def forward(self, prediction: SetBatch, target: SetBatch) -> Tensor:
        x = prediction.x[-1]
        right = x.argmax(-1) == matched_numbers(x, target.x, self.cost).argmax(-1)
        if self.per is Per.set:
            right = right.all(-1, keepdim=True)
        return right.to(x.dtype).mean(-1)
