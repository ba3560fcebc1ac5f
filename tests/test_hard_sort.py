"""Hard sorting, and what is carried by it, against plain sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from setexp.ops import hard_sort
from setexp.ops.hard_sort import in_order, sort_order, to_elements

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**16)
counts = st.integers(1, 6)
sizes = st.sampled_from([1, 2, 5, hard_sort._COMPARED, hard_sort._COMPARED + 1, 70])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_sorted(x: Tensor) -> None:
    for descending in (False, True):
        found = sort_order(x, descending)
        assert found.dtype == torch.int64
        assert found.is_contiguous()
        assert torch.equal(found, x.sort(dim=-2, descending=descending, stable=True).indices.mT)


@pytest.fixture(params=["compared", "sorted"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(hard_sort, "_COMPARED", 100 if request.param == "compared" else 0)
    monkeypatch.setattr(hard_sort, "_COMPARED_NUMEL", 0)
    return request.param


@given(seeds, counts, sizes, counts, dtypes, st.booleans())
def test_order_is_that_of_a_stable_sort(
    seed: int, b: int, n: int, c: int, dtype: torch.dtype, ties: bool
) -> None:
    x = normal(seed, b, n, c).to(dtype)
    assert_sorted(x.round() if ties else x)


@pytest.mark.parametrize("n", [2, 3, 8, 64, 342])
@pytest.mark.parametrize("ties", [False, True])
def test_many_numbers_are_ordered_alike(way: str, n: int, ties: bool) -> None:
    x = torch.randn(70, n, 40, dtype=torch.float32)
    assert_sorted(x.round() if ties else x)


def test_order_of_any_layout(way: str) -> None:
    x = torch.randn(3, 4, 4)
    for layout in (x.mT, x[:, ::2, 1::2], x[:1].expand(3, 4, 4), x[0], x[:0], x[:, :, :0]):
        assert_sorted(layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_of_infinities_and_both_zeros(way: str, dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, -torch.inf, 1.0, torch.inf, -0.0, -1.0, 0.0], dtype=dtype)
    assert_sorted(x.repeat(5).unsqueeze(-1))


@given(seeds, counts, st.integers(1, 5), counts, st.booleans())
def test_present_numbers_come_in_order_before_padding(
    seed: int, b: int, n: int, c: int, descending: bool
) -> None:
    x = normal(seed, b, n, c)
    mask = torch.randint(2, (b, n), generator=torch.Generator().manual_seed(seed)).to(x.dtype)
    found = in_order(x, mask, descending=descending)
    for rows, there, features in zip(x, mask > 0, found, strict=True):
        for numbers, ordered in zip(rows.T, features, strict=True):
            present = sorted(numbers[there].tolist(), reverse=descending)
            assert ordered[: len(present)].tolist() == present
            assert sorted(ordered.tolist()) == sorted(numbers.tolist())


def test_derivatives_of_numbers_in_order() -> None:
    x, mask = torch.randn(2, 4, 3, requires_grad=True), torch.tensor([[1.0, 1, 0, 1], [1, 1, 1, 0]])
    torch.autograd.gradcheck(lambda x: in_order(x, mask, descending=True), x)
    torch.autograd.gradgradcheck(lambda x: in_order(x, mask, descending=True).square(), x)


@given(seeds, counts, st.integers(1, 5), counts, st.booleans())
def test_weights_are_carried_to_elements(
    seed: int, b: int, n: int, c: int, descending: bool
) -> None:
    x, weights = normal(seed, b, n, c), normal(seed + 1, c, n)
    expected = torch.zeros_like(x)
    for row, column in ((row, column) for row in range(b) for column in range(c)):
        numbers = x[row, :, column].tolist()
        order = sorted(range(n), key=numbers.__getitem__, reverse=descending)
        expected[row, order, column] = weights[column]
    assert torch.equal(to_elements(x, weights, descending=descending), expected)


def test_derivatives_with_respect_to_the_weights() -> None:
    x, weights = torch.randn(2, 4, 3), torch.randn(3, 4, requires_grad=True)
    torch.autograd.gradcheck(lambda w: to_elements(x, w, descending=True), weights)
    torch.autograd.gradgradcheck(lambda w: to_elements(x, w.square(), descending=True), weights)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck looks at it
def test_the_operator_keeps_the_contract_of_operators() -> None:
    for x in (torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5).mT, torch.randn(9, 8, 300)):
        torch.library.opcheck(torch.ops.setexp.sort_order.default, (x, True))
    x = torch.randn(3, 4, 5, requires_grad=True)
    order = sort_order(x.detach(), True)
    torch.library.opcheck(torch.ops.setexp.position_sums.default, (x, order))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_order_under_vmap_is_a_loop(axis: int) -> None:
    x = torch.randn(3, 3, 4, 5)
    mapped = torch.func.vmap(sort_order, in_dims=(axis, None))(x, True)
    assert torch.equal(mapped, torch.stack([sort_order(part, True) for part in x.unbind(axis)]))


@pytest.mark.parametrize("axes", [(0, 0), (1, 1), (0, None), (None, 0)])
def test_what_uses_the_order_under_vmap_is_a_loop(axes: tuple[int | None, int | None]) -> None:
    """As in a stack of seeds."""
    x = torch.randn(3, 3, 4, 5) if axes[0] is not None else torch.randn(3, 4, 5)
    second = {None: (5, 4), 0: (3, 5, 4), 1: (5, 3, 4)}[axes[1]]
    weights = torch.randn(second)

    def value(x: Tensor, weights: Tensor) -> Tensor:
        mask = (weights[:3].mean(0) > 0).to(x.dtype).expand(x.shape[:2])
        ordered = in_order(x, mask, descending=False)
        return to_elements(x, weights, descending=True) + ordered.mT

    mapped = torch.func.vmap(value, in_dims=axes)(x, weights)
    for i, found in enumerate(mapped):
        one = x if axes[0] is None else x.select(axes[0], i)
        own = weights if axes[1] is None else weights.select(axes[1], i)
        assert torch.equal(found, value(one, own))


@pytest.mark.parametrize("axes", [(0, 0), (1, 1), (None, 0)])
def test_the_gradient_of_weights_under_vmap_is_a_loop(axes: tuple[int | None, int]) -> None:
    x = torch.randn(3, 3, 4, 5) if axes[0] is not None else torch.randn(3, 4, 5)
    weights = torch.randn((3, 5, 4) if axes[1] == 0 else (5, 3, 4))

    @torch.func.grad
    def slope(weights: Tensor, x: Tensor) -> Tensor:
        return (to_elements(x, weights, descending=True) * x).sum()

    @torch.func.grad
    def sum_of_weights(weights: Tensor, x: Tensor) -> Tensor:
        return to_elements(x, weights, descending=True).sum()

    for gradient in (slope, sum_of_weights):
        mapped = torch.func.vmap(gradient, in_dims=axes[::-1])(weights, x)
        for i, found in enumerate(mapped):
            one = x if axes[0] is None else x.select(axes[0], i)
            assert torch.equal(found, gradient(weights.select(axes[1], i), one))
