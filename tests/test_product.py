"""Large products on a CPU by oneDNN: what they are, their gradients, and where they are taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from setexp.ops.layers import project
from setexp.ops.product import Product, product
from setexp.training.compiling import compiled

LARGE, SMALL = (512, 256, 128), (64, 16, 16)  # rows, columns in and out
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")


def pair(rows: int, wide: int, narrow: int, *stack: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*stack, rows, wide), torch.randn(*stack, narrow, wide)


def exact(x: Tensor, weight: Tensor) -> Tensor:
    return (x.double() @ weight.double().mT).float()


def products_in(function: Callable[[], object]) -> int:
    """How many products of `product` it takes."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        function()
    return sum(event.name == "mkldnn::_linear_pointwise" for event in record.events())


@pytest.mark.parametrize("stack", [1, 3])
def test_a_product_is_one_however_its_numbers_lie(stack: int) -> None:
    x, weight = pair(40, 24, 20, stack)
    expanded = torch.randn(stack, 1, 24).expand(stack, 40, 24)
    constant = torch.randn(1, 1, 1).expand(stack, 20, 24)
    sliced = torch.randn(stack, 80, 48)[:, ::2, 5:29]
    turned = torch.randn(stack, 24, 40).mT
    for rows in (x, expanded, sliced, turned):
        for w in (weight, constant, torch.randn(stack, 24, 20).mT):
            assert_close(product(rows, w), exact(rows, w), rtol=1e-4, atol=1e-5)


def test_gradients_and_those_of_inner_gradients() -> None:
    x, weight = pair(6, 5, 4, 1)

    def gradients(multiply: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> list[Tensor]:
        rows, w = x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()

        def objective(given: Tensor) -> Tensor:
            return multiply(given, w).tanh().square().sum()

        step = torch.func.grad(objective)(rows)  # as an inner step of DSPN
        ends = objective(rows) + (step**3).sum()
        return [step, *torch.autograd.grad(ends, (rows, w))]

    expected = gradients(lambda rows, w: torch.bmm(rows, w.mT), torch.float64)
    for ours, theirs in zip(gradients(Product.apply, torch.float32), expected, strict=True):
        assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


def test_seeds_round_alike_alone_and_stacked() -> None:
    x, weight = pair(*LARGE, 3)

    def both(rows: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.grad(lambda v: project(rows, v).tanh().sum())(w), project(rows, w)

    mapped = torch.func.vmap(both)(x, weight)
    assert products_in(lambda: torch.func.vmap(both)(x, weight)) > 0
    for seed in range(3):
        for stacked, alone in zip(mapped, both(x[seed], weight[seed]), strict=True):
            assert torch.equal(stacked[seed], alone)
    assert torch.equal(project(x, weight), mapped[1])
    shared = torch.func.vmap(project, in_dims=(0, None))(x, weight[0])
    assert torch.equal(shared[2], project(x[2], weight[0]))


def test_it_is_taken_where_it_is_faster_and_keeps_precision() -> None:
    large, small = pair(*LARGE), pair(*SMALL)
    assert products_in(lambda: project(*large)) == 1
    assert products_in(lambda: project(*small)) == 0
    assert products_in(lambda: project(*(t.double() for t in large))) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products_in(lambda: project(*large)) == 0
        assert project(*large).dtype == torch.bfloat16


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles for a CPU by a C++ compiler")
def test_compiled_steps_take_it_forwards_and_backwards() -> None:
    torch.compiler.reset()  # forget the graphs of other tests
    x, weight = pair(*LARGE)
    weight.requires_grad_()
    step = compiled(lambda rows, w: project(rows, w).relu().square().mean())

    def gradient() -> Tensor:
        return torch.autograd.grad(step(x, weight), weight)[0]

    by_compiler = gradient()
    assert products_in(gradient) == 2
    plain = (x @ weight.mT).relu().square().mean()
    assert_close(by_compiler, torch.autograd.grad(plain, weight)[0], rtol=1e-4, atol=1e-6)
