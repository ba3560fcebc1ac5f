"""Large matrix products on CPUs.

`torch.matmul` takes MKL's, which on processors of AMD use half of what AVX-512 has. PyTorch comes
with oneDNN as well, which uses all of it, but calls it for half precision alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from setexp.ops.batching import batch_first

# Multiplications from which oneDNN gains more than a call of it costs, where no axis is shorter
# than so much: it is slow to transpose long rows of few numbers.
_LARGE, _WIDE = 1 << 24, 32
_HAS_ONEDNN = torch.backends.mkldnn.is_available()


def is_large(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` is the faster one for x (S, M, K) and weight (S, N, K)."""
    (rows, wide), narrow = x.shape[-2:], weight.shape[-2]
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and rows * wide * narrow >= _LARGE
        and min(rows, wide, narrow) >= _WIDE
        and _HAS_ONEDNN
    )


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """The same where it is about to be multiplied.

    Autocast has half precision in mind, and compiled code gets products by
    `training.large_products`.
    """
    at_hand = not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
    return at_hand and is_large(x, weight)


class Product(torch.autograd.Function):
    """`product`, with its gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return product(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        return (
            Product.apply(grad, weight.mT) if ctx.needs_input_grad[0] else None,
            Product.apply(grad.mT, x.mT) if ctx.needs_input_grad[1] else None,
        )


@torch.library.custom_op("setexp::product", mutates_args=())
def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of each of a stack, in single precision on a CPU.

    Shapes: (S, M, K) and (S, N, K) to (S, M, N).
    """
    products = [
        # what PyTorch's compiler calls for linear layers; there is no public way to it
        torch.ops.mkldnn._linear_pointwise(_packed(rows), _packed(w), None, "none", [], "")
        for rows, w in zip(x, weight, strict=True)
    ]
    return torch.stack(products) if len(products) > 1 else products[0].unsqueeze(0)


def _packed(matrix: Tensor) -> Tensor:
    """Without gaps between its rows or columns, with which oneDNN is a thousand times slower."""
    packed = matrix.is_contiguous() or matrix.mT.is_contiguous()
    return matrix if packed else matrix.contiguous()


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[-2])


@product.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, int | None], x: Tensor, weight: Tensor
) -> tuple[Tensor, int]:
    x, weight = batch_first(info, in_dims, (x, weight))
    y = product(x.flatten(0, 1), weight.flatten(0, 1))
    return y.unflatten(0, x.shape[:2]), 0
