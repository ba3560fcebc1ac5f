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

# Numbers of a permutation held at once: what a core's cache holds, a megabyte; what fills a GPU.
_CPU_NUMBERS = 1 << 18
_GPU_NUMBERS = 1 << 26


def permutation(x: Tensor, spread: Tensor, slope: Tensor) -> Tensor:
    """Softmax over elements of slope x - spread: (..., C, N), slope (..., 1, N) to (..., N, N, C).

    The first N are positions, the second elements. Features come last because they are the one axis
    that is never short, and sums and softmaxes over few contiguous numbers are slow.
    """
    score = torch.addcmul(-spread.mT.unsqueeze(-3), slope.mT.unsqueeze(-2), x.mT.unsqueeze(-3))
    return score.softmax(-2)


def to_elements(matrix: Tensor, weights: Tensor) -> Tensor:
    """Weights per position (..., C, N) to weights per element: the transposed permutation's."""
    return (matrix * weights.mT.unsqueeze(-2)).sum(-3).mT


def pullback(
    matrix: Tensor, slope: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, spread and weights of `to_elements`, of the gradient of its result."""
    weights, grad = weights.mT, grad.mT
    pulled = (matrix * grad.unsqueeze(-3)).sum(-2)
    share = (weights * pulled).unsqueeze(-2)
    change = matrix * torch.addcmul(-share, weights.unsqueeze(-2), grad.unsqueeze(-3))
    sloped = (change * slope.mT.unsqueeze(-2)).sum(-3)
    return sloped.mT, -change.sum(-3).mT, pulled.mT


def _parts(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of tensors, a few at a time, after room for their squares; x is (R, N, ...)."""
    n = x.shape[1]
    numbers = _CPU_NUMBERS if x.device.type == "cpu" else _GPU_NUMBERS
    size = max(1, min(len(x), numbers // (n * n)))
    room = x.new_empty(size, n, n)  # new memory costs as much as the arithmetic
    for part in zip(*(t.split(size) for t in (x, *others)), strict=True):
        yield room[: len(part[0])], *part


def _factors(x: Tensor, spread: Tensor, slope: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """(R, N, 3) and (R, 3, N), whose product is slope x - spread - top."""
    n, one = x.shape[-1], torch.ones_like(x)
    positions = torch.stack([slope.expand(x.shape), -one, -top], dim=-1)
    return positions.view(-1, n, 3), torch.stack([x, spread, one], dim=-2).view(-1, 3, n)


def _exp(room: Tensor, positions: Tensor, elements: Tensor) -> Tensor:
    """Exponentials of the product of `_factors`; none is above one but by rounding.

    What is lost in rounding beside one is kept above denormals, which processors handle slowly.
    """
    torch.bmm(positions, elements, out=room)
    return room.clamp_(min=2 * math.log(torch.finfo(room.dtype).eps), max=0).exp_()


@torch.library.custom_op("setexp::neural_to_elements", mutates_args=())
def _to_elements(
    x: Tensor, spread: Tensor, slope: Tensor, top: Tensor, weights: Tensor
) -> list[Tensor]:
    """`to_elements`, and the log of each position's sum of exponentials: twice (..., C, N)."""
    parts = []
    by_row = weights.expand(x.shape).reshape(-1, x.shape[-1])
    for room, a, b, w in _parts(*_factors(x, spread, slope, top), by_row):
        total = _exp(room, a, b).sum(2)
        parts.append(((w / total).unsqueeze(1) @ room, total))
    carried, total = (torch.cat(each).view(x.shape) for each in zip(*parts, strict=True))
    return [carried.masked_fill_(spread.isinf(), 0), total.log_() + top]


@torch.library.custom_op("setexp::neural_pullback", mutates_args=())
def _pullback(
    x: Tensor, spread: Tensor, slope: Tensor, level: Tensor, weights: Tensor, grad: Tensor
) -> list[Tensor]:
    """`pullback`, multiplied out so that all products of the permutation are with vectors."""
    absent = spread.isinf()
    grad, n = grad.masked_fill(absent, 0), x.shape[-1]
    weighted = torch.stack([weights.expand(x.shape), (weights * slope).expand(x.shape)], dim=-2)
    parts = []
    for room, a, b, w, g in _parts(
        *_factors(x, spread, slope, level), weighted.view(-1, 2, n), grad.reshape(-1, 1, n)
    ):
        matrix = _exp(room, a, b)
        pulled = g @ matrix.mT
        parts.append((pulled, torch.cat([w, w * pulled], 1) @ matrix))
    pulled, by = (torch.cat(each).unflatten(0, x.shape[:-1]) for each in zip(*parts, strict=True))
    one, two, three, four = by.unbind(-2)
    by_x, by_spread = grad * two - four, three - grad * one
    return [by_x.masked_fill_(absent, 0), by_spread.masked_fill_(absent, 0), pulled.squeeze(-2)]


@_to_elements.register_fake
def _(x: Tensor, *_: Tensor) -> list[Tensor]:
    return [x.new_empty(x.shape) for _ in range(2)]


@_pullback.register_fake
def _(x: Tensor, *_: Tensor) -> list[Tensor]:
    return [x.new_empty(x.shape) for _ in range(3)]


for _device in ("cpu", "cuda"):  # else products within become half precision, sums do not
    _to_elements.register_autocast(_device, torch.float32)
    _pullback.register_autocast(_device, torch.float32)


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


@_to_elements.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[list[Tensor], list]:
    return _stack([_to_elements(*one) for one in _each(info, in_dims, tensors)])


@_pullback.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[list[Tensor], list]:
    return _stack([_pullback(*one) for one in _each(info, in_dims, tensors)])


class ToElements(torch.autograd.Function):
    """`to_elements` of x, spread, top (..., C, N), slope (..., 1, N) and weights.

    Weights may lack axes. top: each position's largest slope x - spread.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, spread: Tensor, slope: Tensor, top: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        carried, level = _to_elements(x, spread, slope, top, weights)
        return carried, level

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        x, spread, slope, _, weights = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, spread, slope, weights, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, spread, slope, weights, level = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated
            gradients = pullback(permutation(x, spread, slope), slope, weights, grad)
        else:
            gradients = tuple(_pullback(x, spread, slope, level, weights, grad))
        extra = tuple(range(x.dim() - weights.dim()))
        pulled = gradients[2].sum(extra) if extra else gradients[2]
        return gradients[0], gradients[1], None, None, pulled


def runs(x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """First and last position of the numbers equal to that at each position of an ascending order.

    Shapes: x and order (..., C, N) to int64 (..., C, N), twice.
    """
    ordered = x.gather(-1, order)
    first = torch.searchsorted(ordered, ordered)
    return first, torch.searchsorted(ordered, ordered, right=True) - 1


class SignSum(torch.autograd.Function):
    """Sums over k of sign(x_i - x_k) a_k, and of b_k, for all i: (..., C, N) to (2, ..., C, N).

    x is given by its descending order and the `runs` of equal numbers in it, so that two running
    sums do for all pairs.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(order: Tensor, first: Tensor, last: Tensor, a: Tensor, b: Tensor) -> Tensor:
        order, first, last = (t.expand(2, *t.shape) for t in (order, first, last))
        ordered = torch.stack([a, b]).gather(-1, order)
        running = ordered.cumsum(-1)
        above, not_below = (running - ordered).gather(-1, first), running.gather(-1, last)
        return ordered.scatter(-1, order, running[..., -1:] - not_below - above)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor, Tensor]:
        # linear in a and b, and antisymmetric; signs do not change with x
        one, other = SignSum.apply(*ctx.saved_tensors, *grad)
        return None, None, None, -one, -other
