"""Hard sorting of each feature across a set, as ranks: no element moves.

A pooling's weights per *position* become weights per *element*, which is all that FSPool needs
(Thesis, 5.4): the sorted features are never formed. Layout (..., N, C) throughout.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Largest set whose elements are compared pair by pair, which is quicker than sorting them.
_COMPARED = 32
# Numbers below which handing half of them to a second thread costs more than it saves.
_PARALLEL_NUMEL = 1 << 17
# Numbers that are compared, or sorted, at a time: what is made of them fits into a core's cache.
_COMPARED_NUMEL, _SORTED_NUMEL = 1 << 18, 1 << 15
_workers: list[ThreadPoolExecutor] = []


@torch.library.custom_op("setexp::ranks", mutates_args=())
def ranks(x: Tensor) -> Tensor:
    """Position of each element in the ascending order of its feature; equal ones keep their order.

    Shapes: (..., N, C) to int32 (..., N, C). On a CPU this is NumPy in threads, many times faster
    than `torch.sort`.
    """
    if x.device.type != "cpu":
        order = torch.argsort(x, dim=-2, stable=True)
        positions = torch.arange(x.shape[-2], device=x.device, dtype=torch.int32)
        return positions.new_zeros(x.shape).scatter_(-2, order, positions[:, None].expand_as(x))
    out = torch.empty(x.shape, dtype=torch.int32)
    wide = x if x.dtype == torch.float64 else x.float()
    shape = (x.shape[:-2].numel(), *x.shape[-2:])
    sets, to = wide.reshape(shape).contiguous().numpy(), out.view(shape).numpy()
    small = x.shape[-2] <= _COMPARED
    rank, numel = (_compare, _COMPARED_NUMEL) if small else (_sort, _SORTED_NUMEL)
    step = max(1, numel // max(1, x.shape[-2] * x.shape[-1]))
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL_NUMEL else 1
    share = -(-len(sets) // threads)

    def work(first: int) -> None:
        last = min(first + share, len(sets))
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


def _compare(x: np.ndarray, out: np.ndarray) -> None:
    """The rank of an element is the number of those that belong before it."""
    n = x.shape[1]
    later = np.empty(x.shape, dtype=bool)
    rank = np.empty(x.shape, dtype=np.uint8)
    rank[:] = np.arange(n - 1, -1, -1, dtype=np.uint8)[:, None]
    for gap in range(1, n):
        after = np.less_equal(x[:, :-gap], x[:, gap:], out=later[:, gap:]).view(np.uint8)
        rank[:, gap:] += after
        rank[:, :-gap] -= after
    out[:] = rank


def _sort(x: np.ndarray, out: np.ndarray) -> None:
    """A number's bits, and its place below, are one integer to be sorted."""
    b, n, c = x.shape
    place = np.arange(x.size).reshape(b, c, n)
    if x.dtype == np.float32:
        bits = (x + np.float32(0)).view(np.int32)  # there is one zero
        bits ^= (bits >> 31) & 0x7FFFFFFF  # ordered as the numbers are
        keys = bits.swapaxes(1, 2).astype(np.int64, order="C")
        keys <<= 32
        keys |= place
        keys.sort(-1)
        keys &= 0xFFFFFFFF
    else:  # no integer is wide enough
        keys = x.swapaxes(1, 2).argsort(-1, kind="stable") + place[..., :1]
    rank = np.empty((b, c, n), dtype=np.int32)
    rank.reshape(-1)[keys] = np.arange(n, dtype=np.int32)
    out[:] = rank.swapaxes(1, 2)


@ranks.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.int32, device=x.device)


@ranks.register_vmap
def _(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return ranks(x.movedim(in_dims[0], 0)), 0


@torch.library.custom_op("setexp::place", mutates_args=())
def place(rank: Tensor, weights: Tensor) -> Tensor:
    """Weight of each element by its rank: (G, R, N, C) and weights (G, C, N) to (G, R, N, C)."""
    if rank.device.type != "cpu":
        return weights.mT.unsqueeze(1).expand(rank.shape).gather(-2, rank.long())
    c, n = weights.shape[-2:]
    first = torch.arange(0, c * n, n, dtype=torch.int32)
    out = torch.empty(rank.shape, dtype=weights.dtype)
    for r, w, o in zip(rank + first, weights, out, strict=True):
        torch.index_select(w.reshape(-1), 0, r.view(-1), out=o.view(-1))
    return out


@torch.library.custom_op("setexp::collect", mutates_args=())
def collect(rank: Tensor, grad: Tensor) -> Tensor:
    """Sum over sets of each position's numbers, the transpose of `place`: to (G, C, N)."""
    _, _, n, c = rank.shape
    if rank.device.type != "cpu":
        return torch.zeros_like(grad).scatter(-2, rank.long(), grad).sum(1).mT.contiguous()
    first = torch.arange(0, c * n, n, dtype=torch.int32)
    sums = [
        torch.from_numpy(np.bincount(r.view(-1).numpy(), g.reshape(-1).numpy(), n * c))
        for r, g in zip(rank + first, grad, strict=True)
    ]
    return torch.stack(sums).view(-1, c, n).to(grad.dtype)


@place.register_fake
def _(rank: Tensor, weights: Tensor) -> Tensor:
    return torch.empty(rank.shape, dtype=weights.dtype, device=rank.device)


@collect.register_fake
def _(rank: Tensor, grad: Tensor) -> Tensor:
    g, _, n, c = rank.shape
    return torch.empty((g, c, n), dtype=grad.dtype, device=rank.device)


def _keep_rank(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


place.register_autograd(
    lambda ctx, grad: (None, collect(ctx.saved_tensors[0], grad)), setup_context=_keep_rank
)
collect.register_autograd(
    lambda ctx, grad: (None, place(ctx.saved_tensors[0], grad)), setup_context=_keep_rank
)


def _groups(info: Any, in_dims: tuple[int | None, int | None], a: Tensor, b: Tensor) -> Any:
    """The mapped axis as part of the first, on both."""
    return [
        (t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
        for t, d in zip((a, b), in_dims, strict=True)
    ]


@place.register_vmap
def _(info: Any, in_dims: tuple[int | None, int | None], *tensors: Tensor) -> tuple[Tensor, int]:
    return place(*_groups(info, in_dims, *tensors)).unflatten(0, (info.batch_size, -1)), 0


@collect.register_vmap
def _(info: Any, in_dims: tuple[int | None, int | None], *tensors: Tensor) -> tuple[Tensor, int]:
    return collect(*_groups(info, in_dims, *tensors)).unflatten(0, (info.batch_size, -1)), 0


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
    rank, own = ranks(key), int(weights.dim() == 3)
    placed = place(rank.unsqueeze(own), weights if own else weights.unsqueeze(0))
    return placed.squeeze(own)
