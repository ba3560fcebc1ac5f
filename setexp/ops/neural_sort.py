"""NeuralSort's permutation times a vector, without holding the permutation.

A permutation has N x N numbers for each feature of each set; here the worth of some sets is made,
used and forgotten at a time, and made again for the gradient. On a CPU they stay in the cache,
which is worth more than the repeated exponentials; memory grows with N instead of its square.

Layout (..., N, C) throughout: features are the one axis that is never short, and sums and softmaxes
over few contiguous numbers are slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Numbers of a permutation held at once: half a megabyte is in a core's cache; a GPU's fill.
_CPU_NUMBERS = 1 << 17
_GPU_NUMBERS = 1 << 26


def permutation(x: Tensor, spread: Tensor, slope: Tensor) -> Tensor:
    """Softmax over elements of slope x - spread: (..., N, C), slope (..., N, 1) to (..., N, N, C).

    The first N are positions, the second elements.
    """
    score = torch.addcmul(-spread.unsqueeze(-3), slope.unsqueeze(-2), x.unsqueeze(-3))
    return score.softmax(-2)


def carry(matrix: Tensor, weights: Tensor) -> Tensor:
    """Weights per position to weights per element: the transposed permutation times (..., N, C)."""
    return (matrix * weights.unsqueeze(-2)).sum(-3)


def pull(
    matrix: Tensor, slope: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, spread and weights of `carry`, of the gradient of its result."""
    pulled = (matrix * grad.unsqueeze(-3)).sum(-2)
    share = (weights * pulled).unsqueeze(-2)
    change = matrix * torch.addcmul(-share, weights.unsqueeze(-2), grad.unsqueeze(-3))
    return (change * slope.unsqueeze(-2)).sum(-3), -change.sum(-3), pulled


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors (R, N, ...) cut along R, so that each part's permutations fit."""
    rows, n, features = tensors[0].shape
    numbers = _CPU_NUMBERS if tensors[0].device.type == "cpu" else _GPU_NUMBERS
    size = max(1, numbers // (n * n * features))
    return zip(*(t.split(size) for t in tensors), strict=True) if rows else iter(())


def _flat(x: Tensor, *others: Tensor) -> list[Tensor]:
    """All tensors with the leading axes of x, as one: (R, N, C) and (R, N, C or 1)."""
    lead = x.shape[:-2]
    return [t.expand(*lead, *t.shape[-2:]).reshape(-1, *t.shape[-2:]) for t in (x, *others)]


@torch.library.custom_op("setexp::neural_carry", mutates_args=())
def _carry(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor) -> Tensor:
    parts = _parts(*_flat(x, spread, slope, weights))
    carried = [carry(permutation(a, b, s), w) for a, b, s, w in parts]
    return torch.cat(carried).view(x.shape) if carried else torch.zeros_like(x)


@torch.library.custom_op("setexp::neural_pull", mutates_args=())
def _pull(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor, grad: Tensor) -> list[Tensor]:
    parts = _parts(*_flat(x, spread, slope, weights, grad))
    pulled = [pull(permutation(a, b, s), s, w, g) for a, b, s, w, g in parts]
    if not pulled:
        return [torch.zeros_like(x) for _ in range(3)]
    return [torch.cat(each).view(x.shape) for each in zip(*pulled, strict=True)]


@torch.library.custom_op("setexp::sign_sum", mutates_args=())
def _sign_sum(x: Tensor, v: Tensor) -> Tensor:
    parts = _parts(*_flat(x, v))
    sums = [
        ((a.unsqueeze(-2) - a.unsqueeze(-3)).sign_() * b.unsqueeze(-3)).sum(-2) for a, b in parts
    ]
    return torch.cat(sums).view(x.shape) if sums else torch.zeros_like(x)


@_carry.register_fake
def _(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@_pull.register_fake
def _(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor, grad: Tensor) -> list[Tensor]:
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(3)]


@_sign_sum.register_fake
def _(x: Tensor, v: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _first(info: Any, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The mapped axis first, on all tensors, with equally many axes."""
    axes = max(t.dim() - (d is not None) for t, d in zip(tensors, in_dims, strict=True))
    out = []
    for tensor, dim in zip(tensors, in_dims, strict=True):
        t = tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0)
        t = t.reshape(t.shape[0], *[1] * (axes + 1 - t.dim()), *t.shape[1:])
        out.append(t.expand(info.batch_size, *t.shape[1:]))
    return out


@_carry.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    return _carry(*_first(info, in_dims, tensors)), 0


@_pull.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[list[Tensor], list]:
    return _pull(*_first(info, in_dims, tensors)), [0, 0, 0]


@_sign_sum.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Tensor, int]:
    return _sign_sum(*_first(info, in_dims, tensors)), 0


class Carry(torch.autograd.Function):
    """`carry` of x and spread (..., N, C), slope (..., N, 1) and weights, which may lack axes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, spread: Tensor, slope: Tensor, weights: Tensor) -> Tensor:
        return _carry(x, spread, slope, weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, spread, slope, weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated
            gradients = pull(permutation(x, spread, slope), slope, weights, grad)
        else:
            gradients = tuple(_pull(x, spread, slope, weights, grad))
        extra = tuple(range(x.dim() - weights.dim()))
        pulled = gradients[2].sum(extra) if extra else gradients[2]
        return gradients[0], gradients[1], None, pulled


class SignSum(torch.autograd.Function):
    """Sum over k of sign(x_i - x_k) v_k for all i: twice (..., N, C) to (..., N, C)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, v: Tensor) -> Tensor:
        return _sign_sum(x, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        # linear in v, and antisymmetric; signs do not change with x
        return None, -SignSum.apply(ctx.saved_tensors[0], grad)
