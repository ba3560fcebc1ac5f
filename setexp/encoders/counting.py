"""Counting module: how many objects attention weights and overlapping boxes show (Thesis, 3.4).

docs/counting.md shows it in a model of its own.
"""

from __future__ import annotations

from functools import reduce
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor, nn

from setexp.ops.boxes import iou
from setexp.ops.piecewise_linear import knots, piecewise_linear
from setexp.ops.rows import take_rows
from setexp.ops.two_hot import two_hot
from setexp.sets import Encoding, SetBatch

_FUNCTIONS = 8  # f1 to f8; the released code makes eight more and uses none of them
_FLOOR = 1e-20  # below a square root, whose slope at 0 is infinite


class Matrices(NamedTuple):
    """What the count of a set is found from (Thesis, 3.4.2-3.4.4).

    Args:
        boxes, attention: of the proposals that count, (B, n, 4) and (B, n).
        A, D, C: attention, distance and count matrix, (B, n, n).
        c: the count, the square root of the sum of C, (B,).
    """

    boxes: Tensor
    attention: Tensor
    A: Tensor
    D: Tensor
    C: Tensor
    c: Tensor


class _Counted(NamedTuple):
    """A count (B,), its confidence (B,) and its parts; (pairs + n, B) but `loops`, (n, B)."""

    c: Tensor
    confidence: Tensor
    A: Tensor
    D: Tensor
    edges: Tensor
    loops: Tensor


class CountingModule(nn.Module):
    """A differentiable count of objects that several proposals may show (Thesis, 3.4).

    It is exact where weights are 0 or 1 and boxes either coincide or are apart; its eight monotone
    functions learn what happens in between. The order of the proposals does not matter.

    Args:
        objects: n, the largest count; of more proposals, the n with the largest weights count.
        pieces: of each piecewise linear function.
        iou_eps: added to the union of two boxes: 1e-12 in the released code, nothing in the thesis.
            It lets boxes of side 1e-6 overlap themselves by half (toy task at l = 0).

    Shapes: boxes (B, N, 4) as x1, y1, x2, y2, and attention (B, N) in [0, 1], for example logits
    behind a logistic function, to (B, n + 1). Padding has attention 0.
    """

    def __init__(self, *, objects: int, pieces: int, iou_eps: float) -> None:
        super().__init__()
        self.objects, self.iou_eps = objects, iou_eps
        self.weight = nn.Parameter(torch.ones(_FUNCTIONS, pieces))

    def forward(self, boxes: Tensor, attention: Tensor) -> Tensor:
        counted = self._count(*self._kept(boxes, attention))
        return counted.confidence.unsqueeze(-1) * two_hot(counted.c, self.objects)

    def matrices(self, boxes: Tensor, attention: Tensor) -> Matrices:
        """What `forward` finds its count from; of more than n proposals, largest weight first."""
        boxes, attention = self._kept(boxes, attention)
        counted = self._count(boxes, attention)
        A, D, C = (_square(m, attention.shape[-1]) for m in (counted.A, counted.D, counted.edges))
        C = C + torch.diag_embed(counted.loops.mT)
        return Matrices(boxes, attention, A, D, C, counted.c)

    def learned(self) -> dict[str, Tensor]:
        """Heights of the eight functions at their knots, (pieces + 1,) each."""
        heights = knots(self.weight.detach())
        return {f"f{k}": height for k, height in enumerate(heights, start=1)}

    def _kept(self, boxes: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """The proposals that count."""
        if attention.shape[-1] > self.objects:
            attention, kept = attention.topk(self.objects, dim=-1)
            boxes = take_rows(boxes, kept)
        return boxes, attention

    def _count(self, boxes: Tensor, attention: Tensor) -> _Counted:
        # Sets become the last axis, so that picking proposals copies whole rows. All matrices are
        # symmetric: a row for each pair i < j, then one for each i = i.
        a, box = attention.mT.contiguous(), boxes.permute(2, 1, 0).contiguous()
        own = torch.arange(len(a), device=a.device)
        i, j = torch.triu_indices(len(a), len(a), 1, device=a.device)
        first, second = torch.cat([i, own]), torch.cat([j, own])
        f1, f2, f3, f4, f5, f6, f7, f8 = knots(self.weight).split(1)

        A = a.index_select(0, first) * a.index_select(0, second)
        b_i, b_j = (box.index_select(1, index).movedim(0, -1) for index in (first, second))
        D = 1 - iou(b_i, b_j, plus_one=False, eps=self.iou_eps)
        f1_A, f4_A = piecewise_linear(torch.cat([f1, f4]), A)
        f2_D, f5_D, f7_D = piecewise_linear(torch.cat([f2, f5, f7]), D)

        s = 1 / _duplicates(f3, f4_A * f5_D, a, i, j)
        edges = f1_A * f2_D * s.index_select(0, first) * s.index_select(0, second)
        loops = f1_A[len(i) :] * s
        c = (_total(edges, len(i)) + loops.sum(0) + _FLOOR).sqrt()

        p_a = (piecewise_linear(f6, a)[0] - 0.5).abs().mean(0)
        p_D = _total((f7_D - 0.5).abs(), len(i)) / len(a) ** 2
        confidence = piecewise_linear(f8, p_a + p_D)[0]
        return _Counted(c, confidence, A, D, edges, loops)


def _duplicates(f3: Tensor, X: Tensor, a: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """How many proposals show what each shows, itself included: sums of Thesis, Eq. 3.5.

    Shapes: X (pairs + n, B), a (n, B), pairs i < j (pairs,) to (n, B).
    """
    n, row = len(a), _rows(len(a), a.device)
    X_i, X_j = (X.index_select(0, row[index].mT.flatten()) for index in (i, j))
    difference = torch.cat([a.index_select(0, i) - a.index_select(0, j), X_i - X_j])
    # f3(1 - x) is the function with f3's heights from right to left
    alike = piecewise_linear(f3.flip(-1), difference.abs())[0].unflatten(0, (n + 1, -1))
    similarity = reduce(mul, alike.unbind(0))  # `prod` would wait for the device
    return torch.ones_like(a).index_add(0, i, similarity).index_add(0, j, similarity)


def _rows(n: int, device: torch.device) -> Tensor:
    """Where entry (i, j) of a symmetric matrix is among its pairs i < j and then i = i: (n, n)."""
    own = torch.arange(n, device=device)
    low, high = torch.minimum(own, own.unsqueeze(-1)), torch.maximum(own, own.unsqueeze(-1))
    pair = low * (2 * n - low - 1) // 2 + high - low - 1
    return torch.where(low == high, n * (n - 1) // 2 + own, pair)


def _square(matrix: Tensor, n: int) -> Tensor:
    """All entries of symmetric matrices: (pairs + n, B) to (B, n, n)."""
    return matrix[_rows(n, matrix.device)].movedim(-1, 0)


def _total(matrix: Tensor, pairs: int) -> Tensor:
    """Sum of all entries: (pairs + n, B) to (B,)."""
    return 2 * matrix[:pairs].sum(0) + matrix[pairs:].sum(0)


class SummedAttention(nn.Module):
    """The baseline: the sum of all weights is the count, wherever the boxes are (Thesis, 3.5.1).

    Shapes: as `CountingModule`.
    """

    def __init__(self, *, objects: int) -> None:
        super().__init__()
        self.objects = objects

    def forward(self, boxes: Tensor, attention: Tensor) -> Tensor:
        del boxes
        return two_hot(attention.sum(-1), self.objects)


class CountEncoder(nn.Module):
    """Counts a set of weighted boxes.

    Args:
        count: `CountingModule` or `SummedAttention`.

    Shapes: a `SetBatch` with x (B, N, 5), a box and its weight, to z (B, n + 1).
    """

    def __init__(self, *, count: nn.Module) -> None:
        super().__init__()
        self.count = count

    def forward(self, s: SetBatch) -> Encoding:
        boxes, attention = s.x[..., :4], s.x[..., 4] * s.mask
        return Encoding(z=self.count(boxes, attention), elements=s)
