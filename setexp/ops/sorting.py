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

# Rows below which handing half of them to a second thread costs more than it saves.
_PARALLEL_NUMEL = 1 << 17
_workers: list[ThreadPoolExecutor] = []


@torch.library.custom_op("setexp::argsort", mutates_args=())
def argsort(x: Tensor) -> Tensor:
    """Ascending order of the last axis, (..., N) to int64 (..., N); ties in any order.

    On a CPU this is NumPy's vectorised sort, in threads: several times faster than `torch.sort`.
    """
    x = x.contiguous()  # the result is contiguous whatever the input
    if x.device.type != "cpu":
        return torch.argsort(x, dim=-1)
    rows = x.numpy().reshape(-1, x.shape[-1])
    threads = torch.get_num_threads() if x.numel() >= _PARALLEL_NUMEL else 1
    if threads == 1:
        return torch.from_numpy(rows.argsort(-1)).reshape(x.shape)
    if not _workers:
        _workers.append(ThreadPoolExecutor(threads))
    order = torch.empty(rows.shape, dtype=torch.int64)
    chunk = -(-len(rows) // threads)

    def sort(start: int) -> None:
        order.numpy()[start : start + chunk] = rows[start : start + chunk].argsort(-1)

    list(_workers[0].map(sort, range(0, len(rows), chunk)))
    return order.reshape(x.shape)


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


class RelaxedOrder(NamedTuple):
    """A differentiable order of the elements of each feature (NeuralSort, temperature 1).

    Row p of the permutation is a softmax over elements i of (n + 1 - 2p) x_i - sum_k |x_i - x_k|,
    positions p = 1..n, largest first.

    Args:
        x: features, (..., C, N).
        spread: sum over present k of |x_i - x_k|, (..., C, N).
        slope: n + 1 - 2p at each position, (..., 1, N).
        permutation: (..., C, N positions, N elements); padded elements have zeros, positions beyond
            the set's size mean nothing.
    """

    x: Tensor
    spread: Tensor
    slope: Tensor
    permutation: Tensor

    def to_elements(self, weights: Tensor) -> Tensor:
        """Carry weights per position (..., C, N) to elements: transposed permutation times them."""
        if torch.compiler.is_compiling():
            # kernels are fused anyway, and PyTorch 2.14 compiles wrong second derivatives of custom
            # functions within torch.func.grad (DSPN's inner steps)
            return _matvec(self.permutation.mT, weights)
        return _Transposed.apply(self.x, self.spread, self.slope, weights, self.permutation)


def relaxed_order(x: Tensor, mask: Tensor | None) -> RelaxedOrder:
    """Relaxed descending order of features x (..., C, N); mask (..., 1, N) or None."""
    n = x.shape[-1]
    size = mask.sum(-1, keepdim=True) if mask is not None else x.new_full((), n)
    slope = size + 1 - 2 * torch.arange(1, n + 1, device=x.device, dtype=x.dtype)
    distance = (x.unsqueeze(-1) - x.unsqueeze(-2)).abs()
    spread = distance.sum(-1) if mask is None else (distance * mask.unsqueeze(-2)).sum(-1)
    score = slope.unsqueeze(-1) * x.unsqueeze(-2) - spread.unsqueeze(-2)
    if mask is not None:  # an empty set keeps finite rows; its weights are zero
        absent = (mask == 0) & (size > 0)
        score = torch.where(absent.unsqueeze(-2), -torch.inf, score)
    permutation = score.softmax(-1)
    return RelaxedOrder(x, spread, slope.expand_as(x[..., :1, :]), permutation)


class _Transposed(torch.autograd.Function):
    """weights per position to weights per element, and its gradient without n x n temporaries.

    With P the permutation and V = P^T w, the softmax's gradient only needs P and P^T times vectors:
    G = dV gives r = w * (P G), and d score summed along positions against s is
    (P^T (s w)) * G - P^T (s r), for s = slope (gradient of x) and s = 1 (of minus spread).
    P is an input of its own, without a first derivative, so that the second one finds its way: a
    gradient that is differentiated again depends on x through P.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, spread: Tensor, slope: Tensor, w: Tensor, permutation: Tensor) -> Tensor:
        return _matvec(permutation.mT, w.expand_as(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _, _, slope, w, permutation = inputs
        ctx.save_for_backward(slope, w, permutation, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, w, permutation, output = ctx.saved_tensors
        pulled = _matvec(permutation, grad)
        reach = w * pulled
        columns = torch.stack([(slope * w).expand_as(reach), slope * reach, reach], dim=-1)
        back = permutation.mT @ columns
        grad_x = back[..., 0] * grad - back[..., 1]
        grad_spread = back[..., 2] - output * grad
        return grad_x, grad_spread, None, _sum_to(pulled, w.shape), None


def _matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Undo broadcasting: sum x over its extra leading axes down to `shape`."""
    extra = x.dim() - len(shape)
    return x.sum(dim=tuple(range(extra))) if extra else x
