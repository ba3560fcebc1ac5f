"""The projection onto the simplex against its definition; test_golden_idspn has more."""

from __future__ import annotations

import itertools
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor
from torch.testing import assert_close

from setexp.ops.simplex import project_simplex

pytestmark = pytest.mark.usefixtures("float64")

numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3))  # integers tie
points = st.lists(numbers, min_size=1, max_size=6).map(torch.tensor)


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


def nearest(x: Tensor) -> Tensor:
    """By trying all supports: the nearest point of the plane through the corners of each."""
    best, least = x, torch.inf
    for size in range(1, len(x) + 1):
        for support in itertools.combinations(range(len(x)), size):
            p, index = torch.zeros_like(x), list(support)
            p[index] = x[index] - (x[index].sum() - 1) / size
            squares = (x - p).square().sum().item()
            if (p >= 0).all() and squares < least:
                best, least = p, squares
    return best


@given(points)
def test_it_is_the_nearest_point(x: Tensor) -> None:
    p = project_simplex(x)
    assert_close(p, nearest(x), rtol=0, atol=1e-9)
    # seen from x, no corner lies beyond it: true of the nearest point alone
    beyond = (torch.eye(len(x)) - p) @ (x - p)
    assert beyond.max() <= 1e-9 * (1 + x.abs().max() ** 2)


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=4).map(torch.tensor))
def test_it_is_what_a_quadratic_program_finds(x: Tensor) -> None:
    point = x.numpy()
    found = minimize(
        lambda p: ((p - point) ** 2).sum(),
        torch.full_like(x, 1 / len(x)).numpy(),
        jac=lambda p: 2 * (p - point),
        bounds=[(0, 1)] * len(x),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert found.success
    assert_close(project_simplex(x), torch.from_numpy(found.x), rtol=0, atol=1e-5)


@given(points, st.floats(-100, 100))
def test_a_constant_added_changes_nothing(x: Tensor, constant: float) -> None:
    assert_close(project_simplex(x + constant), project_simplex(x), rtol=0, atol=1e-10)


@given(points, st.randoms(use_true_random=False))
def test_coordinates_keep_their_order_and_follow_it(x: Tensor, random: Random) -> None:
    p, order = project_simplex(x), list(range(len(x)))
    assert (p[x.argsort()].diff() >= -1e-12).all()
    random.shuffle(order)
    assert_close(project_simplex(x[order]), p[order], rtol=0, atol=1e-12)


@given(points)
def test_two_points_never_move_apart(x: Tensor) -> None:
    y = x.flip(0) / 2
    moved = (project_simplex(x) - project_simplex(y)).norm()
    assert moved <= (x - y).norm() + 1e-9


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 1, 3, 4), (0, 4)])
def test_any_number_of_axes_in_front(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    projected = project_simplex(x)
    assert projected.shape == shape
    for row, expected in zip(x.reshape(-1, 4), projected.reshape(-1, 4), strict=True):
        assert_close(project_simplex(row), expected)


def test_the_gradient_stays_within_the_face() -> None:
    """The Jacobian is the identity less the mean over positive coordinates, zero elsewhere."""
    x = torch.tensor([1.0, 0.5, -9.0])
    jacobian = torch.autograd.functional.jacobian(project_simplex, x)
    assert_close(jacobian, torch.tensor([[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_derivatives() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    torch.autograd.gradcheck(project_simplex, x)
    torch.autograd.gradgradcheck(project_simplex, x)


def test_half_precision_is_rounded_once() -> None:
    x = torch.randn(2, 3, 4).bfloat16()
    level = torch.ops.setexp.simplex_level(x)
    assert torch.equal(level, torch.ops.setexp.simplex_level(x.float()).bfloat16())
    assert project_simplex(x).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck looks at it
@pytest.mark.parametrize("x", [torch.randn(2, 3, 4), torch.randn(2, 4, 3).mT], ids=["plain", "mT"])
def test_the_level_keeps_the_contract_of_operators(x: Tensor) -> None:
    torch.library.opcheck(torch.ops.setexp.simplex_level.default, (x.clone().requires_grad_(),))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_projection_under_vmap_is_a_loop(axis: int) -> None:
    x = torch.randn(3, 3, 3)
    mapped = torch.func.vmap(project_simplex, in_dims=axis)(x)
    assert torch.equal(mapped, torch.stack([project_simplex(part) for part in x.unbind(axis)]))
