"""Hard sorting of each feature across a set, by ranks: no element moves.

A pooling's weights per *position* become weights per *element*, which is all that FSPool needs
(Thesis, 5.4): the sorted features are never formed. Layout (..., N, C) throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Largest set whose elements are compared pair by pair, which is quicker than sorting them.
_COMPARED = 48
# Numbers that are compared, or sorted, at a time: what is made of them fits into a core's cache.
_COMPARED_NUMEL, _SORTED_NUMEL = 1 << 18, 1 << 15
# Numbers below which handing half of them to a second thread costs more than it saves.
_PARALLEL_NUMEL = 1 << 17
_workers: list[ThreadPoolExecutor] = []

_Work = Callable[[np.ndarray, np.ndarray], None]


@torch.library.custom_op("setexp::weight_index", mutates_args=())
def weight_index(x: Tensor) -> Tensor:
    """Where each element's weight is among all C x N: feature * N + position of the element.

    Positions are those of the ascending order of a feature; equal numbers keep their order.

    Shapes: (..., N, C) to int32 (..., N, C). On a CPU this is NumPy in threads, many times faster
    than `torch.sort`.
    """
    n, c = x.shape[-2:]
    if x.device.type != "cpu":
        order = torch.argsort(x, dim=-2, stable=True)
        index = torch.arange(c * n, device=x.device, dtype=torch.int32).view(c, n).mT
        return torch.empty_like(order, dtype=torch.int32).scatter_(-2, order, index.expand_as(x))
    shape = (x.shape[:-2].numel(), n, c)
    wide = x if x.dtype == torch.float64 else x.float()
    out = torch.empty(x.shape, dtype=torch.int32)
    sets, to = wide.reshape(shape).contiguous().numpy(), out.view(shape).numpy()
    compared = n <= _COMPARED
    step = max(1, (_COMPARED_NUMEL if compared else _SORTED_NUMEL) // max(1, n * c))
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL_NUMEL else 1
    share = -(-len(sets) // threads)

    def work(first: int) -> None:
        last = min(first + share, len(sets))
        rank = _comparing(n, c) if compared else _sorting(min(step, last - first), n, c)
        for i in range(first, last, step):
            part = slice(i, min(i + step, last))
            rank(sets[part], to[part])

    if threads == 1:
        work(0)
        return out
    if not _workers:
        _workers.append(ThreadPoolExecutor(threads))
    list(_workers[0].map(work, range(0, len(sets), share)))
    return out


def _comparing(n: int, c: int) -> _Work:
    """An element's position is the number of those that belong before it."""
    start = np.arange(n - 1, -1, -1, dtype=np.uint8)[:, None]
    first = np.arange(0, c * n, n, dtype=np.int32)

    def work(x: np.ndarray, out: np.ndarray) -> None:
        later = np.empty(x.shape, dtype=bool)
        rank = np.empty(x.shape, dtype=np.uint8)
        rank[:] = start
        for gap in range(1, n):
            after = np.less_equal(x[:, :-gap], x[:, gap:], out=later[:, gap:]).view(np.uint8)
            rank[:, gap:] += after
            rank[:, :-gap] -= after
        np.add(rank, first, out=out)

    return work


def _sorting(b: int, n: int, c: int) -> _Work:
    """A number's bits, and its place below them, are one integer to be sorted."""
    odd = n | 1  # rows of a power of two would all fall on the same lines of the cache
    row = np.arange(0, b * c * odd, odd).reshape(b, c, 1)
    place = row + np.arange(n)
    index = np.arange(c * n, dtype=np.int32).reshape(1, c, n).repeat(b, 0)
    buffer = np.empty((b, c, odd), dtype=np.int32)

    def work(x: np.ndarray, out: np.ndarray) -> None:
        b = len(x)
        if x.dtype == np.float32:
            bits = (x + np.float32(0)).view(np.int32)  # there is one zero
            bits ^= (bits >> 31) & 0x7FFFFFFF  # ordered as the numbers are
            keys = bits.swapaxes(1, 2).astype(np.int64, order="C")
            keys <<= 32
            keys |= place[:b]
            keys.sort(-1)
            keys &= 0xFFFFFFFF
        else:  # no integer is wide enough
            keys = x.swapaxes(1, 2).argsort(-1, kind="stable") + row[:b]
        buffer.reshape(-1)[keys] = index[:b]
        out[:] = buffer[:b, :, :n].swapaxes(1, 2)

    return work


@weight_index.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.int32, device=x.device)


@weight_index.register_vmap
def _(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return weight_index(x.movedim(in_dims[0], 0)), 0


@torch.library.custom_op("setexp::place", mutates_args=())
def place(index: Tensor, weights: Tensor) -> Tensor:
    """Weights where they are needed: index (G, R, N, C), weights (G, C, N) to (G, R, N, C)."""
    out = torch.empty(index.shape, dtype=weights.dtype, device=index.device)
    for i, w, o in zip(index, weights, out, strict=True):
        torch.index_select(w.reshape(-1), 0, i.view(-1), out=o.view(-1))
    return out


@torch.library.custom_op("setexp::collect", mutates_args=())
def collect(index: Tensor, grad: Tensor) -> Tensor:
    """Sum over R of each position's numbers, as `place` transposed: (G, R, N, C) to (G, C, N)."""
    g, r, n, c = index.shape
    if index.device.type != "cpu":
        own = grad.new_zeros(g, r, n * c).scatter_(-1, index.flatten(2).long(), grad.flatten(2))
        return own.sum(1).view(g, c, n)
    sums = [
        torch.from_numpy(np.bincount(i.view(-1).numpy(), v.reshape(-1).numpy(), n * c))
        for i, v in zip(index, grad, strict=True)
    ]
    return torch.stack(sums).view(g, c, n).to(grad.dtype)


@place.register_fake
def _(index: Tensor, weights: Tensor) -> Tensor:
    return torch.empty(index.shape, dtype=weights.dtype, device=index.device)


@collect.register_fake
def _(index: Tensor, grad: Tensor) -> Tensor:
    g, _, n, c = index.shape
    return torch.empty((g, c, n), dtype=grad.dtype, device=index.device)


def _keep_index(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


place.register_autograd(
    lambda ctx, grad: (None, collect(ctx.saved_tensors[0], grad)), setup_context=_keep_index
)
collect.register_autograd(
    lambda ctx, grad: (None, place(ctx.saved_tensors[0], grad)), setup_context=_keep_index
)


def _groups(info: Any, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> Any:
    """The mapped axis as part of the first, on all tensors."""
    return [
        (t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
        for t, d in zip(tensors, in_dims, strict=True)
    ]


@place.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    return place(*_groups(info, in_dims, tensors)).unflatten(0, (info.batch_size, -1)), 0


@collect.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    return collect(*_groups(info, in_dims, tensors)).unflatten(0, (info.batch_size, -1)), 0


def carry_by_rank(x: Tensor, mask: Tensor | None, weights: Tensor, *, descending: bool) -> Tensor:
    """Weights per position carried to elements; padding ranks last. No gradient reaches x.

    Args:
        x: (B, N, C).
        mask: (B, N, 1), or None when every element is present.
        weights: (C, N), or (B, C, N).
        descending: position 0 is the largest element's.

    Returns:
        (B, N, C): the weight of each element.
    """
    key = -x.detach() if descending else x.detach()
    if mask is not None:
        key = torch.where(mask > 0, key, torch.inf)
    own = int(weights.dim() == 3)  # groups of one set, or one group
    index = weight_index(key).unsqueeze(own)
    return place(index, weights if own else weights.unsqueeze(0)).squeeze(own)
