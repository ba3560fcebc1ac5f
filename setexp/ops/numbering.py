"""Matching of predicted with true numbers within each class (iDSPN, F.1)."""

from __future__ import annotations

from torch import Tensor

from setexp.ops.assignment import assignment_within
from setexp.ops.costs import Cost
from setexp.ops.rows import take_rows


def number_costs(prediction: Tensor, cost: Cost) -> Tensor:
    """Cost of each predicted row for each number it could stand for: (..., N, M) to the same.

    Entry m is the cost against the one-hot vector of m, as `pair_cost` has it.

    Raises:
        ValueError: a cost that is neither l2, squared nor cross_entropy.
    """
    if cost is Cost.cross_entropy:
        return -prediction.log_softmax(-1)
    squares = prediction.square().sum(-1, keepdim=True) + 1 - 2 * prediction
    if cost is Cost.squared:
        return squares / prediction.shape[-1]
    if cost is Cost.l2:
        return squares.clamp(min=0).sqrt()
    raise ValueError(f"cost={cost.name}: numbers have l2, squared or cross_entropy")


def matched_numbers(prediction: Tensor, target: Tensor, cost: Cost) -> Tensor:
    """The true number of each predicted row, at minimum cost within each class.

    Shapes: prediction (B, N, M), target (B, N, K + M), one-hot class and number, to one-hot
    (B, N, M). A predicted row has the class of the target's row of the same index.
    """
    numbers = target[..., -prediction.shape[-1] :]
    classes = target[..., : -prediction.shape[-1]].argmax(-1)
    costs = number_costs(prediction.detach(), cost)
    columns = numbers.argmax(-1).unsqueeze(-2)
    costs = costs.gather(-1, columns.expand(*costs.shape[:-1], columns.shape[-1]))
    return take_rows(numbers, assignment_within(costs, classes))
