"""Hard sorting of each feature across a set (Thesis, 5.4).

FSPool needs the features in order, or its weights per *position* as weights per *element*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from setexp.ops.batching import batch_first

# Largest set whose elements are compared pair by pair instead of sorted, where there are many sets.
_COMPARED, _COMPARED_NUMEL = 10, 1 << 14
# Numbers that are worked on at a time: what is made of them fits into a core's cache.
_CACHED_NUMEL = 1 << 15


@torch.library.custom_op("setexp::sort_order", mutates_args=())
def sort_order(x: Tensor, descending: bool) -> Tensor:
    """Which element is at each position of a feature's order; equal numbers keep theirs.

    Shapes: (..., N, C) to int64 (..., C, N). On a CPU this is NumPy, many times faster than
    `torch.sort`.
    """
    n, c = x.shape[-2:]
    if x.device.type != "cpu":
        return torch.argsort(x, dim=-2, descending=descending, stable=True).mT.contiguous()
    wide = x if x.dtype == torch.float64 else x.float()
    sets = wide.reshape(x.shape[:-2].numel(), n, c).contiguous()
    compared = n <= _COMPARED and x.numel() >= _COMPARED_NUMEL
    order = (_by_comparing if compared else _by_sorting)(sets, descending)
    return order.view(*x.shape[:-2], c, n)


def _by_comparing(x: Tensor, descending: bool) -> Tensor:
    """An element's position is the number of those that belong before it."""
    b, n, c = x.shape
    rank = np.empty((b, n, c), dtype=np.uint8)
    rank[:] = np.arange(n - 1, -1, -1, dtype=np.uint8)[:, None]
    before = np.greater_equal if descending else np.less_equal
    # a number and its rank of one byte take half the room that a number to be sorted does
    step = max(1, 2 * _CACHED_NUMEL // max(1, n * c))
    for i in range(0, b, step):
        part, ranks = x[i : i + step].numpy(), rank[i : i + step]
        for gap in range(1, n):
            after = before(part[:, :-gap], part[:, gap:]).view(np.uint8)
            ranks[:, gap:] += after
            ranks[:, :-gap] -= after
    position = torch.from_numpy(rank).mT.contiguous().long()
    elements = torch.arange(n).expand(b, c, n)
    return torch.empty((b, c, n), dtype=torch.int64).scatter_(-1, position, elements)


def _by_sorting(x: Tensor, descending: bool) -> Tensor:
    """A number's bits, and its element below them, are one integer to be sorted."""
    b, n, c = x.shape
    order = np.empty((b, c, n), dtype=np.int64)
    words = order.view(np.int32).reshape(b, c, n, 2)  # of a little-endian processor
    low, high = words[..., 0], words[..., 1]
    element = np.arange(n, dtype=np.int32)
    step = max(1, _CACHED_NUMEL // max(1, n * c))
    for i in range(0, b, step):
        some = slice(i, i + step)
        part = x[some].numpy()
        if part.dtype == np.float64:  # no integer is wide enough
            part = -part if descending else part
            order[some] = part.swapaxes(1, 2).argsort(-1, kind="stable")
            continue
        high[some] = sortable_bits(part, descending).swapaxes(1, 2)
        low[some] = element
        order[some].sort(-1)
        high[some] = 0
    return torch.from_numpy(order)


def sortable_bits(x: np.ndarray, descending: bool) -> np.ndarray:
    """Numbers in single precision as int32, which are in the same order, or in the reverse."""
    bits = (0 - x if descending else x + 0).view(np.int32)  # there is one zero
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits


@sort_order.register_fake
def _(x: Tensor, descending: bool) -> Tensor:
    return torch.empty(x.mT.shape, dtype=torch.int64, device=x.device)


@sort_order.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, None], x: Tensor, descending: bool
) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return sort_order(x.movedim(in_dims[0], 0), descending), 0


def in_order(x: Tensor, mask: Tensor, *, descending: bool) -> Tensor:
    """Each feature's numbers in order, padding last; position 0 is the largest's if `descending`.

    Shapes: x (B, N, C) and mask (B, N) to (B, C, N).
    """
    # added, which on CPUs is many times faster than choosing
    last = torch.where(mask > 0, 0.0, -torch.inf if descending else torch.inf).unsqueeze(-1)
    return x.mT.gather(-1, sort_order(x.detach() + last, descending))


def to_elements(x: Tensor, weights: Tensor, *, descending: bool) -> Tensor:
    """Weights per position carried to elements. No gradient reaches x.

    Args:
        x: (B, N, C).
        weights: (C, N).
        descending: position 0 is the largest element's.

    Returns:
        (B, N, C): the weight of each element.
    """
    return _Carry.apply(weights, sort_order(x.detach(), descending))


class _Carry(torch.autograd.Function):
    """Weights (C, N) to the elements of an order (B, C, N): (B, N, C).

    A compiler may fuse this with what elements are multiplied by, but not its gradient: the sum
    over sets would become the inner loop, which jumps through memory.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, order: Tensor) -> Tensor:
        nothing = weights.new_zeros(()).expand(order.shape)
        return nothing.scatter(-1, order, weights.expand(order.shape)).mT.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return position_sums(grad, *ctx.saved_tensors), None


@torch.library.custom_op("setexp::position_sums", mutates_args=())
def position_sums(x: Tensor, order: Tensor) -> Tensor:
    """What all sets have at each position: x (B, N, C) and order (B, C, N) to (C, N)."""
    return x.mT.gather(-1, order).sum(0)


@position_sums.register_fake
def _(x: Tensor, order: Tensor) -> Tensor:
    return x.new_empty(order.shape[1:])


@position_sums.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, int | None], x: Tensor, order: Tensor
) -> tuple[Tensor, int]:
    x, order = batch_first(info, in_dims, (x, order))
    return x.mT.gather(-1, order).sum(1), 0


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _Carry.apply(grad, *ctx.saved_tensors), None


position_sums.register_autograd(_backward, setup_context=_keep)
