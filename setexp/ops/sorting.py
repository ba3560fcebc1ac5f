"""Sorting each feature across a set: hard, and relaxed (NeuralSort).

Both are used through their transpose: a pooling's weights per *position* are carried to weights
per *element*, which is all that FSPool and FSUnpool need (Thesis, 5.4). Feature-major layout
throughout, (..., C, N), so that the sorted axis is contiguous.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from setexp.ops import neural_sort

# Rows below which handing half of them to a second thread costs more than it saves.
_PARALLEL_NUMEL = 1 << 17
_workers: list[ThreadPoolExecutor] = []
# Numbers of the relaxed permutations up to which they are held rather than made again.
_WHOLE_NUMEL = 1 << 16


@torch.library.custom_op("setexp::argsort", mutates_args=())
def argsort(x: Tensor) -> Tensor:
    """Ascending order of the last axis, (..., N) to int64 (..., N); equal numbers keep their order.

    On a CPU this is NumPy's vectorised sort, in threads: several times faster than `torch.sort`.
    """
    x = x.contiguous()  # the result is contiguous whatever the input
    if x.device.type != "cpu":
        return torch.argsort(x, dim=-1, stable=True)
    rows = x.reshape(-1, x.shape[-1])
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL_NUMEL else 1
    if threads == 1:
        return _order(rows).reshape(x.shape)
    if not _workers:
        _workers.append(ThreadPoolExecutor(threads))
    parts = rows.split(-(-len(rows) // threads))
    return torch.cat(list(_workers[0].map(_order, parts))).reshape(x.shape)


def _order(rows: Tensor) -> Tensor:
    """Stable order of rows: a number's bits, and its index below, are an integer to be sorted."""
    if rows.dtype != torch.float32:  # no integer is wide enough
        return torch.from_numpy(rows.numpy().argsort(-1, kind="stable"))
    bits = (rows + 0.0).view(torch.int32)  # there is one zero
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # ordered as the numbers are
    keys = (bits.long() << 32) | torch.arange(rows.shape[-1])
    keys.numpy().sort(-1)
    return keys & 0xFFFFFFFF


@argsort.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.int64, device=x.device)


@argsort.register_vmap
def _(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int]:
    assert in_dims[0] is not None
    return argsort(x.movedim(in_dims[0], 0)), 0


def hard_order(x: Tensor, mask: Tensor | None, *, descending: bool) -> Tensor:
    """Order of each feature's elements, padding last.

    Args:
        x: (..., C, N).
        mask: (..., 1, N) or None when every element is present.

    Returns:
        int64 (..., C, N): the element at each position.
    """
    key = -x.detach() if descending else x.detach()
    if mask is not None:
        key = torch.where(mask > 0, key, torch.inf)
    return argsort(key)


def carry_to_elements(order: Tensor, weights: Tensor) -> Tensor:
    """Weights per position (..., C, N) to weights per element, by a hard order (..., C, N)."""
    zeros = torch.zeros_like(order, dtype=weights.dtype)
    return zeros.scatter(-1, order, weights.expand_as(order))


class RelaxedOrder(NamedTuple):
    """A differentiable order of the elements of each feature (NeuralSort, temperature 1).

    Row p of the permutation is a softmax over elements i of (n + 1 - 2p) x_i - sum_k |x_i - x_k|,
    positions p = 1..n, largest first.

    Args:
        x: features, (..., N, C).
        spread: sum over present k of |x_i - x_k|, (..., N, C); infinite for padding.
        slope: n + 1 - 2p at each position, (..., N, 1).
        matrix: the permutation as (..., N positions, N elements, C); None where it is large, and
            made in parts whenever it is used.
    """

    x: Tensor
    spread: Tensor
    slope: Tensor
    matrix: Tensor | None

    @property
    def permutation(self) -> Tensor:
        """(..., C, N positions, N elements); padded elements have zeros, positions beyond the set's
        size mean nothing."""
        matrix = self.matrix
        if matrix is None:
            matrix = neural_sort.permutation(self.x, self.spread, self.slope)
        return matrix.movedim(-1, -3)

    def to_elements(self, weights: Tensor) -> Tensor:
        """Carry weights per position (..., C, N) to elements: transposed permutation times them."""
        if self.matrix is not None:
            return neural_sort.carry(self.matrix, weights.mT).mT
        return neural_sort.Carry.apply(self.x, self.spread, self.slope, weights.mT).mT


def relaxed_order(x: Tensor, mask: Tensor | None) -> RelaxedOrder:
    """Relaxed descending order of features x (..., C, N); mask (..., 1, N) or None."""
    x, n = x.mT, x.shape[-1]
    slope = torch.arange(n - 1, -n, -2, device=x.device, dtype=x.dtype).unsqueeze(-1)
    # compiled kernels are fused anyway, and PyTorch 2.14 compiles wrong second derivatives of
    # custom functions within torch.func.grad (DSPN's inner steps)
    whole = torch.compiler.is_compiling() or x.numel() * n <= _WHOLE_NUMEL
    if mask is None:
        spread = _spread(x, torch.ones_like(x) if not whole else None, whole)
    else:
        present = mask.mT
        size = present.sum(-2, keepdim=True)
        slope = slope + size - n
        absent = (present == 0) & (size > 0)  # an empty set keeps finite rows; its weights are zero
        spread = torch.where(absent, torch.inf, _spread(x, present.expand_as(x), whole))
    matrix = neural_sort.permutation(x, spread, slope) if whole else None
    return RelaxedOrder(x, spread, slope, matrix)


def _spread(x: Tensor, present: Tensor | None, whole: bool) -> Tensor:
    """Sum over present k of |x_i - x_k|: (..., N, C)."""
    if not whole:
        assert present is not None
        signs = neural_sort.SignSum.apply(x.detach(), present)
        return x * signs - neural_sort.SignSum.apply(x.detach(), x * present)
    distance = (x.unsqueeze(-2) - x.unsqueeze(-3)).abs()
    return (distance if present is None else distance * present.unsqueeze(-3)).sum(-2)
