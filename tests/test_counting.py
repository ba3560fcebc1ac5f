"""The counting module: the authors' numbers, the equations written plainly, what it promises."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.counting import Counter, Counting
from smoke_runs import config
from torch import Tensor
from torch.testing import assert_close

from setexp.build import build
from setexp.encoders.counting import CountEncoder, CountingModule, SummedAttention
from setexp.ops.boxes import iou, pairwise_iou
from setexp.ops.piecewise_linear import knots, piecewise_linear
from setexp.ops.two_hot import two_hot
from setexp.sets import Batch, SetBatch

Golden = Callable[[str], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-10, "atol": 1e-10}
seeds = st.integers(0, 2**16)


def counting(objects: int = 10, iou_eps: float = 1e-12) -> CountingModule:
    return CountingModule(objects=objects, pieces=16, iou_eps=iou_eps)


def bent(objects: int = 10) -> CountingModule:
    """A module whose functions are no longer straight."""
    module = counting(objects)
    torch.nn.init.normal_(module.weight)
    return module


def squares(batch: int, n: int, side: float = 0.4) -> Tensor:
    corner = torch.rand(batch, n, 2) * (1 - side)
    return torch.cat([corner, corner + side], dim=-1)


def apart(n: int) -> Tensor:
    """n boxes that do not touch, (n, 4)."""
    left = torch.arange(n) * 0.1
    return torch.stack([left, left, left + 0.05, left + 0.05], dim=-1)


def expected_count(output: Tensor) -> Tensor:
    """What a two-hot vector stands for, its confidence taken out."""
    return (output * torch.arange(output.shape[-1])).sum(-1) / output.sum(-1)


# The authors' numbers


@pytest.mark.parametrize("name", ["counting_weights", "counting_logits"])
def test_the_released_module(golden: Golden, name: str) -> None:
    case, module = golden(name), counting()
    module.load_state_dict({"weight": case["piecewise_weight"][:8, 1:]})
    given = case["attention"].requires_grad_()
    output = module(case["boxes"], given.sigmoid() if name == "counting_logits" else given)
    assert_close(output, case["output"], **EXACT)
    output.backward(case["cotangent"])
    assert_close(given.grad, case["grad_attention"], **EXACT)
    expected = case["grad_piecewise_weight"]
    assert_close(module.weight.grad, expected[:8, 1:], **EXACT)
    assert not expected[8:].any() and not expected[:, 0].any()  # what we do not have


def test_ideal_input_is_counted_exactly(golden: Golden) -> None:
    case = golden("counting_ideal")
    output = counting()(case["boxes"], case["attention"])
    assert_close(output, case["output"], rtol=0, atol=1e-9)
    assert output.argmax(-1).tolist() == case["count"].round().long().tolist()
    assert_close(expected_count(output), case["count"], rtol=0, atol=1e-9)


def test_parts(golden: Golden) -> None:
    case = golden("counting_parts")
    weight, points = case["weight"][1:].requires_grad_(), case["points"].requires_grad_()
    values = piecewise_linear(knots(weight).unsqueeze(0), points)[0]
    assert_close(values, case["values"], rtol=0, atol=1e-12)
    values.backward(case["cotangent"])
    assert_close(points.grad, case["grad_points"], **EXACT)
    assert_close(weight.grad, case["grad_weight"][1:], **EXACT)
    at_knots = piecewise_linear(knots(weight).unsqueeze(0), case["knots"])[0]
    assert_close(at_knots, case["knot_values"], rtol=0, atol=1e-12)
    assert_close(two_hot(case["counts"], 10), case["two_hot"], rtol=0, atol=1e-12)
    first, second = case["boxes_a"].unsqueeze(-2), case["boxes_b"]
    assert_close(iou(first, second, plus_one=False, eps=1e-12), case["iou"], rtol=0, atol=1e-12)


# The equations written plainly


@given(seed=seeds, n=st.integers(1, 7))
def test_equals_the_plain_module(seed: int, n: int) -> None:
    torch.manual_seed(seed)
    mine, plain = bent(n), Counting(n)
    plain.load_state_dict({f"f.{k}.weight": w for k, w in enumerate(mine.weight.detach())})
    boxes, attention = squares(3, n), torch.rand(3, n, requires_grad=True)
    found, expected = mine(boxes, attention), plain(boxes, attention)
    assert_close(found, expected, **EXACT)
    along = torch.randn_like(found)
    ours = torch.autograd.grad((found * along).sum(), [attention, mine.weight])
    theirs = torch.autograd.grad((expected * along).sum(), [attention, *plain.parameters()])
    assert_close(ours[0], theirs[0], **EXACT)
    assert_close(ours[1], torch.stack(theirs[1:]), **EXACT)


def test_the_trained_task_equals_the_plain_one() -> None:
    task = build(config("experiment=counting_toy")["task"], "task").to(torch.float64)
    plain = Counter(10)
    linear = task.decoder.mlp[0]
    assert torch.equal(linear.weight, torch.eye(11))
    plain.linear.load_state_dict(linear.state_dict())
    boxes, attention, label = squares(6, 10), torch.rand(6, 10), torch.randint(11, (6,))
    s = SetBatch(torch.cat([boxes, attention.unsqueeze(-1)], -1), torch.ones(6, 10))
    found = task(Batch(s, s, {"label": label}))
    assert_close(found.loss.mean(), plain((boxes, attention), label), **EXACT)


# What it promises


@given(seed=seeds)
def test_the_order_of_the_proposals_does_not_matter(seed: int) -> None:
    torch.manual_seed(seed)
    module, boxes, attention = bent(), squares(2, 12), torch.rand(2, 12)
    order = torch.randperm(12)
    assert_close(module(boxes[:, order], attention[:, order]), module(boxes, attention), **EXACT)


@given(seed=seeds, n=st.integers(1, 12))
def test_the_matrices_are_those_that_the_count_is_found_from(seed: int, n: int) -> None:
    torch.manual_seed(seed)
    module, boxes, attention = bent(6), squares(3, n), torch.rand(3, n)
    found = module.matrices(boxes, attention)
    size = min(n, 6)
    assert found.C.shape == found.A.shape == found.D.shape == (3, size, size)
    assert_close(found.attention.sort(-1).values, attention.sort(-1).values[:, n - size :])
    assert_close(found.A, found.attention.unsqueeze(-1) * found.attention.unsqueeze(-2))
    assert_close(found.D, 1 - pairwise_iou(found.boxes, found.boxes, plus_one=False), **EXACT)
    assert_close(found.C, found.C.mT)
    assert_close(found.C.sum((-1, -2)).sqrt(), found.c)
    assert_close(expected_count(module(boxes, attention)), found.c.clamp(max=6))


def test_the_count_matrix_by_hand() -> None:
    """One thing seen twice and another seen once: edges between two things, a loop at each."""
    boxes = apart(2)[[0, 0, 1]].unsqueeze(0)
    found = counting(iou_eps=0.0).matrices(boxes, torch.ones(1, 3))
    assert found.D[0].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert_close(found.C[0], torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0.5, 1]]))
    assert found.c.tolist() == [2]


@given(copies=st.lists(st.integers(1, 4), min_size=1, max_size=5), seed=seeds)
def test_duplicates_do_not_count_whatever_was_learned(copies: list[int], seed: int) -> None:
    """Weights 0 and 1, boxes that coincide or do not touch: what training cannot change."""
    torch.manual_seed(seed)
    shown = torch.arange(len(copies)).repeat_interleave(torch.tensor(copies))
    boxes = torch.cat([apart(len(copies))[shown], squares(1, 3)[0]])[None]
    attention = torch.cat([torch.ones(len(shown)), torch.zeros(3)])[None]
    module = CountingModule(objects=30, pieces=16, iou_eps=0.0)
    torch.nn.init.normal_(module.weight)
    assert_close(expected_count(module(boxes, attention)), torch.tensor([len(copies) * 1.0]))


def test_the_largest_weights_are_kept_and_padding_changes_nothing() -> None:
    module, boxes, attention = bent(4), squares(3, 4), torch.rand(3, 4) * 0.5 + 0.5
    more, small = torch.cat([squares(3, 5), boxes], 1), torch.rand(3, 5) * 0.5
    assert_close(module(more, torch.cat([small, attention], 1)), module(boxes, attention))
    s = SetBatch(torch.cat([more, torch.ones(3, 9, 1)], -1), torch.ones(3, 9))
    s.x[:, 5:, 4], s.mask[:, :5] = attention, 0
    assert_close(CountEncoder(count=module)(s).z, module(boxes, attention))
    fewer = module(boxes[:, :2], attention[:, :2])
    assert fewer.shape == (3, 5) and fewer.isfinite().all()


@pytest.mark.parametrize(("eps", "count"), [(1e-12, 2.3), (0.0, 3.0)])
def test_boxes_of_side_a_millionth(eps: float, count: float) -> None:
    """The released epsilon is as large as such a box: it overlaps itself by half."""
    corner = torch.rand(1, 10, 2)
    boxes = torch.cat([corner, corner + 1e-6], -1)
    attention = (torch.arange(10) < 3).double()[None]
    output = counting(iou_eps=eps)(boxes, attention)
    assert expected_count(output).item() == pytest.approx(count, abs=0.05)


def test_no_gradient_is_lost_where_nothing_is_counted() -> None:
    module, attention = counting(), torch.zeros(2, 10, requires_grad=True)
    module(squares(2, 10), attention).sum().backward()
    assert module.weight.grad.isfinite().all() and attention.grad.isfinite().all()


def test_the_sum_ignores_boxes() -> None:
    attention = torch.tensor([[0.5, 0.25, 1.0], [1.0, 1.0, 1.0]])
    output = SummedAttention(objects=2)(squares(2, 3), attention)
    assert output.tolist() == [[0, 0.25, 0.75], [0, 0, 1]]


# Functions and boxes


@given(seed=seeds, pieces=st.integers(1, 20))
def test_functions_are_monotone_from_0_to_1(seed: int, pieces: int) -> None:
    torch.manual_seed(seed)
    heights = knots(torch.randn(2, pieces))
    values = piecewise_linear(heights, torch.linspace(0, 1, 101))
    assert values.shape == (2, 101)
    assert not values[:, 0].any() and torch.equal(values[:, -1], torch.ones(2))
    assert (values.diff() >= -1e-15).all()
    assert_close(piecewise_linear(heights, torch.linspace(0, 1, pieces + 1)), heights)
    straight = piecewise_linear(knots(torch.ones(1, pieces)), torch.rand(3, 4))
    assert straight.shape == (1, 3, 4)


def test_learned_functions_have_the_names_of_the_thesis() -> None:
    learned = bent().learned()
    assert list(learned) == [f"f{k}" for k in range(1, 9)]
    for heights in learned.values():
        assert heights.shape == (17,)
        assert all(b >= a for a, b in pairwise(heights.tolist()))


def test_boxes_one_by_one_are_those_of_the_table() -> None:
    a, b = squares(1, 5)[0], squares(1, 5)[0]
    assert torch.equal(iou(a, b, plus_one=False), pairwise_iou(a, b, plus_one=False).diagonal())


def test_stacked_and_compiled() -> None:
    modules = [bent(5), bent(5)]
    boxes, attention = squares(6, 7).unflatten(0, (2, 3)), torch.rand(2, 3, 7)
    parameters, _ = torch.func.stack_module_state(modules)

    def one(p: dict[str, Tensor], b: Tensor, a: Tensor) -> Tensor:
        return torch.func.functional_call(modules[0], p, (b, a))

    alone = torch.stack([m(b, a) for m, b, a in zip(modules, boxes, attention, strict=True)])
    assert torch.equal(torch.func.vmap(one)(parameters, boxes, attention), alone)
    compiled = torch.compile(modules[0], backend="aot_eager", fullgraph=True)
    assert_close(compiled(boxes[0], attention[0]), alone[0], **EXACT)
