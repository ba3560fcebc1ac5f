"""Sinkhorn normalisation: square matrices to nearly doubly stochastic ones (Thesis, Eq. 4.8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_FLOOR = 1e-12  # of the sums that are divided by, as in the authors' code


def sinkhorn(logits: Tensor, rounds: int) -> Tensor:
    """Exponentials whose rows, then columns, are divided by their sums, in so many rounds.

    Rounds only scale rows and columns, so the scales are all that is iterated: a round is two
    products of a fixed matrix with a vector, its gradient two more and a matrix of rank two. The
    exponentials are relative to the largest of their row, and sums are at least 1e-12, so that
    nothing overflows or is divided by zero; entries of -inf give zeros. Differentiable once. Half
    precision is widened, also under autocast: sums of its rounded products would not be one.

    Args:
        logits: (..., N, N), rows elements and columns positions; no row all -inf.
        rounds: at least 1.

    Shapes: (..., N, N) to (..., N, N).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    with torch.autocast(logits.device.type, enabled=False):
        return _Sinkhorn.apply(logits, rounds)[0]


def _row_sums(matrix: Tensor, scale: Tensor) -> Tensor:
    # a row times the transpose is up to ten times faster on a CPU than the matrix times a column
    return _column_sums(matrix.mT, scale)


def _column_sums(matrix: Tensor, scale: Tensor) -> Tensor:
    return (scale.unsqueeze(-2) @ matrix).squeeze(-2)


class _Sinkhorn(torch.autograd.Function):
    """diag(row) exp(logits) diag(column), and what the gradient needs: exponentials and scales."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, rounds: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        largest = torch.finfo(logits.dtype).max ** 0.75  # of a scale: zeros remain zeros
        kernel = (logits - logits.amax(-1, keepdim=True)).exp_()
        row = column = torch.ones_like(kernel[..., 0])
        rows, columns = [row], [column]
        for _ in range(rounds):
            sums = (row * _row_sums(kernel, column)).clamp(min=_FLOOR)
            row = (row / sums).clamp(max=largest)
            sums = (column * _column_sums(kernel, row)).clamp(min=_FLOOR)
            column = (column / sums).clamp(max=largest)
            rows.append(row)
            columns.append(column)
        scaled = (kernel * row.unsqueeze(-1)).mul_(column.unsqueeze(-2))
        return scaled, kernel, torch.stack(rows, dim=-1), torch.stack(columns, dim=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, ...]) -> None:
        del inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        kernel, rows, columns = ctx.saved_tensors
        rows, columns = rows.unbind(-1), columns.unbind(-1)
        weighted = grad * kernel
        grad_row = _row_sums(weighted, columns[-1])
        grad_column = _column_sums(weighted, rows[-1])
        left, right = [], []  # of the products whose sum is a gradient of `kernel`
        for step in range(len(rows) - 1, 0, -1):
            row, column, column_before = rows[step], columns[step], columns[step - 1]
            grad_sums, grad_column = _before(grad_column, column, column_before)
            left.append(row)
            right.append(grad_sums)
            grad_row = grad_row + _row_sums(kernel, grad_sums)
            grad_sums, grad_row = _before(grad_row, row, rows[step - 1])
            left.append(grad_sums)
            right.append(column_before)
            grad_column = grad_column + _column_sums(kernel, grad_sums)
        low_rank = torch.stack(left, dim=-1) @ torch.stack(right, dim=-2)
        direct = (grad * rows[-1].unsqueeze(-1)).mul_(columns[-1].unsqueeze(-2))
        return direct.add_(low_rank).mul_(kernel), None


def _before(grad: Tensor, scale: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the unscaled sums and of the scale before, given that of a scale.

    A scale is one over its sum, whatever it was before; where the sum is at its floor, it is a
    multiple of what it was before.
    """
    floored = scale >= before / _FLOOR
    zero = torch.zeros_like(grad)
    return torch.where(floored, zero, -grad * scale * scale), torch.where(
        floored, grad / _FLOOR, zero
    )
