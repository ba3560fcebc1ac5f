"""Hungarian loss of class-specific numbering (iDSPN, F.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.ops.costs import Cost, matched_cost
from setexp.ops.numbering import matched_numbers, number_costs
from setexp.sets import SetBatch


class NumberingLoss(nn.Module):
    """Mean cost of numbers matched within each class; of the final set alone.

    Rows of different classes are never matched, which the authors' code reaches by adding 1000 to
    their cost.

    Args:
        cost: l2 (DSPN and iDSPN, code), squared (their text: MSE) or cross_entropy (all others).

    Shapes: predicted numbers (T, B, N, M), target (B, N, K + M), class and number, to (B,).

    Raises:
        ValueError: another cost.
    """

    def __init__(self, *, cost: Cost) -> None:
        super().__init__()
        self.cost = Cost(cost)
        number_costs(torch.zeros(1, 1), self.cost)  # refuses others before anything is trained

    def forward(self, prediction: SetBatch, target: SetBatch) -> Tensor:
        x = prediction.x[-1]
        return matched_cost(x, matched_numbers(x, target.x, self.cost), self.cost).mean(-1)
