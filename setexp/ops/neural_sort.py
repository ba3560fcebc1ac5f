"""NeuralSort's permutation times a vector, without holding the permutation.

A permutation has N x N numbers for each feature of each set. All that is wanted of it, gradients
included, are products with a few vectors. So some rows (one feature of one set) are made, used and
forgotten at a time, and made again for the gradient: on a CPU they stay in the cache, which is
worth more than the repeated exponentials, and memory grows with N instead of its square.

Layout (..., C, N) throughout, as in `setexp.ops.sorting`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Numbers of a permutation held at once: a megabyte is in a core's cache; a GPU's fill.
_CPU_NUMBERS = 1 << 18
_GPU_NUMBERS = 1 << 26


def permutation(x: Tensor, spread: Tensor, slope: Tensor) -> Tensor:
    """Softmax over elements of slope x - spread: (..., C, N), slope (..., 1, N) to (..., N, N, C).

    The first N are positions, the second elements. Features come last because they are the one axis
    that is never short, and sums and softmaxes over few contiguous numbers are slow.
    """
    score = torch.addcmul(-spread.mT.unsqueeze(-3), slope.mT.unsqueeze(-2), x.mT.unsqueeze(-3))
    return score.softmax(-2)


def carry(matrix: Tensor, weights: Tensor) -> Tensor:
    """Weights per position (..., C, N) to weights per element: the transposed permutation's."""
    return (matrix * weights.mT.unsqueeze(-2)).sum(-3).mT


def pull(
    matrix: Tensor, slope: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, spread and weights of `carry`, of the gradient of its result."""
    weights, grad = weights.mT, grad.mT
    pulled = (matrix * grad.unsqueeze(-3)).sum(-2)
    share = (weights * pulled).unsqueeze(-2)
    change = matrix * torch.addcmul(-share, weights.unsqueeze(-2), grad.unsqueeze(-3))
    sloped = (change * slope.mT.unsqueeze(-2)).sum(-3)
    return sloped.mT, -change.sum(-3).mT, pulled.mT


def _parts(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors like x (..., C, N) as rows (r, N), few at a time, after room for their squares."""
    n = x.shape[-1]
    numbers = _CPU_NUMBERS if x.device.type == "cpu" else _GPU_NUMBERS
    rows = [t.expand(x.shape).reshape(-1, n) for t in (x, *others)]
    size = max(1, min(len(rows[0]), numbers // (n * n)))
    room = x.new_empty(size, n, n)  # new memory costs as much as the arithmetic
    for part in zip(*(r.split(size) for r in rows), strict=True):
        yield room[: len(part[0])], *part


def _score(room: Tensor, x: Tensor, spread: Tensor, slope: Tensor) -> Tensor:
    """slope x - spread of rows (r, N), in the room (r, N, N)."""
    return torch.addcmul(-spread.unsqueeze(1), slope.unsqueeze(2), x.unsqueeze(1), out=room)


def _exp(room: Tensor) -> Tensor:
    """Exponentials of numbers up to zero, in place.

    What is lost in rounding beside one is kept away from zero, where processors are slow.
    """
    return room.clamp_(min=2 * math.log(torch.finfo(room.dtype).eps)).exp_()


@torch.library.custom_op("setexp::neural_carry", mutates_args=())
def _carry(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor) -> list[Tensor]:
    """`carry`, and the logarithm of each position's sum of exponentials: twice (..., C, N)."""
    parts = []
    for room, a, b, s, w in _parts(x, spread, slope, weights):
        top = _score(room, a, b, s).amax(2, keepdim=True)
        total = _exp(room.sub_(top)).sum(2)
        parts.append(((w / total).unsqueeze(1) @ room, total.log_() + top.squeeze(2)))
    carried, level = (torch.cat(each).view(x.shape) for each in zip(*parts, strict=True))
    return [carried.masked_fill_(spread.isinf(), 0), level]


@torch.library.custom_op("setexp::neural_pull", mutates_args=())
def _pull(
    x: Tensor, spread: Tensor, slope: Tensor, level: Tensor, weights: Tensor, grad: Tensor
) -> list[Tensor]:
    """`pull`, multiplied out so that there are only products of the permutation with vectors."""
    absent = spread.isinf()
    grad = grad.masked_fill(absent, 0)
    parts = []
    for room, a, b, s, top, w, g in _parts(x, spread, slope, level, weights, grad):
        matrix = _exp(_score(room, a, b, s).sub_(top.unsqueeze(2)))
        pulled = (g.unsqueeze(1) @ matrix.mT).squeeze(1)
        by = torch.stack([w, w * pulled, w * s, w * pulled * s], 1) @ matrix
        one, two, three, four = by.unbind(1)
        parts.append((g * three - four, two - g * one, pulled))
    by_x, by_spread, pulled = (torch.cat(each).view(x.shape) for each in zip(*parts, strict=True))
    return [by_x.masked_fill_(absent, 0), by_spread.masked_fill_(absent, 0), pulled]


@torch.library.custom_op("setexp::sign_sum", mutates_args=())
def _sign_sum(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    sums = []
    for room, row, *both in _parts(x, a, b):
        torch.sub(row.unsqueeze(1), row.unsqueeze(2), out=room).sign_()
        sums.append(torch.stack(both, 1) @ room)
    return torch.cat(sums).movedim(1, 0).reshape(2, *x.shape)


@_carry.register_fake
def _(x: Tensor, *_: Tensor) -> list[Tensor]:
    return [x.new_empty(x.shape) for _ in range(2)]


@_pull.register_fake
def _(x: Tensor, *_: Tensor) -> list[Tensor]:
    return [x.new_empty(x.shape) for _ in range(3)]


@_sign_sum.register_fake
def _(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x.new_empty(2, *x.shape)


# Batching rules take one after the other, so that none depends on how many there are; each is worth
# a core's time.


def _each(
    info: Any, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]
) -> Iterator[list[Tensor]]:
    for i in range(info.batch_size):
        pairs = zip(tensors, in_dims, strict=True)
        yield [t if d is None else t.select(d, i) for t, d in pairs]


def _stack(results: list[list[Tensor]]) -> tuple[list[Tensor], list[int]]:
    stacked = [torch.stack(each) for each in zip(*results, strict=True)]
    return stacked, [0] * len(stacked)


@_carry.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[list[Tensor], list]:
    return _stack([_carry(*one) for one in _each(info, in_dims, tensors)])


@_pull.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[list[Tensor], list]:
    return _stack([_pull(*one) for one in _each(info, in_dims, tensors)])


@_sign_sum.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    return torch.stack([_sign_sum(*one) for one in _each(info, in_dims, tensors)]), 0


class Carry(torch.autograd.Function):
    """`carry` of x and spread (..., C, N), slope (..., 1, N) and weights, which may lack axes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        carried, level = _carry(x, spread, slope, weights)
        return carried, level

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, spread, slope, weights, level = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated
            gradients = pull(permutation(x, spread, slope), slope, weights, grad)
        else:
            gradients = tuple(_pull(x, spread, slope, level, weights, grad))
        extra = tuple(range(x.dim() - weights.dim()))
        pulled = gradients[2].sum(extra) if extra else gradients[2]
        return gradients[0], gradients[1], None, pulled


class SignSum(torch.autograd.Function):
    """Sums over k of sign(x_i - x_k) a_k, and of b_k, for all i: (..., C, N) to (2, ..., C, N)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _sign_sum(x, a, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        # linear in a and b, and antisymmetric; signs do not change with x
        one, other = SignSum.apply(ctx.saved_tensors[0], *grad)
        return None, -one, -other
