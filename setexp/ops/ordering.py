"""The total cost of putting elements in order on a lattice, and its gradient (Thesis, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def total_cost(cost: Tensor, assignment: Tensor, shape: Sequence[int]) -> Tensor:
    """What an assignment costs: C_ij wherever i comes before j, -C_ij where after (Eq. 4.1, 4.2.4).

    On a lattice, each line along each axis is a sequence, and costs of all lines are added.

    Args:
        cost: (..., K, N, N), C_ij of each of the lattice's K axes, antisymmetric.
        assignment: (..., N, P), elements to positions, rows and columns that sum to one.
        shape: sizes of the axes, their product P; the last one is the fast one.

    Shapes: to (...).
    """
    return (assignment * placement_costs(cost, assignment, shape)).sum((-2, -1))


def total_cost_gradient(cost: Tensor, assignment: Tensor, shape: Sequence[int]) -> Tensor:
    """Gradient of `total_cost` with respect to the assignment, (..., N, P) (Eq. 4.9)."""
    return 2 * placement_costs(cost, assignment, shape)


def placement_costs(cost: Tensor, assignment: Tensor, shape: Sequence[int]) -> Tensor:
    """C B, summed over axes: what element i at position q costs, given where the others are.

    B_jq is how much of j is after q minus how much is before, on q's line.

    Shapes: as `total_cost`, to (..., N, P).
    """
    lattice = assignment.unflatten(-1, shape)
    products = [
        of_axis @ _AfterMinusBefore.apply(lattice, axis - len(shape)).flatten(-len(shape))
        for axis, of_axis in enumerate(cost.unbind(-3))
    ]
    return sum(products[1:], products[0])


class _AfterMinusBefore(torch.autograd.Function):
    """Along one axis, the sum of what comes after minus the sum of what comes before.

    The map is antisymmetric, so its gradient is its negative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        until = x.cumsum(dim)
        total = until.narrow(dim, x.shape[dim] - 1, 1).clone()
        return until.mul_(-2).add_(x).add_(total)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        del output
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _AfterMinusBefore.apply(grad, ctx.dim).neg_(), None
