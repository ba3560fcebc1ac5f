"""Intersection over union of boxes, with and without the authors' off-by-one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from setexp.ops.boxes import pairwise_iou

# Eighths are exact, so that edges coincide often and results can be compared exactly.
coordinate = st.integers(-8, 16).map(lambda n: n / 8)
any_box = st.tuples(*[coordinate] * 4)
proper_box = st.tuples(coordinate, coordinate, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: (b[0], b[1], b[0] + b[2] / 8, b[1] + b[3] / 8)
)
both = pytest.mark.parametrize("plus_one", [False, True])


def iou(a: tuple[float, ...], b: tuple[float, ...], plus_one: bool = False) -> float:
    one = (torch.tensor([c], dtype=torch.float64) for c in (a, b))
    return float(pairwise_iou(*one, plus_one=plus_one))


@pytest.mark.parametrize(
    ("plus_one", "name"), [(False, "first_image_iou"), (True, "first_image_iou_plus_one")]
)
def test_equals_the_released_evaluators(
    golden: Callable[[str], dict[str, Tensor]], plus_one: bool, name: str
) -> None:
    data = golden("ap_boxes")
    present = data["target"][0][data["mask"][0] == 1]
    table = pairwise_iou(data["prediction"][0], present, plus_one=plus_one)
    torch.testing.assert_close(table, data[name], rtol=0, atol=1e-12)


def test_ratios_worked_by_hand() -> None:
    a, b = (0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)
    assert iou(a, b) == pytest.approx((1 / 16) / (1 / 2 - 1 / 16))
    # Sides 1.5, common sides 1.25.
    assert iou(a, b, plus_one=True) == pytest.approx(1.5625 / (4.5 - 1.5625))


def test_common_edges_count_only_with_plus_one() -> None:
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    assert iou(left, right) == 0
    assert iou(left, right, plus_one=True) == pytest.approx(2 / (3 + 3 - 2))
    apart = (0.5001, 0.0, 1.0, 1.0)
    assert iou(left, apart, plus_one=True) == 0


def test_a_box_turned_inside_out() -> None:
    # Width -0.25 within the unit square: a negative area is floored; one more makes it 0.75.
    narrow, square = (0.5, 0.0, 0.25, 1.0), (0.0, 0.0, 1.0, 1.0)
    assert iou(narrow, square) == 0
    assert iou(narrow, square, plus_one=True) == pytest.approx(1.5 / 4)
    # Tall and inside out: intersection and union both negative, a ratio without meaning.
    assert iou((0.6, -10.0, 0.5, 10.0), square) == 0


def test_boxes_without_area() -> None:
    point = (0.5, 0.5, 0.5, 0.5)
    assert iou(point, point) == 0
    assert iou(point, point, plus_one=True) == 1


@both
@given(st.lists(any_box, min_size=1, max_size=4), st.lists(any_box, min_size=1, max_size=4))
def test_symmetric_and_within_bounds(plus_one: bool, a: list, b: list) -> None:
    first, second = (torch.tensor(c, dtype=torch.float64) for c in (a, b))
    table = pairwise_iou(first, second, plus_one=plus_one)
    assert table.shape == (len(a), len(b))
    assert (table >= 0).all() and (table <= 1).all()
    assert torch.equal(table, pairwise_iou(second, first, plus_one=plus_one).mT)


@both
@given(proper_box, proper_box)
def test_only_equal_boxes_overlap_fully(plus_one: bool, a: tuple, b: tuple) -> None:
    assert iou(a, a, plus_one) == 1
    assert (iou(a, b, plus_one) == 1) == (a == b)


@given(proper_box, proper_box)
def test_plus_one_inflates_boxes_that_touch(a: tuple, b: tuple) -> None:
    assert iou(a, b, plus_one=True) >= iou(a, b)


@given(proper_box, proper_box, coordinate, st.sampled_from([0.5, 2.0]))
def test_the_fixed_ratio_has_no_unit_and_no_origin(
    a: tuple, b: tuple, shift: float, scale: float
) -> None:
    moved = [tuple((x + shift) * scale for x in box) for box in (a, b)]
    assert iou(*moved) == iou(a, b)


@both
def test_leading_dimensions_stay(plus_one: bool) -> None:
    corner = torch.rand(2, 3, 5, 2, dtype=torch.float64)
    boxes = torch.cat([corner, corner + 0.3], -1)
    table = pairwise_iou(boxes, boxes[..., :4, :], plus_one=plus_one)
    assert table.shape == (2, 3, 5, 4)
    single: Tensor = pairwise_iou(boxes[1, 2], boxes[1, 2, :4], plus_one=plus_one)
    assert torch.equal(table[1, 2], single)
