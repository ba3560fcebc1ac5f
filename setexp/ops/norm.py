"""Batch normalisation of rows of which some are padding, alike for one seed and for a stack.

Rows are (S, N, C) with S = 1 of one seed; parameters may have the axis S or not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from setexp.ops.layers import Linear

_EPS, _MOMENTUM = 1e-5, 0.1  # PyTorch's


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy) with PyTorch's constants.

    Args:
        features: C.

    Shapes: rows (S, N, C) and their weights (S, N, 1), 1 / n of n rows and 0 of padding, to
    (S, N, C).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        scale, shift = self.parts(self.weight, self.bias)
        if self.training:
            # sums, not products with the weights: those would round by the number of seeds
            mean = (x * weight).sum(1, keepdim=True)
            variance = ((x - mean).square() * weight).sum(1, keepdim=True)
            self.note(mean, variance, weight)
        else:
            mean, variance = self.parts(self.running_mean, self.running_var)
        return torch.addcmul(shift, x - mean, torch.rsqrt(variance + _EPS) * scale)

    def parts(self, *tensors: Tensor) -> list[Tensor]:
        """Parameters or buffers as (S, 1, C)."""
        return [t.view(-1, 1, self.features) for t in tensors]

    @torch.no_grad()
    def note(self, mean: Tensor, variance: Tensor, weight: Tensor) -> None:
        """Move the running statistics towards a batch's, (S, 1, C)."""
        # n / (n - 1) of it; a lone row has none
        unbiased = variance / (1 - weight.amax(1, keepdim=True)).clamp(min=0.5)
        news = (mean, unbiased)
        for old, new in zip(self.parts(self.running_mean, self.running_var), news, strict=True):
            old.mul_(1 - _MOMENTUM).add_(new, alpha=_MOMENTUM)


class _Layer(torch.autograd.Function):
    """Linear, ReLU and batch norm of a batch, with half the memory and passes of one by one.

    No gradient may arrive at padding. Shapes: x (S, N, D), matrix (S, C, D), bias, scale and shift
    (S, 1, C), weight (S, N, 1) to (S, N, C), mean and variance (S, 1, C).
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
        z = torch.bmm(x, matrix.mT).add_(bias).relu_()
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
        by_matrix = torch.bmm(by.mT, x)
        return by_x, by_matrix, by.sum(1, keepdim=True), by_scale, by_shift, None


class NormedLayer(nn.Module):
    """Linear, ReLU, batch norm.

    Args:
        features, width: of a row before and after.

    Shapes: rows (S, N, features) and their weights as `BatchNorm` has them to (S, N, width).
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = Linear(features, width), BatchNorm(width)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.training:
            return self.norm(torch.relu(self.linear(x)), weight)
        matrix = self.linear.weight.view(-1, *self.linear.weight.shape[-2:])
        parts = self.norm.parts(self.linear.bias, self.norm.weight, self.norm.bias)
        y, mean, variance = _Layer.apply(x, matrix, *parts, weight)
        self.norm.note(mean, variance, weight)
        return y
