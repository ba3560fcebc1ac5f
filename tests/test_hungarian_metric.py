"""The Hungarian loss is a metric of multisets if its cost is one of elements (iDSPN, B.2)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_idspn import whole
from torch import Tensor

from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss
from setexp.losses.hungarian import HungarianLoss
from setexp.ops.costs import Cost

pytestmark = pytest.mark.usefixtures("float64")


def distance(x: Tensor, y: Tensor, cost: Cost = Cost.l2) -> float:
    """Of two multisets (N, D); the mean over elements, which scales the paper's sum."""
    n = len(x)
    loss = HungarianLoss(cost=cost, steps=Steps.last, mask_channel=False, set_size=n, max_size=n)
    return loss(whole(x.reshape(1, 1, n, -1)), whole(y.reshape(1, n, -1))).item()


def multisets(count: int) -> st.SearchStrategy[list[Tensor]]:
    """Multisets of one size in the plane, on a coarse grid, so that elements repeat."""
    element = st.tuples(st.integers(-2, 2), st.integers(-2, 2))

    def of_size(n: int) -> st.SearchStrategy[list[Tensor]]:
        one = st.lists(element, min_size=n, max_size=n)
        return st.lists(one.map(lambda e: torch.tensor(e).double()), min_size=count, max_size=count)

    return st.integers(1, 5).flatmap(of_size)


def counted(x: Tensor) -> list[list[float]]:
    """A multiset without order."""
    return sorted(x.tolist())


@given(multisets(1), st.randoms(use_true_random=False))
def test_a_multiset_in_another_order_is_at_distance_zero(sets: list[Tensor], random) -> None:
    (x,) = sets
    order = list(range(len(x)))
    random.shuffle(order)
    assert distance(x, x[order]) == 0


@given(multisets(2))
def test_only_equal_multisets_are_at_distance_zero(sets: list[Tensor]) -> None:
    x, y = sets
    assert (distance(x, y) == 0) == (counted(x) == counted(y))


def test_how_often_an_element_occurs_matters() -> None:
    """Unlike for the Chamfer loss, which sees sets."""
    x, y = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    assert distance(x, y) == pytest.approx(1 / 3)
    chamfer = ChamferLoss(cost=Cost.l2, steps=Steps.last, mask_channel=False)
    assert chamfer(whole(x.reshape(1, 1, 3, 1)), whole(y.reshape(1, 3, 1))).item() == 0


@given(multisets(2))
def test_symmetry(sets: list[Tensor]) -> None:
    x, y = sets
    assert distance(x, y) == pytest.approx(distance(y, x), abs=1e-12)


@given(multisets(3))
def test_triangle_inequality(sets: list[Tensor]) -> None:
    x, y, z = sets
    assert distance(x, y) <= distance(x, z) + distance(z, y) + 1e-12


@pytest.mark.parametrize(
    ("cost", "straight", "half"),
    [(Cost.l2, 2.0, 1.0), (Cost.squared, 4.0, 1.0), (Cost.huber, 1.5, 0.5)],
)
def test_squared_and_huber_costs_break_the_triangle_inequality(
    cost: Cost, straight: float, half: float
) -> None:
    """From 0 to 2 by way of 1: two short steps cost less than the whole, except with distances."""
    zero, one, two = (torch.tensor([[value], [9.0]]) for value in (0.0, 1.0, 2.0))
    assert distance(zero, two, cost) == straight / 2
    assert distance(zero, one, cost) == distance(one, two, cost) == half / 2
    assert (straight <= 2 * half) == (cost is Cost.l2)
