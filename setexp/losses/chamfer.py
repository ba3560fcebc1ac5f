"""Chamfer loss: every row against the nearest of the other set (Thesis, Eq. 2.18, 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.losses.base import Steps, comparable
from setexp.ops.costs import Cost, matched_cost, pair_cost
from setexp.ops.rows import take_rows
from setexp.sets import SetBatch

# Pairs held at once while nearest rows are looked for: what a CPU's cache holds, what fills a GPU.
_CPU_PAIRS = 1 << 20
_GPU_PAIRS = 1 << 26


def nearest(x: Tensor, y: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """Index of the nearest row of y for each row of x, and of x for each of y, without gradient.

    Shapes: x (T, B, N, D), y (B, M, D) to int64 (T, B, N) and (T, B, M).
    """
    x, y = x.detach(), y.detach()
    pairs = x.shape[-2] * y.shape[-2]
    chunk = max(1, (_CPU_PAIRS if x.device.type == "cpu" else _GPU_PAIRS) // pairs)
    to_y, to_x = [], []
    for step in x:
        for rows, columns in zip(step.split(chunk), y.split(chunk), strict=True):
            costs = pair_cost(rows, columns, cost)
            to_y.append(costs.min(-1).indices)
            to_x.append(costs.min(-2).indices)  # argmin is ten times slower here
    shape = x.shape[:-2]
    return torch.cat(to_y).unflatten(0, shape), torch.cat(to_x).unflatten(0, shape)


class ChamferLoss(nn.Module):
    """Both directions added, mean over rows; padded rows take part like any other.

    Minima are found without gradient and only the selected pairs are differentiated, so the n x m
    pairs of each step are never stored.

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
        to_y, to_x = nearest(x, y, self.cost)
        y = y.expand(*x.shape[:-2], *y.shape[-2:])
        forth = matched_cost(x, take_rows(y, to_y), self.cost)
        back = matched_cost(take_rows(x, to_x), y, self.cost)
        return (forth.mean(-1) + back.mean(-1)).mean(0)
