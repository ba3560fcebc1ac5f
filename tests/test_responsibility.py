"""The responsibility problem on two points that turn (Thesis, 5.3.1), and what does not have it.

The set {-p, p} is the same after half a turn, but a list [-p, p] that follows the points has become
[p, -p]. A function from sets to lists of their elements must therefore jump somewhere, by almost 4
in the sum of distances, between sets that are almost equal (Theorem 1). A *continuous* function to
lists cannot jump, and is wrong instead. Let a and b be its distances from [-p, p] and [p, -p]. Half
a turn exchanges them, so somewhere on the way a = b. As a + b is at least twice the distance of
both points, 4, the Hungarian loss, a mean over both points, is at least 1 there: no more than is
lost by putting both points into the origin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_idspn import Given, fspool, idspn, set_encoder, whole
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.decoders.dspn import Gradient
from setexp.decoders.fsunpool import FSUnpoolDecoder
from setexp.decoders.mlp import MLPDecoder
from setexp.encoders.pooling import SumPool
from setexp.encoders.set_encoder import SetEncoder
from setexp.losses.base import Steps
from setexp.losses.hungarian import HungarianLoss
from setexp.ops.assignment import assignment
from setexp.ops.costs import Cost, pair_cost
from setexp.ops.position_weights import WeightInit
from setexp.sets import Encoding

pytestmark = pytest.mark.usefixtures("float64")

ListFunction = Callable[[Tensor], Tensor]  # sets (B, N, D) to lists (B, N, D)


def half_turn(angles: int, *, dims: int = 2, others: Tensor | None = None) -> Tensor:
    """Sets {-p, p} while p makes half a turn, (angles + 1, N, D), with other points that rest."""
    angle = torch.arange(angles + 1) * math.pi / angles
    p = torch.zeros(angles + 1, dims)
    p[:, 0], p[:, 1] = angle.cos(), angle.sin()
    turning = torch.stack([-p, p], 1)
    if others is None:
        return turning
    return torch.cat([turning, others.expand(angles + 1, *others.shape)], 1)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Hungarian loss of sets with Euclidean distances, a mean over elements, (B,)."""
    n = x.shape[-2]
    loss = HungarianLoss(cost=Cost.l2, steps=Steps.last, mask_channel=False, set_size=n, max_size=n)
    return loss(whole(x.unsqueeze(0)), whole(y))


def jumps(lists: Tensor) -> Tensor:
    """Sum of the elements' moves between neighbours, (..., angles)."""
    return lists.diff(dim=-3).norm(dim=-1).sum(-1)


# Lists of the set's own elements


def test_every_order_of_two_turning_points_jumps() -> None:
    """All 2 ** 10 functions on a half turn of ten steps; the last set is the first."""
    angles = 10
    x, step = half_turn(angles), math.pi / angles
    near = distance(x[1:], x[:-1])
    assert_close(near, torch.full_like(near, 2 * math.sin(step / 2)))
    assert distance(x[-1:], x[:1]) < 1e-12
    swapped = torch.tensor(list(itertools.product([False, True], repeat=angles)))
    lists = torch.where(swapped[..., None, None], x[:-1].flip(1), x[:-1])
    lists = torch.cat([lists, lists[:, :1]], 1)
    assert (jumps(lists).amax(-1) > 4 * math.cos(step / 2) - 1e-9).all()


def by_first_coordinate(x: Tensor) -> Tensor:
    return x.take_along_dim(x[..., :1].argsort(stable=True, dim=1), 1)


def by_score(x: Tensor) -> Tensor:
    network = nn.Sequential(nn.Linear(x.shape[-1], 8), nn.Tanh(), nn.Linear(8, 1))
    return x.take_along_dim(network(x).argsort(1), 1)


def by_slot(x: Tensor) -> Tensor:
    slots = torch.randn(x.shape[1:]).expand_as(x)  # as a list decoder's outputs are matched
    return x.take_along_dim(assignment(pair_cost(slots, x, Cost.l2)).unsqueeze(-1), 1)


@pytest.mark.parametrize("rule", [by_first_coordinate, by_score, by_slot])
@given(seed=st.integers(0, 2**16), dims=st.integers(2, 3), resting=st.integers(0, 2))
def test_ordering_rules_jump(rule: ListFunction, seed: int, dims: int, resting: int) -> None:
    """Whatever orders the elements of a set; resting points are two or more from all others."""
    torch.manual_seed(seed)
    spread = torch.tensor([[5.0], [8.0]])[:resting] * torch.ones(1, dims)
    x, step = half_turn(40, dims=dims, others=spread), math.pi / 40
    shuffled = torch.cat([t[torch.randperm(len(t))].unsqueeze(0) for t in x])
    torch.manual_seed(seed)
    lists = rule(x)
    torch.manual_seed(seed)
    assert_close(rule(shuffled), lists)  # it is a function of the set
    assert_close(distance(lists, x), torch.zeros(41), rtol=0, atol=1e-7)
    assert (distance(x[1:], x[:-1]) < 2 * step).all()
    assert jumps(lists).max() > 4 * math.cos(step / 2) - 1e-9


# Continuous functions to lists


def mlp_autoencoder() -> nn.Sequential:
    encoder = set_encoder([2, 32, 32], SumPool(masked=False), head=[32, 8])
    decoder = MLPDecoder(
        latent=8, hidden=[64, 64], set_size=2, element_dim=2, mask_channel=False, mask_bias=0.0
    )
    return nn.Sequential(encoder, decoder)


def assert_wrong_where_both_orders_are_equally_far(model: nn.Module) -> Tensor:
    """The bound of this file's head, between two neighbouring angles; all losses."""
    x = half_turn(2000)
    with torch.no_grad():
        decoded = model(whole(x)).x[-1]
    a, b = ((decoded - s).norm(dim=-1).sum(-1) for s in (x, x.flip(1)))
    assert_close(distance(decoded, x), torch.minimum(a, b) / 2)
    assert (a + b >= 4 - 1e-9).all()
    assert_close((a - b)[-1], (b - a)[0])
    crossing = ((a - b)[1:] * (a - b)[:-1] <= 0).nonzero()
    assert len(crossing) > 0
    slack = (a - b).diff().abs()[crossing] / 4
    losses = distance(decoded, x)
    assert (losses[crossing] >= 1 - slack).all()
    return losses


@given(st.integers(0, 2**16))
def test_any_continuous_list_decoder_is_wrong_somewhere(seed: int) -> None:
    torch.manual_seed(seed)
    assert_wrong_where_both_orders_are_equally_far(mlp_autoencoder())


def test_an_mlp_that_fits_the_angles_it_saw_fails_between_two_of_them() -> None:
    model, x = mlp_autoencoder(), half_turn(32)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        optimiser.zero_grad()
        loss = distance(model(whole(x)).x[-1], x)
        loss.mean().backward()
        optimiser.step()
    losses = assert_wrong_where_both_orders_are_equally_far(model)
    assert loss.mean() < 0.1
    assert losses.median() < 0.1
    assert losses.max() > 0.9


# What follows the points instead


def fs_autoencoder(scale: float) -> tuple[SetEncoder, FSUnpoolDecoder]:
    """Both coordinates, sorted and unsorted; with a growing scale the relaxed sort hardens.

    Pooling takes largest - smallest = 2 |p|, unpooling hands half of it to the larger element and
    minus that to the smaller.
    """
    encoder = set_encoder([2, 2], fspool(2, 2, relaxed=True))
    decoder = FSUnpoolDecoder(
        latent=2, hidden=[2], element=[2], n_pieces=1, init=WeightInit.normal, masked=False
    )
    ends = torch.tensor([1.0, -1.0]).expand(2, 2)
    with torch.no_grad():
        encoder.elements.mlp[0].weight.copy_(scale * torch.eye(2))
        encoder.pooling.weights.weight.copy_(ends)
        decoder.vector[0].weight.copy_(torch.eye(2))
        decoder.weights.weight.copy_(ends / (2 * scale))
        decoder.element[0].weight.copy_(torch.eye(2))
    return encoder, decoder


def test_fsunpool_follows_the_points() -> None:
    """It is told how the encoded list was sorted: an exact auto-encoder that never jumps."""
    encoder, decoder = fs_autoencoder(scale=50.0)
    x = half_turn(64)
    lists = decoder(encoder(whole(x))).x[-1]
    assert distance(lists, x).max() < 0.01
    assert jumps(lists).max() < 1.1 * jumps(x).max() < 0.11
    assert_close(lists[-1], lists[0].flip(0))  # the same set, its ends exchanged


def directions(count: int) -> SetEncoder:
    """FSPool of the extent, largest minus smallest, along directions in the plane."""
    encoder = set_encoder([2, count], fspool(count, 2))
    angle = torch.arange(count) * math.pi / count
    with torch.no_grad():
        encoder.elements.mlp[0].weight.copy_(torch.stack([angle.cos(), angle.sin()], -1))
        encoder.pooling.weights.weight.copy_(torch.tensor([-1.0, 1.0]).expand(count, 2))
    return encoder


@pytest.mark.parametrize("gradient", Gradient)
def test_dspn_from_a_fixed_set_jumps_once_and_is_right_on_both_sides(gradient: Gradient) -> None:
    """A function of the set, as a list decoder is: but sorting lets it jump, so that sets are
    right."""
    encoder, x, step = directions(64), half_turn(16), math.pi / 16
    start = torch.tensor([[-0.1, -0.2], [0.1, 0.2]])
    model = idspn(encoder, start, gradient=gradient, steps=60, momentum=0.9, nesterov=True)
    with torch.no_grad():
        lists = model(Encoding(encoder(whole(x)).z)).x[-1]
    assert distance(lists, x).max() < 1e-6
    large = jumps(lists) > 2
    assert large.sum() == 1
    assert_close(jumps(lists)[large], torch.tensor([4 * math.cos(step / 2)]))


def test_dspn_from_the_last_set_follows_the_points() -> None:
    """Equivariant in the initial set: order comes from there, and needs no jump."""
    encoder, x = directions(4), half_turn(16)
    lists = [x[0]]
    for s in x[1:]:
        model = idspn(encoder, Given(lists[-1]), steps=40, momentum=0.9, nesterov=True)
        with torch.no_grad():
            lists.append(model(Encoding(encoder(whole(s.unsqueeze(0))).z)).x[-1, 0])
    assert_close(torch.stack(lists), x, rtol=0, atol=1e-6)
    assert_close(lists[-1], lists[0].flip(0), rtol=0, atol=1e-6)
