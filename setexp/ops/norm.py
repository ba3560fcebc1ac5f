"""Batch normalisation of rows of which some are padding, alike for one seed and for a stack.

Rows are (S, N, C) with S = 1 of one seed; parameters may have the axis S or not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from setexp.ops.layers import Linear

_EPS, _MOMENTUM = 1e-5, 0.1  # PyTorch's


class Rows(NamedTuple):
    """Which rows count.

    Args:
        weight: 1 / n of n rows, 0 of padding, (S, N, 1).
        unbiased: n / (n - 1), 2 where there is but one, (S, 1, 1).
    """

    weight: Tensor
    unbiased: Tensor


def rows(count: Tensor, length: int, dtype: torch.dtype) -> Rows:
    """The first `count` (S, 1) of `length` rows."""
    present = torch.arange(length, device=count.device) < count
    return Rows(
        (present.to(dtype) / count).unsqueeze(-1),
        (count.to(dtype) / (count - 1).clamp(min=0.5)).unsqueeze(-1),
    )


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy) with PyTorch's constants.

    Args:
        features: C.

    Shapes: (S, N, C) to the same.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.running_mean = nn.Buffer(torch.zeros(features))
        self.running_var = nn.Buffer(torch.ones(features))

    def forward(self, x: Tensor, given: Rows) -> Tensor:
        if self.training:
            # sums, not products with the weights: those would round by the number of seeds
            mean = (x * given.weight).sum(1, keepdim=True)
            variance = ((x - mean).square() * given.weight).sum(1, keepdim=True)
            self.note(mean.detach(), variance.detach(), given)
        else:
            mean, variance = _each(x, self.running_mean, self.running_var)
        scale, shift = _each(x, self.weight, self.bias)
        return torch.addcmul(shift, x - mean, torch.rsqrt(variance + _EPS) * scale)

    def note(self, mean: Tensor, variance: Tensor, given: Rows) -> None:
        """Move the running statistics towards a batch's, (S, 1, C)."""
        self.running_mean.lerp_(mean.view_as(self.running_mean), _MOMENTUM)
        variance = variance * given.unbiased
        self.running_var.lerp_(variance.view_as(self.running_var), _MOMENTUM)


def _each(x: Tensor, *parameters: Tensor) -> list[Tensor]:
    """Parameters of the features of x as (S, 1, C)."""
    return [p.view(-1, 1, x.shape[-1]) for p in parameters]


class _Layer(torch.autograd.Function):
    """Linear, ReLU and batch norm of a batch, with half the memory and passes of one by one.

    No gradient may arrive at padding. Shapes: x (S, N, D), parameters as modules have them, weight
    (S, N, 1) to (S, N, C), mean and variance (S, 1, C).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor,
        bias: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.shapes = matrix.shape, bias.shape
        matrix = matrix.view(-1, *matrix.shape[-2:])
        z = torch.bmm(x, matrix.mT)
        bias, scale, shift = _each(z, bias, scale, shift)
        z.add_(bias).relu_()
        y = z * weight
        mean = y.sum(1, keepdim=True)
        # the mean of squares less the squared mean: one pass, where centring first takes two
        variance = (y.mul_(z).sum(1, keepdim=True) - mean.square()).clamp_(min=0)
        inverse = torch.rsqrt(variance + _EPS)
        slope = inverse * scale
        torch.addcmul(shift - mean * slope, z, slope, out=y)
        ctx.save_for_backward(x, matrix, z, mean, inverse, slope, weight)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, z, mean, inverse, slope, weight = ctx.saved_tensors
        by_shift, by = grad.sum(1, keepdim=True), grad * z
        by_scale = (by.sum(1, keepdim=True) - mean * by_shift) * inverse
        # slope * (grad - weight * (by_shift + unit * by_scale)), unit being normalised z
        per_z = -slope * inverse * by_scale
        torch.addcmul(-slope * by_shift - per_z * mean, z, per_z, out=by)
        by.mul_(weight).addcmul_(grad, slope)
        torch.ops.aten.threshold_backward(by, z, 0, grad_input=by)
        by_x = torch.bmm(by, matrix) if ctx.needs_input_grad[0] else None
        by_matrix = torch.bmm(by.mT, x).view(ctx.shapes[0])
        of_features = (by.sum(1), by_scale, by_shift)
        return by_x, by_matrix, *(g.view(ctx.shapes[1]) for g in of_features), None


class NormedLayer(nn.Module):
    """Linear, ReLU, batch norm.

    Args:
        features, width: of a row before and after.

    Shapes: (S, N, features) to (S, N, width).
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = Linear(features, width), BatchNorm(width)

    def forward(self, x: Tensor, given: Rows) -> Tensor:
        linear, norm = self.linear, self.norm
        if not self.training:
            return norm(torch.relu(linear(x)), given)
        y, mean, variance = _Layer.apply(
            x, linear.weight, linear.bias, norm.weight, norm.bias, given.weight
        )
        norm.note(mean, variance, given)
        return y
