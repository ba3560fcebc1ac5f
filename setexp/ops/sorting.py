"""Relaxed sorting of each feature across a set (NeuralSort); the hard sort is in `ops.hard_sort`.

It is used through its transpose: a pooling's weights per *position* are carried to weights per
*element*, which is all that FSPool and FSUnpool need (Thesis, 5.4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from setexp.ops import neural_sort
from setexp.ops.hard_sort import sort_order

# Numbers of the relaxed permutations up to which they are held rather than made again.
_WHOLE_NUMEL = 1 << 16


class RelaxedOrder(NamedTuple):
    """A differentiable order of the elements of each feature (NeuralSort, temperature 1).

    Row p of the permutation is a softmax over elements i of (n + 1 - 2p) x_i - sum_k |x_i - x_k|,
    positions p = 1..n, largest first.

    Args:
        x: features, (..., C, N).
        spread: sum over present k of |x_i - x_k|, (..., C, N); infinite for padding.
        slope: n + 1 - 2p at each position, (..., 1, N).
        top: the score of the element that each position favours, (..., C, N); None beside `matrix`.
        matrix: the permutation as (..., N positions, N elements, C); None where it is large, and
            made in parts whenever it is used.
    """

    x: Tensor
    spread: Tensor
    slope: Tensor
    top: Tensor | None
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
            return neural_sort.to_elements(self.matrix, weights)
        return neural_sort.ToElements.apply(self.x, self.spread, self.slope, self.top, weights)[0]


def relaxed_order(x: Tensor, mask: Tensor | None) -> RelaxedOrder:
    """Relaxed descending order of features x (..., C, N); mask (..., 1, N) or None."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision knows too few places
    n = x.shape[-1]
    slope = torch.arange(n - 1, -n, -2, device=x.device, dtype=x.dtype).unsqueeze(0)
    absent = None
    if mask is not None:
        # an empty set is sorted as a full one, so that all is finite; its weights are zero
        mask = torch.where(mask.sum(-1, keepdim=True) > 0, mask, 1)
        absent = mask == 0
        slope = slope + mask.sum(-1, keepdim=True) - n
    # compiled kernels are fused anyway, and PyTorch 2.14 compiles wrong second derivatives of
    # custom functions within torch.func.grad (DSPN's inner steps)
    if torch.compiler.is_compiling() or x.numel() * n <= _WHOLE_NUMEL:
        spread = _infinite(_spread_whole(x, mask), absent)
        matrix = neural_sort.permutation(x, spread, slope)
        return RelaxedOrder(x, spread, slope, None, matrix)
    rising = _infinite(-x.detach(), absent)
    order = sort_order(rising.mT, descending=False)
    spread = _infinite(_spread_by_order(x, absent, order, neural_sort.runs(rising, order)), absent)
    # a position favours the element that is there in the hard order, which has few enough
    favoured = order
    if mask is not None:
        within = torch.arange(n, device=x.device).minimum(mask.sum(-1, keepdim=True).long() - 1)
        favoured = order.gather(-1, within.expand(order.shape))
    top = slope * x.detach().gather(-1, favoured) - spread.detach().gather(-1, favoured)
    return RelaxedOrder(x, spread, slope, top, None)


def _infinite(x: Tensor, where: Tensor | None) -> Tensor:
    return x if where is None else torch.where(where, torch.inf, x)


def _spread_whole(x: Tensor, mask: Tensor | None) -> Tensor:
    """Sum over present k of |x_i - x_k|: (..., C, N)."""
    rows = x.mT
    distance = (rows.unsqueeze(-2) - rows.unsqueeze(-3)).abs()
    if mask is not None:
        distance = distance * mask.mT.unsqueeze(-3)
    return distance.sum(-2).mT


def _spread_by_order(
    x: Tensor, absent: Tensor | None, order: Tensor, runs: tuple[Tensor, Tensor]
) -> Tensor:
    """The same without the table of distances."""
    present = torch.ones_like(x) if absent is None else (~absent).to(x.dtype).expand(x.shape)
    signs, sums = neural_sort.SignSum.apply(order, *runs, present, x * present)
    return x * signs - sums
