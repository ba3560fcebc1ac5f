"""Which order matters where: invariance, and the two kinds of equivariance (iDSPN, 2 and A).

A function f of a list X of elements is *set-equivariant* if f(PX) = P f(X) for every permutation P.
It is *multiset-equivariant* if for every P there is a Q with QX = PX and f(PX) = Q f(X). Only the
second lets equal elements have different values. Gradients of invariant encoders, and with them
DSPN, are of the second kind; those that sort are of the second kind alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from small_idspn import Given, draw_biases, fspool, idspn, set_encoder, whole
from smoke_runs import ROOT
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.build import build
from setexp.config import compose_run, plain
from setexp.decoders.dspn import Gradient
from setexp.encoders.pooling import MaxPool, MeanPool, SumPool
from setexp.encoders.set_encoder import SetEncoder
from setexp.losses.base import Steps
from setexp.losses.hungarian import HungarianLoss
from setexp.metrics.equivariance import Deviations, deviations
from setexp.ops.costs import Cost
from setexp.ops.descent import Projection
from setexp.sets import Encoding, SetBatch

pytestmark = pytest.mark.usefixtures("float64")

B, N, D, C = 2, 4, 2, 3  # sets, elements, their features, encoded features
POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "fspool": lambda rows: fspool(C, rows),
    "fspool relaxed": lambda rows: fspool(C, rows, relaxed=True),
    "sum": lambda rows: SumPool(masked=False),
    "mean": lambda rows: MeanPool(masked=False, by_set_size=False),
    "max": lambda rows: MaxPool(masked=False),
}
SORTS = "fspool"  # the only one; the relaxed sort is continuous
ELEMENTS = ("elements", "pairs")
ORDERS = torch.tensor(list(itertools.permutations(range(N))))
ROUNDING = 1e-8

SetFunction = Callable[[Tensor], Tensor]  # sets (B, N, F) to (B, N, G)
seeds = st.integers(0, 2**16)
# which of three vectors each element is: sets with equal elements
repeated = st.lists(st.integers(0, 2), min_size=N, max_size=N).map(torch.tensor)


def encoder_of(pooling: str, elements: str = "elements", *, features: int = D) -> SetEncoder:
    pairs = elements == "pairs"
    pool = POOLINGS[pooling](N * N if pairs else N)
    model = set_encoder([features, 16, C], pool, head=[C, C], pairs=pairs)
    draw_biases(model)
    return model


def gradient_of(encoder: nn.Module) -> SetFunction:
    """The gradient of a function of the encoding."""
    cotangent = torch.randn(C)
    return torch.func.grad(lambda x: (encoder(whole(x)).z.sin() @ cotangent).sum())


def measured(f: SetFunction, x: Tensor) -> Deviations:
    """At one list (N, F), over all its orders."""
    return deviations(f, x.expand(len(ORDERS), *x.shape), ORDERS)


# Gradients of encoders


@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=seeds, which=repeated)
def test_gradients_of_invariant_encoders(
    pooling: str, elements: str, seed: int, which: Tensor
) -> None:
    """Multiset-equivariant all of them; set-equivariant among equal elements unless they sort."""
    torch.manual_seed(seed)
    f = gradient_of(encoder_of(pooling, elements))
    distinct, equal = measured(f, torch.randn(N, D)), measured(f, torch.randn(3, D)[which])
    assert max(distinct) < ROUNDING
    assert equal.multiset < ROUNDING
    assert equal.set < ROUNDING or pooling == SORTS


@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=seeds)
def test_only_sorting_tells_equal_elements_apart(pooling: str, elements: str, seed: int) -> None:
    torch.manual_seed(seed)
    f, x = gradient_of(encoder_of(pooling, elements)), torch.randn(N, D)
    x[1] = x[0]
    first, second = f(x.unsqueeze(0))[0, :2]
    assert torch.allclose(first, second) == (pooling != SORTS)
    assert (measured(f, x).set < ROUNDING) == (pooling != SORTS)


def pushing(features: int) -> SetFunction:
    """The gradient of an FSPool with weights -1 for the smaller and 1 for the larger of two."""
    pool = fspool(features, 2)
    pool.weights.load_state_dict({"weight": torch.tensor([-1.0, 1.0]).expand(features, 2)})
    return torch.func.grad(lambda x: pool(x, torch.ones(1, 2))[0].sum())


def test_elements_that_share_some_features_are_the_exception() -> None:
    """The first feature is shared, where sorting has no gradient; which one is taken depends on
    the order, and the rest of the element does not follow."""
    x = torch.tensor([[[0.0, 1.0], [0.0, 2.0]]])
    assert pushing(2)(x).tolist() == [[[-1, -1], [1, 1]]]
    assert pushing(2)(x.flip(1)).tolist() == [[[-1, 1], [1, -1]]]


# The function that pushes two numbers apart (iDSPN, Eq. 1 and A.1)


def push_apart(x: Tensor) -> Tensor:
    """Two numbers (2,): the smaller less 1, the larger plus 1, the first being smaller in a tie."""
    a, b = x
    return torch.stack([a - 1, b + 1] if a <= b else [a + 1, b - 1])


def by_autograd(x: Tensor) -> Tensor:
    """The transposed Jacobian of sorting carries -1 to the smaller and 1 to the larger."""
    jacobian = torch.func.jacrev(lambda x: x.sort(stable=True).values)(x)
    return x + jacobian.mT @ torch.tensor([-1.0, 1.0])


def by_fspool(x: Tensor) -> Tensor:
    """One step along FSPool's gradient."""
    return x + pushing(1)(x.reshape(1, 2, 1)).flatten()


BY = [by_autograd, by_fspool]


@pytest.mark.parametrize("implementation", BY)
@given(a=st.integers(-2, 2), shift=st.sampled_from([0.0, 0.5]), b=st.integers(-2, 2))
def test_push_apart_is_a_step_along_the_jacobian_of_sorting(
    implementation: Callable[[Tensor], Tensor], a: int, shift: float, b: int
) -> None:
    x = torch.tensor([a + shift, float(b)])
    assert torch.equal(implementation(x), push_apart(x))


@pytest.mark.parametrize("implementation", [push_apart, *BY])
def test_push_apart_worked_by_hand(implementation: Callable[[Tensor], Tensor]) -> None:
    for x, expected in (([1.0, 2.0], [0, 3]), ([2.0, 1.0], [3, 0]), ([0.0, 0.0], [-1, 1])):
        assert implementation(torch.tensor(x)).tolist() == expected


@given(st.lists(st.integers(0, 4), min_size=N, max_size=N))
def test_the_jacobian_of_sorting(values: list[int]) -> None:
    """A permutation matrix; transposed, its rows belong to elements (Proposition 2)."""
    x = torch.tensor(values, dtype=torch.float64)
    f = torch.func.vmap(
        lambda x: (
            torch.func.jacrev(lambda x: x.flatten().sort(stable=True).values)(x).squeeze(-1).mT
        )
    )
    jacobian = f(x.reshape(1, N, 1))[0].mT
    assert_close(jacobian @ jacobian.mT, torch.eye(N))
    assert torch.equal(jacobian @ x, x.sort().values)
    found = measured(f, x.unsqueeze(-1))
    assert found.multiset == 0
    assert (found.set == 0) == (len(set(values)) == N)


@given(st.floats(1e-9, 0.5))
def test_push_apart_is_continuous_on_multisets_but_not_on_lists(shift: float) -> None:
    """B.1: from [0, 0] to [e, 0] the list moves by 4 + e, the multiset by e."""
    before, after = (push_apart(torch.tensor([e, 0.0])) for e in (0.0, shift))
    assert_close((after - before).abs().sum().item(), 4 + shift)
    loss = HungarianLoss(cost=Cost.l2, steps=Steps.last, mask_channel=False, set_size=2, max_size=2)
    moved = 2 * loss(whole(before.reshape(1, 1, 2, 1)), whole(after.reshape(1, 2, 1)))
    assert_close(moved.item(), shift)


# Decoders that descend


@pytest.mark.parametrize("gradient", Gradient)
@given(
    seed=seeds, pooling=st.sampled_from([*POOLINGS]), elements=st.sampled_from(ELEMENTS),
    projection=st.sampled_from(Projection), momentum=st.sampled_from([0.0, 0.9]),
    clip=st.sampled_from([None, 0.1]), condition=st.booleans(),
)  # fmt: skip
def test_decoded_sets_follow_the_order_of_the_initial_set(
    gradient: Gradient, seed: int, pooling: str, elements: str, projection: Projection,
    momentum: float, clip: float | None, condition: bool,
) -> None:  # fmt: skip
    """And of the known features, which are permuted alike."""
    torch.manual_seed(seed)
    encoder = encoder_of(pooling, elements, features=D + 2 * condition)
    rows, known, z = torch.rand(B, N, D), torch.randn(B, N, 2), torch.randn(B, C)
    order, decoded = torch.randperm(N), []
    for start, features in ((rows, known), (rows[:, order], known[:, order])):
        model = idspn(
            encoder, start, gradient=gradient, steps=3, step_size=0.3, projection=projection,
            momentum=momentum, nesterov=momentum > 0, clip=clip, condition=condition,
            regulariser=0.1,
        )  # fmt: skip
        encoding = Encoding(z, elements=whole(features) if condition else None)
        decoded.append(model.eval()(encoding).x)
    assert (decoded[0][-1] - decoded[0][0]).abs().max() > 1e-4
    assert_close(decoded[1], decoded[0][:, :, order], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("gradient", Gradient)
@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_sorting_leaves_an_initial_set_of_equal_elements(
    pooling: str, elements: str, gradient: Gradient
) -> None:
    encoder, rows = encoder_of(pooling, elements), torch.randn(D).expand(N, D)
    for steps in (1, 5):
        model = idspn(encoder, rows, gradient=gradient, steps=steps, momentum=0.9, nesterov=True)
        last = model(Encoding(torch.randn(B, C))).x[-1]
        assert (last - rows).abs().max() > 1e-3
        spread = (last - last[:, :1]).abs().amax((1, 2))
        assert bool((spread > 1e-3 if pooling == SORTS else spread < 1e-10).all())


@pytest.mark.parametrize("pooling", ["fspool", "sum"])
def test_elements_that_a_projection_made_equal_part_again_if_sorted(pooling: str) -> None:
    """iDSPN, 3: all are projected onto one corner of the simplex."""
    rows = torch.tensor([9.0, 0.0]) + torch.rand(N, D)
    model = idspn(encoder_of(pooling), rows, projection=Projection.simplex, steps=8, step_size=9.0)
    sets = model.eval()(Encoding(3 * torch.randn(B, C))).x
    assert torch.equal(sets[0], torch.tensor([1.0, 0.0]).expand(B, N, D))
    assert bool((sets - sets[:, :, :1]).abs().max() > 0.1) == (pooling == SORTS)


@pytest.mark.parametrize("pooling", ["fspool", "sum"])
@given(
    seed=seeds, which=repeated, gradient=st.sampled_from(Gradient),
    momentum=st.sampled_from([0.0, 0.9]),
)  # fmt: skip
def test_decoding_follows_the_known_features(
    pooling: str, seed: int, which: Tensor, gradient: Gradient, momentum: float
) -> None:
    """From equal rows, the decoder is multiset-equivariant in the encoded set (iDSPN, 3): what the
    numbering of equal elements needs, and what a sum cannot do."""
    torch.manual_seed(seed)
    known, z = torch.randn(3, 2)[which], torch.randn(1, C)
    model = idspn(
        encoder_of(pooling, features=D + 2), torch.zeros(N, D), gradient=gradient, condition=True,
        momentum=momentum, nesterov=momentum > 0,
    )  # fmt: skip

    def decode(known: Tensor) -> Tensor:
        return model(Encoding(z.expand(len(known), C), elements=whole(known))).x[-1].detach()

    found, twins = measured(decode, known), len(set(which.tolist())) < N
    assert found.multiset < ROUNDING
    assert (found.set < ROUNDING) == (pooling != SORTS or not twins)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_remembers_elements_that_a_projection_made_equal(momentum: float) -> None:
    """The exception: equal elements with unequal momenta, told apart by the order alone.

    Weights 1 and 2, masks 0.9 and 1, z = 2.95: the first step clamps both masks to 1, the second
    turns back. Without momentum the order does not matter.
    """
    encoder = set_encoder([1], fspool(1, 2))
    encoder.pooling.weights.load_state_dict({"weight": torch.tensor([[1.0, 2.0]])})
    decoded, how = [], {"step_size": 3.0, "momentum": momentum, "projection": Projection.mask}
    for rows in (torch.tensor([[1.0], [0.9]]), torch.tensor([[0.9], [1.0]])):
        sets = idspn(encoder, rows, steps=2, **how).eval()(Encoding(torch.tensor([[2.95]]))).x
        assert sets[1].flatten().tolist() == [1, 1]
        decoded.append(sets[-1].sort(-2).values)
    assert torch.allclose(*decoded) == (momentum == 0)


# Every config


def configs(group: str, kind: str) -> list[str]:
    """Configs of a group that build this class, named there or in the config they begin with."""

    def target(name: str) -> str:
        node: dict[str, Any] = yaml.safe_load((ROOT / f"configs/{group}/{name}.yaml").read_text())
        bases = [base for base in node.get("defaults", []) if isinstance(base, str)]
        return node.get("_target_") or next((target(base) for base in bases), "")

    names = sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))
    return [name for name in names if target(name).endswith(f".{kind}")]


def part(key: str, *choices: str) -> nn.Module:
    """A part built from its config, for sets of N elements of D features."""
    sizes = [f"dataset.set_size={N}", f"dataset.element_dim={D}", "hidden=8", f"latent={C}"]
    composed = compose_run(["dataset=clevr_state", "loss=hungarian", *sizes, *choices])
    if key == "decoder" and OmegaConf.is_missing(composed.decoder, "set_encoder"):
        composed.decoder.set_encoder = None  # it is handed one
    return build(plain(composed)[key], key)


SET_ENCODERS, DSPNS = configs("encoder", "SetEncoder"), configs("decoder", "DSPN")
ALL_POOLINGS = sorted(path.stem for path in (ROOT / "configs/pooling").glob("*.yaml"))


def test_the_sweep_is_complete() -> None:
    assert {"deep_sets", "relation", "idspn_set", "idspn_relation"} <= {*SET_ENCODERS}
    assert {"fspool", "fspool_fixed", "max", "mean", "sum"} <= {*ALL_POOLINGS}
    assert {"dspn", "dspn_relation", "idspn", "idspn_elements"} <= {*DSPNS}


@pytest.mark.parametrize(
    "choices",
    [
        *([f"encoder={name}"] for name in SET_ENCODERS),
        *(["encoder=deep_sets", f"pooling@encoder.pooling={name}"] for name in ALL_POOLINGS),
    ],
    ids=lambda choices: choices[-1],
)
def test_no_set_encoder_sees_the_order(choices: list[str]) -> None:
    encoder, order = part("encoder", *choices), torch.randperm(N)
    s = SetBatch(torch.randn(3, N, D), (torch.arange(N) < torch.tensor([[N], [2], [0]])).double())
    before, after = encoder(s), encoder(SetBatch(s.x[:, order], s.mask[:, order]))
    assert_close(after.z, before.z)
    assert_close(after.elements.x, before.elements.x[:, order])


@pytest.mark.parametrize("name", DSPNS)
def test_every_dspn_follows_the_order_of_its_initial_set(name: str) -> None:
    decoder, order = part("decoder", f"decoder={name}"), torch.randperm(N)
    handed, guess = part("encoder", "encoder=relation"), whole(torch.rand(B, N, D))
    encoding = Encoding(torch.randn(B, C), elements=guess)
    rows, decoded = torch.rand_like(decoder.initial(encoding)), []
    for start in (rows, rows[:, order]):
        decoder.initial = Given(start)
        decoded.append(decoder.eval()(encoding, encode=handed, steps=3).with_mask_channel())
    assert_close(decoded[1], decoded[0][:, :, order])
    assert not torch.equal(decoded[0][-1], decoded[0][0])
