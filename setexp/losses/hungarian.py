"""Hungarian loss: rows matched one to one at minimum cost (Thesis, Eq. 2.19, 5.1)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.losses.base import Steps, comparable
from setexp.ops.assignment import assignment
from setexp.ops.costs import Cost, matched_cost, pair_cost
from setexp.ops.rows import take_rows
from setexp.sets import SetBatch


class HungarianLoss(nn.Module):
    """Mean cost over the exact minimum-cost matching; padded rows take part like any other.

    The matching is found on detached costs, for all inner steps and sets in one transfer.

    Args:
        cost: how two rows are compared, a mean over features.
        steps, mask_channel: see `setexp.losses.base`.
        set_size: N.
        max_size: larger sets are refused, because the matching takes cubic time.

    Shapes: prediction (T, B, N, D), target (B, N, D) to (B,).

    Raises:
        ValueError: larger sets than `max_size`.
    """

    def __init__(
        self, *, cost: Cost, steps: Steps, mask_channel: bool, set_size: int, max_size: int
    ) -> None:
        super().__init__()
        if set_size > max_size:
            raise ValueError(
                f"set_size={set_size}: a Hungarian loss takes too long on sets above "
                f"max_size={max_size}; use loss=chamfer, or raise max_size"
            )
        self.cost, self.steps, self.mask_channel = Cost(cost), Steps(steps), mask_channel

    def forward(self, prediction: SetBatch, target: SetBatch) -> Tensor:
        x, y = comparable(prediction, target, steps=self.steps, mask_channel=self.mask_channel)
        # rows are predictions: only targets are gathered, and no gradient is scattered
        costs = pair_cost(x.detach(), y.detach(), self.cost)
        y = take_rows(y.expand(*x.shape[:-2], *y.shape[-2:]), assignment(costs))
        return matched_cost(x, y, self.cost).mean(-1).mean(0)
