"""Set losses against plain loops over rows and permutations, and their laws."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap
from torch.testing import assert_close

from setexp.errors import NonFiniteError
from setexp.losses import chamfer
from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss, nearest
from setexp.losses.direct import DirectLoss
from setexp.losses.hungarian import HungarianLoss
from setexp.losses.scaled import ScaledCoordinates
from setexp.ops.costs import Cost, matched_cost
from setexp.sets import SetBatch

pytestmark = pytest.mark.usefixtures("float64")

LOSSES = {"chamfer": ChamferLoss, "hungarian": HungarianLoss, "direct": DirectLoss}
UNORDERED = ["chamfer", "hungarian"]
COSTS = [Cost.squared, Cost.huber]

seeds = st.integers(0, 2**16)
sizes = st.integers(1, 5)


def make(
    name: str, cost: Cost = Cost.squared, *, steps: Steps = Steps.last, mask_channel: bool = True
) -> nn.Module:
    extra: dict[str, Any] = {"set_size": 5, "max_size": 5} if name == "hungarian" else {}
    return LOSSES[name](cost=cost, steps=steps, mask_channel=mask_channel, **extra)


def sets(seed: int, *shape: int) -> SetBatch:
    """Random rows (..., N, 2) and fractional masks; costs reach both branches of Huber's."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(*shape, 2, generator=generator)
    return SetBatch(x, torch.rand(shape, generator=generator))


def shuffled(s: SetBatch, seed: int) -> SetBatch:
    """Rows of every set in another order, alike for all sets."""
    order = torch.randperm(s.mask.shape[-1], generator=torch.Generator().manual_seed(seed))
    return SetBatch(s.x[..., order, :], s.mask[..., order])


def chamfer_of(x: Tensor, y: Tensor, cost: Cost) -> Tensor:
    """Two sets of rows (N, D)."""
    forth = [min(matched_cost(a, b, cost) for b in y) for a in x]
    back = [min(matched_cost(a, b, cost) for a in x) for b in y]
    return sum(forth) / len(x) + sum(back) / len(y)


def hungarian_of(x: Tensor, y: Tensor, cost: Cost) -> Tensor:
    """Two sets of rows (N, D), by trying all matchings."""
    orders = itertools.permutations(range(len(y)))
    return min(matched_cost(x, y[list(order)], cost).mean() for order in orders)


def direct_of(x: Tensor, y: Tensor, cost: Cost) -> Tensor:
    """Two sets of rows (N, D)."""
    return matched_cost(x, y, cost).mean()


DEFINITIONS = {"chamfer": chamfer_of, "hungarian": hungarian_of, "direct": direct_of}


@pytest.mark.parametrize("mask_channel", [False, True])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, n=sizes)
def test_losses_follow_their_definition(
    name: str, cost: Cost, mask_channel: bool, seed: int, n: int
) -> None:
    prediction, target = sets(seed, 2, 3, n), sets(seed + 1, 3, n)
    loss = make(name, cost, mask_channel=mask_channel)(prediction, target)
    assert loss.shape == (3,)
    for b in range(3):
        x = prediction.with_mask_channel()[-1, b]
        y = target.with_mask_channel()[b]
        rows = (x, y) if mask_channel else (x[:, :-1], y[:, :-1])
        assert_close(loss[b], DEFINITIONS[name](*rows, cost))


def test_losses_worked_by_hand() -> None:
    prediction = SetBatch(torch.tensor([[[[0.0], [3.0]]]]), torch.ones(1, 1, 2))
    target = SetBatch(torch.tensor([[[2.0], [1.0]]]), torch.ones(1, 2))
    # nearest: 0 to 1, 3 to 2 and back, all at squared distance 1; in order: 4 and 4
    expected = {"chamfer": 2.0, "hungarian": 1.0, "direct": 4.0}
    for name, value in expected.items():
        assert make(name, mask_channel=False)(prediction, target).tolist() == [value]
    # the mask as a second feature halves the mean over features
    for name, value in expected.items():
        assert make(name)(prediction, target).tolist() == [value / 2]
    # Huber: half the square up to 1, then d - 1/2
    expected = {"chamfer": 1.0, "hungarian": 0.5, "direct": 1.5}
    for name, value in expected.items():
        loss = make(name, Cost.huber, mask_channel=False)(prediction, target)
        assert loss.tolist() == [value]


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, n=sizes)
def test_losses_vanish_at_equality(name: str, cost: Cost, seed: int, n: int) -> None:
    target = sets(seed, 3, n)
    other = target if name == "direct" else shuffled(target, seed)
    x = other.x.unsqueeze(0).clone().requires_grad_()
    loss = make(name, cost)(SetBatch(x, other.mask.unsqueeze(0)), target)
    loss.sum().backward()
    assert not loss.any()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", UNORDERED)
@given(seed=seeds, n=sizes)
def test_order_means_nothing(name: str, cost: Cost, seed: int, n: int) -> None:
    prediction, target = sets(seed, 1, 3, n), sets(seed + 1, 3, n)
    loss = make(name, cost)
    expected = loss(prediction, target)
    assert_close(loss(shuffled(prediction, seed), target), expected)
    assert_close(loss(prediction, shuffled(target, seed)), expected)


@given(seeds, sizes)
def test_nearest_is_cheaper_than_matched_is_cheaper_than_in_order(seed: int, n: int) -> None:
    both = sets(seed, 1, 3, n), sets(seed + 1, 3, n)
    values = [make(name)(*both) for name in LOSSES]
    assert (values[0] / 2 <= values[1] + 1e-12).all()
    assert (values[1] <= values[2] + 1e-12).all()


@pytest.mark.parametrize("mask_channel", [False, True])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(
    name: str, cost: Cost, mask_channel: bool
) -> None:
    target, loss = sets(1, 2, 4), make(name, cost, steps=Steps.all, mask_channel=mask_channel)
    prediction = [t.requires_grad_() for t in sets(0, 2, 2, 4)]
    torch.autograd.gradcheck(lambda x, mask: loss(SetBatch(x, mask), target), prediction)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, steps=st.integers(1, 4))
def test_all_steps_are_averaged(name: str, seed: int, steps: int) -> None:
    prediction, target = sets(seed, steps, 2, 3), sets(seed + 1, 2, 3)
    last, mean = make(name), make(name, steps=Steps.all)
    each = [last(SetBatch(*(t[s : s + 1] for t in prediction)), target) for s in range(steps)]
    assert_close(mean(prediction, target), torch.stack(each).mean(0))
    assert_close(last(prediction, target), each[-1])


@pytest.mark.parametrize("name", LOSSES)
def test_without_mask_channel_the_mask_means_nothing(name: str) -> None:
    loss, target = make(name, mask_channel=False), sets(1, 2, 3)
    prediction = sets(0, 1, 2, 3)
    other = SetBatch(prediction.x, torch.rand(1, 2, 3))
    assert torch.equal(loss(prediction, target), loss(other, target))
    assert not torch.equal(make(name)(prediction, target), make(name)(other, target))


@pytest.mark.parametrize("limit", [1, 20, 41, 10**6])  # one, one, two and all sets at once
def test_nearest_rows_do_not_depend_on_the_chunks(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = torch.randn(2, 5, 4, 3), torch.randn(5, 5, 3)
    costs = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    monkeypatch.setattr(chamfer, "_CPU_PAIRS", limit)
    to_y, to_x = nearest(x, y, Cost.squared)
    assert torch.equal(to_y, costs.argmin(-1))
    assert torch.equal(to_x, costs.argmin(-2))


def test_chamfer_compares_sets_of_different_sizes() -> None:
    prediction, target = sets(0, 1, 2, 4), sets(1, 2, 3)
    loss = make("chamfer")(prediction, target)
    for b in range(2):
        rows = prediction.with_mask_channel()[0, b], target.with_mask_channel()[b]
        assert_close(loss[b], chamfer_of(*rows, Cost.squared))


def test_costs_go_by_their_names_too() -> None:
    """In Python as in YAML; of an unknown name nothing is computed."""
    x, y = sets(0, 3, 2, 4), sets(1, 2, 4)
    sizes = {"set_size": 4, "max_size": 9}
    for kind, more in ((HungarianLoss, sizes), (ChamferLoss, {}), (DirectLoss, {})):
        named, meant = (
            kind(cost=cost, steps=steps, mask_channel=False, **more)
            for cost, steps in (("squared", "last"), (Cost.squared, Steps.last))
        )
        assert torch.equal(named(x, y), meant(x, y))
        with pytest.raises(ValueError, match="lacks its leading axis"):
            meant(y, y)
    with pytest.raises(ValueError, match="square"):
        ChamferLoss(cost="square", steps="last", mask_channel=False)


def test_large_hungarian_losses_are_refused() -> None:
    arguments: dict[str, Any] = {"cost": Cost.huber, "steps": Steps.last, "mask_channel": True}
    HungarianLoss(set_size=256, max_size=256, **arguments)
    with pytest.raises(ValueError, match=r"^set_size=342: .*max_size=256; use loss=chamfer"):
        HungarianLoss(set_size=342, max_size=256, **arguments)


def test_hungarian_loss_names_a_prediction_that_is_not_finite() -> None:
    prediction = sets(0, 1, 2, 3)
    prediction.x[0, 1, 2, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="cost matrix 1 of 2"):
        make("hungarian")(prediction, sets(1, 2, 3))


@pytest.mark.parametrize("steps", Steps)
@pytest.mark.parametrize("name", LOSSES)
def test_seeds_stack(name: str, steps: Steps) -> None:
    loss = make(name, Cost.huber, steps=steps)
    x, mask = (t.requires_grad_() for t in sets(0, 3, 2, 2, 4))  # seeds, steps, sets, rows
    target = sets(1, 3, 2, 4)
    mapped = vmap(loss)(SetBatch(x, mask), target)
    gradients = torch.autograd.grad(mapped.sin().sum(), (x, mask))
    alone = [loss(SetBatch(x[s], mask[s]), SetBatch(target.x[s], target.mask[s])) for s in range(3)]
    assert_close(mapped, torch.stack(alone))
    assert_close(gradients, torch.autograd.grad(torch.stack(alone).sin().sum(), (x, mask)))


@pytest.mark.parametrize("name", LOSSES)
def test_compiles_as_one_graph(name: str) -> None:
    torch.compiler.reset()  # forget the graphs of other tests
    loss, target = make(name, Cost.huber, steps=Steps.all), sets(1, 2, 4)
    x, mask = (t.requires_grad_() for t in sets(0, 2, 2, 4))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    results = []
    for evaluate in (compiled, loss):
        value = evaluate(SetBatch(x, mask), target)
        results.append((value, *torch.autograd.grad(value.sin().sum(), (x, mask))))
    assert_close(*results)


# Coordinates in other units


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds)
def test_scaled_coordinates_are_another_loss_on_multiplied_features(name: str, seed: int) -> None:
    loss, x, y = make(name, Cost.huber, steps=Steps.all), sets(seed, 2, 3, 4), sets(seed + 1, 3, 4)
    factor = torch.tensor([3.0, 1.0])
    scaled = ScaledCoordinates(loss=loss, scale=3.0, coordinates=1)
    expected = loss(SetBatch(x.x * factor, x.mask), SetBatch(y.x * factor, y.mask))
    assert_close(scaled(x, y), expected)
    assert_close(ScaledCoordinates(loss=loss, scale=1.0, coordinates=2)(x, y), loss(x, y))


def test_a_scale_decides_what_is_matched() -> None:
    """One row is near in its coordinate, the other in its attribute."""
    x = SetBatch(torch.tensor([[[[0.0, 0.0], [0.5, 0.5]]]]), torch.ones(1, 1, 2))
    y = SetBatch(torch.tensor([[[0.1, 1.0], [0.9, 0.0]]]), torch.ones(1, 2))
    # in order: coordinates 0.1 and 0.4 off, attributes 1 and 0.5; crossed: 0.9 and 0.4, 0 and 0.5
    in_order = [0.1**2 + 0.4**2, 1 + 0.5**2]
    crossed = [0.9**2 + 0.4**2, 0.5**2]
    for scale, coordinate, attribute in ((0.5, *crossed), (2.0, *in_order)):
        loss = ScaledCoordinates(
            loss=make("hungarian", mask_channel=False), scale=scale, coordinates=1
        )
        assert_close(loss(x, y), torch.tensor([(scale**2 * coordinate + attribute) / 4]))


def test_gradients_of_coordinates_are_scaled() -> None:
    x, y = sets(0, 1, 2, 3), sets(1, 2, 3)
    x.x.requires_grad_()
    loss = make("direct", mask_channel=False)
    (plain,) = torch.autograd.grad(loss(x, y).sum(), x.x)
    scaled = ScaledCoordinates(loss=loss, scale=0.5, coordinates=1)
    (found,) = torch.autograd.grad(scaled(x, y).sum(), x.x)
    assert_close(found, plain * torch.tensor([0.25, 1.0]))
