"""Projection onto the unit simplex (iDSPN, Eq. 10 and 4.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def project_simplex(x: Tensor) -> Tensor:
    """Nearest point of the simplex {p >= 0, sum p = 1} for each row: (..., F) to (..., F).

    The gradient is that of the formula at a fixed support.
    """
    return torch.relu(x - simplex_level(x))


@torch.library.custom_op("setexp::simplex_level", mutates_args=())
def simplex_level(x: Tensor) -> Tensor:
    """The t of which max(x - t, 0) sums to 1 (Held, Wolfe and Crowder, 1974).

    It is what the coordinates above it exceed 1 by, shared among them. Shapes: (..., F) to
    (..., 1).
    """
    wide = x if x.dtype == torch.float64 else x.float()
    if x.device.type == "cpu":
        falling = -wide
        falling.numpy().sort(-1)  # many times faster than torch.sort
        ordered = falling.neg_()
    else:
        ordered = wide.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=wide.dtype)
    # (sum of the k largest - 1) / k grows while the k-th coordinate stays above it
    return ((ordered.cumsum(-1) - 1) / count).amax(-1, keepdim=True).to(x.dtype)


@simplex_level.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], 1))


@simplex_level.register_vmap
def _(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return simplex_level(x.movedim(in_dims[0], 0)), 0


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output.detach())


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    x, level = ctx.saved_tensors
    support = (x > level).to(x.dtype)
    return grad / support.sum(-1, keepdim=True) * support


simplex_level.register_autograd(_backward, setup_context=_keep)
