"""Exact minimum-cost matching, batched, as one operator for eager, compiled and stacked code."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from setexp.errors import NonFiniteError
from setexp.ops.batching import batch_first


@torch.library.custom_op("setexp::assignment", mutates_args=())
def assignment(cost: Tensor) -> Tensor:
    """Column matched to each row at minimum total cost.

    The solver is SciPy's; `lapx`, where installed, takes over from 64 elements up, where it is
    several times faster. This is the only place where a step waits for the device: one transfer of
    all costs, whatever the number of inner steps, sets and seeds.

    Args:
        cost: (..., N, N), of any float type. The matching has no gradient: pass detached costs.

    Returns:
        int64 (..., N).

    Raises:
        NonFiniteError: a cost is NaN or infinite.
    """
    columns = _solve(_on_host(cost))
    return torch.from_numpy(columns).reshape(cost.shape[:-1]).to(cost.device, non_blocking=True)


@torch.library.custom_op("setexp::assignment_within", mutates_args=())
def assignment_within(cost: Tensor, group: Tensor) -> Tensor:
    """Column matched to each row at minimum total cost, of those whose group is the row's.

    The same as `assignment` with a prohibitive cost between groups, in a fraction of its time.

    Args:
        cost: (..., N, N), of any float type. The matching has no gradient: pass detached costs.
        group: int64 (..., N), of the row and of the column of the same index.

    Returns:
        int64 (..., N).

    Raises:
        NonFiniteError: a cost is NaN or infinite.
    """
    from scipy.optimize import linear_sum_assignment

    # rows and columns in the order of their groups, which become blocks on the diagonal
    order = group.argsort(dim=-1, stable=True)
    rows, columns = (order.unsqueeze(dim).expand_as(cost) for dim in (-1, -2))
    blocks = cost.gather(-2, rows).gather(-1, columns)
    begins = torch.zeros_like(cost[..., :1, :])  # of a group; travels with the costs
    begins[..., 0, 1:] = group.gather(-1, order).diff(dim=-1) != 0
    told = _on_host(torch.cat([blocks, begins], dim=-2))
    matched = np.empty((len(told), cost.shape[-1]), dtype=np.int64)
    for matrix, row in zip(told, matched, strict=True):
        for start, end in pairwise([0, *matrix[-1].nonzero()[0].tolist(), len(row)]):
            row[start:end] = linear_sum_assignment(matrix[start:end, start:end])[1]
            row[start:end] += start
    positions = torch.from_numpy(matched).reshape(group.shape).to(cost.device, non_blocking=True)
    return torch.empty_like(order).scatter(-1, order, order.gather(-1, positions))


@assignment_within.register_fake
def _(cost: Tensor, group: Tensor) -> Tensor:
    return torch.empty(group.shape, dtype=torch.int64, device=cost.device)


@assignment_within.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, ...], cost: Tensor, group: Tensor
) -> tuple[Tensor, int]:
    return assignment_within(*batch_first(info, in_dims, (cost, group))), 0


def _on_host(cost: Tensor) -> np.ndarray:
    """Costs (..., N, N) as matrices (-1, N, N); raises where one is not finite."""
    host = cost.detach().to("cpu", torch.float64 if cost.dtype == torch.float64 else torch.float32)
    matrices = host.numpy().reshape(-1, *cost.shape[-2:])
    if not np.isfinite(matrices).all():
        bad = int((~np.isfinite(matrices)).any((1, 2)).nonzero()[0][0])
        raise NonFiniteError(
            f"matching: cost matrix {bad} of {len(matrices)} (shape {tuple(cost.shape)}) "
            "is not finite"
        )
    return matrices


def _solve(matrices: np.ndarray) -> np.ndarray:
    if matrices.shape[-1] >= 64:
        try:
            from lap import lapjvr_batch
        except ImportError:
            pass
        else:
            _, rows, columns = lapjvr_batch(matrices, return_cost=True)
            out = np.empty(matrices.shape[:-1], dtype=np.int64)
            np.put_along_axis(out, np.asarray(rows), np.asarray(columns), axis=-1)
            return out
    from scipy.optimize import linear_sum_assignment

    out = np.empty(matrices.shape[:-1], dtype=np.int64)
    for row, matrix in zip(out, matrices, strict=True):
        row[:] = linear_sum_assignment(matrix)[1]
    return out


@assignment.register_fake
def _(cost: Tensor) -> Tensor:
    return torch.empty(cost.shape[:-1], dtype=torch.int64, device=cost.device)


@assignment.register_vmap
def _(info: Any, in_dims: tuple[int | None], cost: Tensor) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return assignment(cost.movedim(in_dims[0], 0)), 0
