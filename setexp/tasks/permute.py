"""Put the elements of a set in order, told what the order is (Thesis, 4.4.1 and 4.4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.assignment import assignment as match
from setexp.ops.rows import take_rows
from setexp.sets import Batch, SetBatch
from setexp.tasks.outcome import Outcome


class Permute(nn.Module):
    """Assign elements to positions and compare what is softly put there with what belongs there.

    While it is evaluated, each set is also put in order by the permutation nearest to the
    assignment (Mena et al., 2018): `correct` is 1 where all elements are in the place that
    `aux["order"]` names, even if others look alike, and `mse` the error of that order.

    Args:
        encoder: `SetBatch` to assignments (B, N, N). loss: per set.
    """

    def __init__(self, *, encoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.loss = encoder, loss

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        given, target = batch.input, batch.target
        assignment = self.encoder(given, steps)
        prediction = SetBatch((assignment.mT @ given.x).unsqueeze(0), target.mask.unsqueeze(0))
        stats = {}
        if not self.training:
            order = nearest_order(assignment)
            right = (order == batch.aux["order"]) | (target.mask == 0)
            restored = take_rows(given.x, order)
            stats["correct"] = right.all(-1).to(given.x.dtype)
            stats["mse"] = (restored - target.x).square().mean((-2, -1))
        return Outcome(self.loss(prediction, target), prediction, stats)


def nearest_order(assignment: Tensor) -> Tensor:
    """The element at each position, by the matching of the largest total assignment.

    Shapes: assignments (..., N, N), rows elements and columns positions, to int64 (..., N).
    """
    return match(-assignment.detach().mT)
