"""Permutation-optimisation: Sinkhorn, the total cost, the ordering cost, order and padding."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.encoders.permutation import LinearAssignment, OrderingCost, PermutationOptimisation
from setexp.ops.ordering import total_cost, total_cost_gradient
from setexp.ops.sinkhorn import sinkhorn
from setexp.sets import SetBatch
from setexp.tasks.permute import nearest_order

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**16)
SHAPES = ((4,), (2, 3), (2, 2, 2))
N, D = 5, 3


def plain_sinkhorn(logits: Tensor, rounds: int) -> Tensor:
    """Every normalised matrix held, as the equations have it."""
    p = logits.softmax(-1)
    for _ in range(rounds):
        p = p / p.sum(-1, keepdim=True).clamp(min=1e-12)
        p = p / p.sum(-2, keepdim=True).clamp(min=1e-12)
    return p


def written_out(cost: Tensor, p: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Equation 4.1, term by term, over each line of the lattice."""
    places = list(itertools.product(*map(range, shape)))
    total = torch.zeros(())
    for axis, c in enumerate(cost):
        for (k, a), (m, b) in itertools.permutations(enumerate(places), 2):
            if a[:axis] + a[axis + 1 :] == b[:axis] + b[axis + 1 :]:
                sign = 1 if b[axis] > a[axis] else -1
                total = total + sign * torch.einsum("ij,i,j", c, p[:, k], p[:, m])
    return total


def antisymmetric(axes: int, n: int) -> Tensor:
    c = torch.randn(axes, n, n)
    return c - c.mT


def model(linear: bool = False, **changes: Any) -> PermutationOptimisation:
    arguments: dict[str, Any] = {
        "elements": nn.Identity(), "steps": 4, "rounds": 4, "masked": False, "shape": [N],
        "cost": OrderingCost(features=D, hidden=6, axes=len(changes.get("shape", [N]))),
        "initial": LinearAssignment(features=D, positions=N, clip=None) if linear else None,
    }  # fmt: skip
    built = PermutationOptimisation(**{**arguments, **changes})
    for parameter in built.parameters():
        nn.init.normal_(parameter)
    return built


def full(x: Tensor) -> SetBatch:
    return SetBatch(x, torch.ones(x.shape[:-1]))


@given(seed=seeds, rounds=st.integers(1, 5), scale=st.sampled_from([0.0, 1.0, 5.0]))
def test_sinkhorn_is_its_definition_gradient_included(seed: int, rounds: int, scale: float) -> None:
    torch.manual_seed(seed)
    x, weight = (scale * torch.randn(2, N, N)).requires_grad_(), torch.randn(2, N, N)
    found, expected = sinkhorn(x, rounds), plain_sinkhorn(x, rounds)
    assert_close(found, expected, rtol=1e-12, atol=1e-14)
    (ours,) = torch.autograd.grad((found * weight).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_sinkhorn_under_vmap_is_sinkhorn() -> None:
    x = torch.randn(3, 2, N, N)
    together = torch.func.vmap(lambda each: sinkhorn(each, 4))(x)
    assert torch.equal(together, torch.stack([sinkhorn(each, 4) for each in x]))


@given(seed=seeds)
def test_many_rounds_are_doubly_stochastic(seed: int) -> None:
    torch.manual_seed(seed)
    p = sinkhorn(torch.randn(4, N, N), 200)
    assert (p >= 0).all()
    assert_close(p.sum(-1), torch.ones(4, N), rtol=0, atol=1e-6)
    assert_close(p.sum(-2), torch.ones(4, N), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sinkhorn_of_extreme_logits_is_finite(dtype: torch.dtype) -> None:
    x = torch.tensor([[1e4, 0.0, 0.0], [1e4, 1.0, 0.0], [1e4, 0.0, -1e4]], dtype=dtype)
    x.requires_grad_()
    p = sinkhorn(x, 4)  # the columns of all but the first position underflow
    assert p.isfinite().all() and (p <= 1).all()
    assert_close(p, plain_sinkhorn(x, 4))
    p[0, 0].backward()
    assert x.grad is not None and x.grad.isfinite().all()
    equal = plain_sinkhorn(torch.zeros(1, 3, 3), 1)
    assert_close(sinkhorn(torch.full((1, 3, 3), -1e30), 4), equal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sinkhorn_is_not_rounded_under_autocast(dtype: torch.dtype) -> None:
    x = (3 * torch.randn(4, N, N)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        p = sinkhorn(x, 8)
    assert p.dtype == torch.float32
    assert torch.equal(p, sinkhorn(x.float(), 8))


@pytest.mark.parametrize("shape", SHAPES)
def test_total_cost_is_its_definition_and_its_gradient_autograds(shape: tuple[int, ...]) -> None:
    n = len(list(itertools.product(*map(range, shape))))
    cost = antisymmetric(len(shape), n)
    p = torch.rand(n, n).requires_grad_()
    expected = written_out(cost, p, shape)
    assert_close(total_cost(cost, p, shape), expected)
    (gradient,) = torch.autograd.grad(expected, p)
    assert_close(total_cost_gradient(cost, p.detach(), shape), gradient)
    p = p.detach().expand(2, n, n)
    assert torch.autograd.gradcheck(
        lambda c, q: total_cost_gradient(c, q, shape),
        (cost.expand(2, *cost.shape).clone().requires_grad_(), p.clone().requires_grad_()),
    )


def test_total_cost_of_a_permutation_counts_each_pair_by_its_order() -> None:
    cost = antisymmetric(1, 4)
    for order in itertools.permutations(range(4)):
        p = torch.zeros(4, 4)
        p[list(order), range(4)] = 1  # element order[k] at position k
        pairs = itertools.combinations(order, 2)  # the first one comes before
        expected = 2 * sum(cost[0, i, j] for i, j in pairs)
        assert_close(total_cost(cost, p, (4,)), torch.as_tensor(expected))
        # the opposite order is as bad as this one is good
        assert_close(total_cost(cost, p.flip(-1), (4,)), -torch.as_tensor(expected))
    assert_close(total_cost(cost, torch.full((4, 4), 0.25), (4,)), torch.zeros(()))


def test_total_cost_is_a_quadratic_form() -> None:
    n, cost = 4, antisymmetric(1, 4)
    after = torch.ones(n, n).triu(1)
    signs = after - after.mT  # Eq. 4.20
    q = torch.einsum("ij,kl->ikjl", cost[0], signs).reshape(n * n, n * n)  # Eq. 4.21
    p = torch.rand(n, n)
    assert_close(total_cost(cost, p, (n,)), p.flatten() @ q @ p.flatten())


def test_ordering_cost_is_an_mlp_on_concatenated_pairs() -> None:
    cost = OrderingCost(features=D, hidden=7, axes=2)
    nn.init.normal_(cost.pair.bias)
    x = torch.randn(2, N, D).requires_grad_()
    first, second = (x.unsqueeze(d).expand(2, N, N, D) for d in (2, 1))
    f = cost.score(cost.pair(torch.cat([first, second], -1)).relu()).movedim(-1, 1)
    found = cost(x)
    assert_close(found, f - f.mT)
    assert_close(found, -found.mT)
    weight = torch.randn_like(found)
    inputs = [x, *cost.parameters()]
    ours = torch.autograd.grad((found * weight).sum(), inputs)
    theirs = torch.autograd.grad(((f - f.mT) * weight).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("shape", [[N + 1], [2, 3]])
def test_the_output_does_not_know_the_order_of_the_set(linear: bool, shape: list[int]) -> None:
    start = LinearAssignment(features=D, positions=N + 1, clip=2.0) if linear else None
    built = model(shape=shape, initial=start)
    x, order = torch.randn(3, N + 1, D), torch.randperm(N + 1)
    p, permuted = built(full(x)), built(full(x[:, order]))
    assert_close(permuted, p[:, order])
    assert_close(permuted.mT @ x[:, order], p.mT @ x)
    assert torch.equal(order[nearest_order(permuted)], nearest_order(p))


def test_an_assignment_is_clipped_on_both_sides() -> None:
    free, clipped = (LinearAssignment(features=D, positions=N, clip=c) for c in (None, 0.5))
    clipped.load_state_dict(free.state_dict())
    x = 9 * torch.randn(4, N, D)
    assert free(x).min() < -0.5 and free(x).max() > 0.5
    assert torch.equal(clipped(x), free(x).clamp(-0.5, 0.5))


@pytest.mark.parametrize("linear", [False, True])
def test_padding_changes_nothing(linear: bool) -> None:
    built = model(linear, masked=True)
    x = torch.randn(2, 3, D)
    where = [4, 0, 2]  # of the three elements among five rows
    padded, mask = torch.randn(2, N, D), torch.zeros(2, N)
    padded[:, where], mask[:, where] = x, 1.0
    padded.requires_grad_()
    if linear:  # a projection to the positions that are there
        assert built.initial is not None
        few = model(True)
        few.load_state_dict(built.state_dict())
        assert few.initial is not None
        few.initial.linear.weight = nn.Parameter(built.initial.linear.weight[:3].detach())
    else:
        few = built
    alone, together = few(full(x)), built(SetBatch(padded, mask))
    assert_close(together[:, where, :3], alone)
    assert not together[:, where, 3:].any()
    (together[:, :, :3].mT @ padded).square().sum().backward()
    assert padded.grad is not None and not padded.grad[mask == 0].any()


def test_without_steps_only_the_first_assignment_counts() -> None:
    built = model(True)
    x = full(torch.randn(2, N, D))
    assert built.initial is not None
    assert_close(built(x, steps=0), sinkhorn(built.initial(x.x), 4))
    assert_close(model()(x, steps=0), torch.full((2, N, N), 1 / N))
    assert not torch.equal(built(x), built(x, steps=3))


def test_steps_descend_the_total_cost() -> None:
    built = model()
    nn.init.constant_(built.step_size, -3.0)  # its absolute value is used
    s = full(torch.randn(8, N, D))
    costs = built.costs(s.x, s.mask)
    assert_close(torch.linalg.vector_norm(costs, dim=(-2, -1)), torch.ones(8, 1))
    totals = torch.stack([total_cost(costs, built(s, steps=t), (N,)) for t in range(5)])
    assert (totals[1:] < totals[:-1]).all()
    assert_close(totals[0], torch.zeros(8), atol=1e-12, rtol=0)


def test_equal_elements_cost_nothing() -> None:
    built = model()
    s = full(torch.ones(1, N, D).requires_grad_())
    p = built(s)
    assert_close(p, torch.full((1, N, N), 1 / N))
    p.square().sum().backward()
    assert all(w.grad is None or w.grad.isfinite().all() for w in built.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds=0"),
        ({"cost": None}, "steps=4: needs a cost"),
        ({"cost": None, "steps": 0}, "both null"),
        ({"masked": True, "shape": [2, 3]}, "only sequences"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)
