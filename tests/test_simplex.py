"""The projection onto the simplex against its definition; test_golden_idspn has more."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from setexp.ops.simplex import project_simplex

pytestmark = pytest.mark.usefixtures("float64")


def bisected(row: Tensor) -> Tensor:
    """max(row - t, 0) with the t at which it sums to 1, found by halving."""
    low, high = row.min() - 1, row.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (row - middle).relu().sum() > 1 else (low, middle)
    return (row - low).relu()


@given(st.integers(0, 2**16), st.integers(1, 9), st.sampled_from([0.0, 0.1, 1.0, 100.0]))
def test_projection_is_its_definition(seed: int, features: int, scale: float) -> None:
    x = torch.randn(3, features, generator=torch.Generator().manual_seed(seed)) * scale
    projected = project_simplex(x)
    assert (projected >= 0).all()
    assert_close(projected.sum(-1), torch.ones(3))
    for row, found in zip(x, projected, strict=True):
        assert_close(found, bisected(row), rtol=1e-10, atol=1e-10)
    assert_close(project_simplex(projected), projected)


def test_projection_by_hand() -> None:
    x = torch.tensor([[0.5, 0.5, 0.5, 0.5], [3, 1, 0, 0], [0.25, 0.75, 0, 0], [1, 1, -5, 0.5]])
    expected = [[0.25] * 4, [1, 0, 0, 0], [0.25, 0.75, 0, 0], [0.5, 0.5, 0, 0]]
    assert_close(project_simplex(x), torch.tensor(expected))


def test_derivatives() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    torch.autograd.gradcheck(project_simplex, x)
    torch.autograd.gradgradcheck(project_simplex, x)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck looks at it
@pytest.mark.parametrize("x", [torch.randn(2, 3, 4), torch.randn(2, 4, 3).mT], ids=["plain", "mT"])
def test_the_level_keeps_the_contract_of_operators(x: Tensor) -> None:
    torch.library.opcheck(torch.ops.setexp.simplex_level.default, (x.clone().requires_grad_(),))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_projection_under_vmap_is_a_loop(axis: int) -> None:
    x = torch.randn(3, 3, 3)
    mapped = torch.func.vmap(project_simplex, in_dims=axis)(x)
    assert torch.equal(mapped, torch.stack([project_simplex(part) for part in x.unbind(axis)]))
