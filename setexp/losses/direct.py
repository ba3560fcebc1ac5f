"""Direct loss: rows compared in the order they come (Thesis, 5.4.3)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.losses.base import Steps, comparable
from setexp.ops.costs import Cost, matched_cost
from setexp.sets import SetBatch


class DirectLoss(nn.Module):
    """Mean cost of each predicted row against the same row of the target, padding included.

    Only for decoders that keep the input's order (FSUnpool).

    Args:
        cost: how two rows are compared, a mean over features.
        steps, mask_channel: see `setexp.losses.base`.

    Shapes: prediction (T, B, N, D), target (B, N, D) to (B,).
    """

    def __init__(self, *, cost: Cost, steps: Steps, mask_channel: bool) -> None:
        super().__init__()
        self.cost, self.steps, self.mask_channel = Cost(cost), Steps(steps), mask_channel

    def forward(self, prediction: SetBatch, target: SetBatch) -> Tensor:
        x, y = comparable(prediction, target, steps=self.steps, mask_channel=self.mask_channel)
        return matched_cost(x, y.expand_as(x), self.cost).mean(-1).mean(0)
