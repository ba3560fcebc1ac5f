"""Permutation-optimisation: learn in which order a set's elements belong (Thesis, chapter 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from setexp.ops.layers import Linear, project
from setexp.ops.ordering import placement_costs
from setexp.ops.pairs import l1_distances
from setexp.ops.sinkhorn import sinkhorn
from setexp.sets import SetBatch


class OrderingCost(nn.Module):
    """F(i, j) = f(i, j) - f(j, i): what it costs to place i before j (Thesis, Eq. 4.13).

    f is linear, ReLU, linear on the two elements' concatenated features, one output per axis of the
    lattice; a bias of the last layer would cancel. Pairs are never held with their hidden features:
    relu(x) is half of x + |x|, so f is a linear map of each element plus L1 distances between the
    two.

    Args:
        features: of an element. hidden: width of f. axes: K.

    Shapes: features (B, N, C) to F (B, K, N, N).
    """

    def __init__(self, *, features: int, hidden: int, axes: int) -> None:
        super().__init__()
        self.pair = Linear(2 * features, hidden)
        self.score = Linear(hidden, axes, bias=False)

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """f of all pairs from two sets, (B, N, C) and (B, M, C) to (B, K, N, M)."""
        for_first, for_second = self.pair.weight.chunk(2, dim=-1)
        x = project(first, for_first) + self.pair.bias
        y = project(second, for_second)
        weight = self.score.weight.unsqueeze(-2)  # (K, 1, H)
        x, y = x.unsqueeze(-3), y.unsqueeze(-3)
        linear = (x * weight).sum(-1, keepdim=True) + (y * weight).sum(-1).unsqueeze(-2)
        more, less = weight.relu(), (-weight).relu()
        distance = l1_distances(x * more, -y * more) - l1_distances(x * less, -y * less)
        return (linear + distance) / 2

    def forward(self, x: Tensor) -> Tensor:
        scores = self.compare(x, x)
        return scores - scores.mT


class LinearAssignment(nn.Module):
    """Where each element belongs, seen by itself (Mena et al., 2018; Thesis, Eq. 4.11, right).

    Args:
        features: of an element. positions: N.
        clip: keep outputs within -clip and clip; None for no limit.

    Shapes: features (B, N, C) to unnormalised assignments (B, N, N).
    """

    def __init__(self, *, features: int, positions: int, clip: float | None) -> None:
        super().__init__()
        self.linear, self.clip = Linear(features, positions, bias=False), clip

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(x)
        return logits if self.clip is None else logits.clamp(-self.clip, self.clip)


class AsGiven(nn.Module):
    """The assignment that leaves elements where they are, (B, N, D) to (B, N, N)."""

    def forward(self, s: SetBatch, steps: int | None = None) -> Tensor:
        del steps  # nothing is iterated
        n = s.x.shape[-2]
        return torch.eye(n, dtype=s.x.dtype, device=s.x.device).expand(*s.mask.shape, n)


class PermutationOptimisation(nn.Module):
    """Descend a learned total cost from a first assignment of elements to positions.

    The unnormalised assignment moves against the gradient at the normalised one (Thesis, Algorithm
    4.1, Eq. 4.12). Without a cost and steps it is the model of Mena et al., LinAssign.

    Args:
        elements: features of the elements, (B, N, D) to (B, N, C).
        cost: `OrderingCost`, or None.
        initial: `LinearAssignment` (PO-LA), or None to begin with a uniform assignment (PO-U).
        shape: of the lattice that positions form; [N] for a sequence, whose length may vary.
        steps: T. rounds: of Sinkhorn normalisation.
        masked: padded elements take part in nothing and get the last positions; otherwise all are
            taken to be present.

    Shapes: a `SetBatch` with x (B, N, D) to assignments (B, N, N), rows elements and columns
    positions.

    Raises:
        ValueError: fewer than 0 steps or 1 round, steps without a cost, neither cost nor initial,
            or masked sets on a grid.
    """

    def __init__(
        self,
        *,
        elements: nn.Module,
        cost: OrderingCost | None,
        initial: LinearAssignment | None,
        shape: Sequence[int],
        steps: int,
        rounds: int,
        masked: bool,
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"steps={steps}: at least 0")
        if rounds < 1:
            raise ValueError(f"rounds={rounds}: at least 1")
        if steps and cost is None:
            raise ValueError(f"steps={steps}: needs a cost to descend; use steps=0 without one")
        if cost is None and initial is None:
            raise ValueError("cost and initial are both null: nothing would be learned; set one")
        if masked and len(shape) > 1:
            raise ValueError(f"masked=true, shape={list(shape)}: only sequences vary in length")
        self.elements, self.cost, self.initial = elements, cost, initial
        self.shape, self.steps, self.rounds, self.masked = tuple(shape), steps, rounds, masked
        if cost is not None:
            self.step_size = nn.Parameter(torch.ones(()))

    def forward(self, s: SetBatch, steps: int | None = None) -> Tensor:
        features = self.elements(s.x)
        logits = self._first(features, s.mask)
        steps = self.steps if steps is None else steps
        if steps:
            push = self.costs(features, s.mask) * (2 * self.step_size.abs())
            shape = features.shape[-2:-1] if len(self.shape) == 1 else self.shape
        for _ in range(steps):
            assignment = sinkhorn(logits, self.rounds)
            logits = logits - placement_costs(push, assignment, shape)
        return sinkhorn(logits, self.rounds)

    def costs(self, features: Tensor, mask: Tensor) -> Tensor:
        """C, of unit Frobenius norm on each axis (Thesis, Eq. 4.15): (B, N, C) to (B, K, N, N)."""
        assert self.cost is not None, "this model orders without comparing"
        cost = self.cost(features)
        if self.masked:
            cost = cost * (mask.unsqueeze(-1) * mask.unsqueeze(-2)).unsqueeze(-3)
        norm = torch.linalg.vector_norm(cost, dim=(-2, -1), keepdim=True)
        return cost / norm.clamp(min=1e-10)

    def _first(self, features: Tensor, mask: Tensor) -> Tensor:
        if self.initial is None:
            logits = features.new_zeros(*mask.shape, mask.shape[-1])
        else:
            logits = self.initial(features)
        if not self.masked:
            return logits
        position = torch.arange(mask.shape[-1], device=mask.device)
        taken = position < mask.sum(-1, keepdim=True)
        return logits.masked_fill((mask > 0).unsqueeze(-1) != taken.unsqueeze(-2), -math.inf)
