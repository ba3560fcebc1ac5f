"""What iDSPN's gradient is, and that nothing else sets it apart from an unrolled DSPN.

Let g(Y, t) be the slope of the inner objective at the set Y, where t is whatever the decoder is
differentiated for: z, the encoder's weights, or the initial set in a regulariser. Write H = dg/dY,
B = dg/dt, s for the step size and P for the Jacobian of the projection (the identity without one).

- Unrolled: Y' = proj(Y - s g), so J' = P (J - s H J - s B) for J = dY/dt. Where this has converged
  without projection, H J = -B, whatever s and momentum are: iDSPN's Eq. 43.
- Implicit: J = -P B at the last set (Eq. 9 and 10).

Hence *implicit = H unrolled* at convergence, and (I - P (I - H)) unrolled under a projection. Both
agree where H is the identity; the implicit gradient differs from the true one by curvature alone.
Before convergence, one unrolled step is s times an implicit one.
"""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_idspn import Given, draw_biases, fspool, idspn, set_encoder, whole
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from setexp.decoders.dspn import DSPN, Gradient, RegulariserReduction
from setexp.decoders.initial import LearnedSet, RandomSet, SetInit
from setexp.encoders.pooling import SumPool
from setexp.encoders.set_encoder import SetEncoder
from setexp.errors import ConfigError
from setexp.ops.descent import Projection, Reduction
from setexp.sets import Encoding, SetBatch
from setexp.training.seeds import stackable

pytestmark = pytest.mark.usefixtures("float64")

B, N, D, L = 2, 3, 3, 2  # sets, elements, features, latent
seeds = st.integers(0, 2**16)
projections = st.sampled_from(Projection)


def encoder_of(
    kind: str = "fspool", *, features: int = D, latent: int = L, positions: int = N
) -> SetEncoder:
    """Linear with a sum ("linear"), or a ReLU network on elements ("fspool") or pairs."""
    pairs = kind == "pairs"
    widths = [features, latent] if kind == "linear" else [features, 6, latent]
    pool = fspool(latent, positions**2 if pairs else positions)
    model = set_encoder(widths, SumPool(masked=False) if kind == "linear" else pool, pairs=pairs)
    draw_biases(model)
    return model


def objective(
    encoder: nn.Module, z: Tensor, rows: Tensor, *, initial: Tensor, regulariser: float = 0.0,
    known: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The inner objective of each set, (B,), written out."""
    encoded = encoder(whole(rows if known is None else torch.cat([rows, known], -1))).z
    distance = (encoded - z).square().sum(-1) / (2 * z.shape[-1])
    return distance + regulariser / 2 * (rows - initial).square().sum((-2, -1))


# The gradient


@pytest.mark.parametrize(
    ("kind", "regulariser", "projection"),
    [
        ("linear", 0.0, Projection.none),
        ("linear", 0.2, Projection.none),
        ("linear", 0.2, Projection.mask),
        ("linear", 0.0, Projection.simplex),
        ("linear", 0.2, Projection.simplex),
        ("fspool", 0.0, Projection.none),
        ("fspool", 0.2, Projection.none),
    ],
)
def test_implicit_is_the_hessian_times_unrolled(
    kind: str, regulariser: float, projection: Projection
) -> None:
    """v' implicit = w' unrolled, with w = (I - (I - H) P) v: without a projection, w = H v.

    Finite differences of the set at which the descent arrives agree.
    """
    encoder = encoder_of(kind)
    goal = torch.randn(B, N, D)  # may lie outside, so that the descent ends at the border
    z = (encoder(whole(goal)).z.detach() + 0.01 * torch.randn(B, L)).requires_grad_()
    initial = Given(projection(goal + 0.1 * torch.randn(B, N, D)))
    inputs = [z, *encoder.parameters()] + ([initial.rows] if regulariser else [])

    def decode(gradient: Gradient) -> Tensor:
        model = idspn(
            encoder, initial, gradient=gradient, steps=60, step_size=0.7, momentum=0.5,
            nesterov=True, projection=projection, regulariser=regulariser,
            regulariser_reduction=RegulariserReduction.sum,
        )  # fmt: skip
        return model(Encoding(z)).x[-1]

    def ahead(rows: Tensor) -> Tensor:
        slope = torch.func.grad(
            lambda y: objective(encoder, z, y, initial=initial.rows, regulariser=regulariser).sum()
        )
        return rows - slope(rows)

    def residual(rows: Tensor) -> Tensor:
        """Zero at the end of the descent (Eq. 10)."""
        return projection(ahead(rows)) - rows

    implicit, unrolled = decode(Gradient.implicit), decode(Gradient.unrolled)
    v = torch.randn(B, N, D)
    end = implicit.detach().requires_grad_()
    left = residual(end)
    assert left.abs().max() < 1e-9, "the descent has not converged"
    assert (projection is Projection.none) == bool((ahead(implicit) - implicit).abs().max() < 1e-3)
    w = -torch.autograd.grad(left, end, v)[0]
    ours = torch.autograd.grad((implicit * v).sum(), inputs)
    assert max(gradient.abs().max() for gradient in ours) > 1e-3
    assert_close(ours, torch.autograd.grad((unrolled * w).sum(), inputs), rtol=1e-6, atol=1e-7)

    shifts, values = [torch.randn_like(t) for t in inputs], []
    with torch.no_grad():
        for sign in (1, -2, 1):  # the last returns to the beginning
            for t, shift in zip(inputs, shifts, strict=True):
                t += sign * 1e-6 * shift
            values.append((decode(Gradient.implicit) * w).sum())
    along = sum((g * shift).sum() for g, shift in zip(ours, shifts, strict=True))
    assert_close((values[0] - values[1]) / 2e-6, along, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["linear", "fspool", "pairs"])
def test_an_unrolled_step_is_an_implicit_one_times_its_size(kind: str, momentum: float) -> None:
    """One step from anywhere; Nesterov's first is 1 + momentum times as long."""
    encoder, z = encoder_of(kind), torch.randn(B, L, requires_grad=True)
    rows, v = torch.randn(B, N, D), torch.randn(B, N, D)
    found = {}
    for gradient in Gradient:
        model = idspn(
            encoder, rows, gradient=gradient, steps=1, step_size=0.3, momentum=momentum,
            nesterov=momentum > 0,
        )  # fmt: skip
        decoded = model(Encoding(z)).x[-1]
        found[gradient] = torch.autograd.grad((decoded * v).sum(), [z, *encoder.parameters()])
    scaled = tuple(0.3 * (1 + momentum) * g for g in found[Gradient.implicit])
    assert_close(found[Gradient.unrolled], scaled)


@pytest.mark.parametrize("projection", Projection)
def test_a_projected_step_of_size_one_is_an_implicit_one(projection: Projection) -> None:
    encoder, z = encoder_of(), torch.randn(B, L, requires_grad=True)
    rows, v = torch.rand(B, N, D), torch.randn(B, N, D)
    found = []
    for gradient in Gradient:
        model = idspn(encoder, rows, gradient=gradient, steps=1, projection=projection)
        decoded = model(Encoding(z)).x[-1]
        found.append(torch.autograd.grad((decoded * v).sum(), [z, *encoder.parameters()]))
    assert_close(*found)


@given(seeds, st.integers(0, 8))
def test_unrolled_gradients_of_a_quadratic(seed: int, steps: int) -> None:
    """J after T steps is -(I + (I - sH) + ... + (I - sH)^(T-1)) s B; implicit is -B at any T."""
    torch.manual_seed(seed)
    encoder, z, rows = encoder_of("linear"), torch.randn(1, L), torch.randn(1, N, D)

    def slope(rows: Tensor, z: Tensor) -> Tensor:
        total = torch.func.grad(lambda y: objective(encoder, z, y, initial=y).sum())
        return total(rows.reshape(1, N, D)).flatten()

    hessian, b = (f.detach() for f in torch.func.jacrev(slope, (0, 1))(rows.flatten(), z))
    b, size = b.reshape(N * D, L), 0.2
    powers = [torch.linalg.matrix_power(torch.eye(N * D) - size * hessian, t) for t in range(steps)]
    expected = {Gradient.unrolled: -sum(powers, torch.zeros(N * D, N * D)) @ b * size}
    expected[Gradient.implicit] = -b if steps else torch.zeros_like(b)
    for gradient in Gradient:
        model = idspn(encoder, rows, gradient=gradient, steps=steps, step_size=size)
        jacobian = torch.func.jacrev(lambda z, m=model: m(Encoding(z)).x[-1].flatten())(z)
        assert_close(jacobian.reshape(N * D, L), expected[gradient])


def sorted_coordinates() -> SetEncoder:
    """FSPool that lists every sorted coordinate, scaled so that the Hessian is the identity."""
    encoder = encoder_of("linear", latent=N * D)
    encoder.pooling = fspool(N * D, N)
    with torch.no_grad():
        linear = encoder.elements.mlp[0]
        linear.weight.copy_(torch.eye(D).repeat_interleave(N, 0) * (N * D) ** 0.5)
        linear.bias.zero_()
        encoder.pooling.weights.weight.copy_(torch.eye(N).repeat(D, 1))
    return encoder


@given(seeds, st.integers(1, 4))
def test_where_the_hessian_is_the_identity_implicit_is_exact(seed: int, steps: int) -> None:
    torch.manual_seed(seed)
    encoder, goal = sorted_coordinates(), torch.randn(B, N, D)
    z = encoder(whole(goal)).z.detach().requires_grad_()
    rows, v = torch.randn(B, N, D), torch.randn(B, N, D)

    def one(y: Tensor) -> Tensor:
        return objective(encoder, z[:1], y.reshape(1, N, D), initial=rows[:1]).sum()

    hessian = torch.func.jacrev(torch.func.grad(one))(rows[0].flatten())
    assert_close(hessian.detach(), torch.eye(N * D))
    found = []
    for gradient in Gradient:
        decoded = idspn(encoder, rows, gradient=gradient, steps=steps)(Encoding(z)).x[-1]
        assert_close(encoder(whole(decoded)).z, z)  # one step arrives
        found.append(torch.autograd.grad((decoded * v).sum(), [z, *encoder.parameters()]))
    assert_close(*found)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("reduction", RegulariserReduction)
def test_an_initial_set_learns_from_the_regulariser_alone(
    reduction: RegulariserReduction, steps: int
) -> None:
    """The slope's share of it is -r (Y - Y0), so its gradient is r times that of the set."""
    initial = LearnedSet(set_size=N, element_dim=D, init=SetInit.normal, std=0.1, mask=None)
    encoder, z, v = encoder_of(), torch.randn(B, L), torch.randn(B, N, D)
    for regulariser in (0.0, 0.1):
        model = idspn(
            encoder, initial, steps=steps, regulariser=regulariser, regulariser_reduction=reduction
        )
        total = (model(Encoding(z)).x[-1] * v).sum()
        (gradient,) = torch.autograd.grad(total, initial.x, allow_unused=True)
        if regulariser:
            share = N * D if reduction is RegulariserReduction.mean else 1
            assert_close(gradient, regulariser / share * v.sum(0))
        else:
            assert gradient is None or not gradient.any()


# Everything else


@pytest.mark.parametrize("momentum", ["none", "heavy ball", "nesterov"])
@given(
    seed=seeds, clip=st.sampled_from([None, 0.05]), projection=projections,
    reduction=st.sampled_from(Reduction), condition=st.booleans(),
    regulariser=st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_steps_are_those_of_sgd_on_each_set(
    momentum: str, seed: int, clip: float | None, projection: Projection, reduction: Reduction,
    condition: bool, regulariser: float,
) -> None:  # fmt: skip
    """Both gradients give the sets of `torch.optim.SGD`, with each set's slope clipped alone."""
    torch.manual_seed(seed)
    encoder = encoder_of(features=D + 2 * condition)
    z, initial = 3 * torch.randn(B, L), torch.rand(B, N, D)
    known = torch.randn(B, N, 2) if condition else None
    rule = {"momentum": 0.0 if momentum == "none" else 0.9, "nesterov": momentum == "nesterov"}
    rows = [nn.Parameter(row.clone()) for row in projection(initial)]
    sgd = torch.optim.SGD(rows, lr=0.6 / (B if reduction is Reduction.batch_mean else 4), **rule)
    expected = [torch.stack(rows).detach()]
    for _ in range(4):
        sgd.zero_grad()
        objective(
            encoder, z, torch.stack(rows), initial=initial, regulariser=regulariser, known=known
        ).sum().backward()
        if clip is not None:
            norms = [nn.utils.clip_grad_norm_([row], clip) for row in rows]
            assert max(norms) > clip
        sgd.step()
        with torch.no_grad():
            for row in rows:
                row.copy_(projection(row))
        expected.append(torch.stack(rows).detach())
    encoding = Encoding(z, elements=None if known is None else whole(known))
    for gradient in Gradient:
        model = idspn(
            encoder, initial, gradient=gradient, steps=4, step_size=0.6, reduction=reduction,
            reference_batch_size=4, clip=clip, projection=projection, condition=condition,
            regulariser=regulariser, regulariser_reduction=RegulariserReduction.sum, **rule,
        )  # fmt: skip
        assert_close(model.eval()(encoding).x, torch.stack(expected))


@given(seeds, st.integers(0, 4), projections)
def test_training_holds_the_last_set_alone(seed: int, steps: int, projection: Projection) -> None:
    torch.manual_seed(seed)
    rows, encoding = torch.rand(B, N, D), Encoding(torch.randn(B, L))
    encoder, how = encoder_of(), {"projection": projection, "momentum": 0.9, "nesterov": True}
    model = idspn(encoder, rows, steps=20, **how)
    trained = model(encoding, steps=steps).x
    evaluated = model.eval()(encoding, steps=steps).x
    assert trained.shape == (1, B, N, D)
    assert evaluated.shape == (steps + 1, B, N, D)
    assert torch.equal(trained[-1], evaluated[-1])
    assert torch.equal(evaluated[0], projection(rows))
    unrolled = idspn(encoder, rows, gradient=Gradient.unrolled, **how)
    assert torch.equal(unrolled(encoding, steps=steps).x, evaluated)
    with torch.no_grad():
        assert torch.equal(model(encoding, steps=steps).x, evaluated)


@pytest.mark.parametrize("training", [False, True])
def test_without_steps_the_initial_set_is_decoded(training: bool) -> None:
    model = idspn(encoder_of(), torch.rand(N, D), regulariser=0.1).train(training)
    decoded = model(Encoding(torch.randn(B, L)), steps=0).x
    assert torch.equal(decoded, model.initial.rows.expand(1, B, N, D))
    (gradient,) = torch.autograd.grad(decoded.sum(), model.initial.rows)
    assert_close(gradient, torch.full((N, D), float(B)))


def held(output: Tensor) -> tuple[int, int]:
    """Operations that autograd remembers, and the numbers they keep."""
    seen, numbers, ahead = set(), 0, [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [before for before, _ in node.next_functions]
        saved = (getattr(node, name) for name in dir(node) if name.startswith("_saved_"))
        numbers += sum(t.numel() for t in saved if isinstance(t, Tensor))
    return len(seen), numbers


@pytest.mark.parametrize("gradient", Gradient)
def test_memory_of_the_implicit_gradient_does_not_grow_with_steps(
    gradient: Gradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what autograd holds afterwards, nor sets and slopes on the way."""
    model = idspn(encoder_of(), torch.rand(N, D), gradient=gradient, momentum=0.9, nesterov=True)
    z, step = torch.randn(B, L, requires_grad=True), model.descent.step
    sets: list[weakref.ref[Tensor]] = []
    alive, differentiable = [], []

    def spy(rows: Tensor, slope: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor]:
        alive.append(sum(before() is not None for before in sets))
        differentiable.append(slope.requires_grad)
        after, buffer = step(rows, slope, buffer)
        sets.append(weakref.ref(after))
        return after, buffer

    few = held(model(Encoding(z), steps=2).x)
    monkeypatch.setattr(model.descent, "step", spy)
    many = held(model(Encoding(z), steps=20).x)
    assert min(few) > 0
    if gradient is Gradient.implicit:
        assert many == few
        assert max(alive) <= 1
        assert differentiable == [False] * 19 + [True]
    else:
        assert all(more > 5 * less for more, less in zip(many, few, strict=True))
        assert max(alive) == 19
        assert all(differentiable)


def everything(initial: nn.Module) -> DSPN:
    """All that may be switched on."""
    return idspn(
        encoder_of(features=D + 3), initial, steps=3, regulariser=0.1, momentum=0.9,
        nesterov=True, clip=0.1, projection=Projection.simplex, condition=True,
    )  # fmt: skip


def learned(*, mask: float | None = None) -> LearnedSet:
    return LearnedSet(set_size=N, element_dim=D, init=SetInit.normal, std=0.1, mask=mask)


def test_compiles_as_one_graph() -> None:
    torch.compiler.reset()  # forget the graphs of other tests
    model, z, known = everything(learned()), torch.randn(B, L), torch.randn(B, N, 3)

    def decode(z: Tensor) -> Tensor:
        return model(Encoding(z, elements=SetBatch(known, known[..., 0]))).x

    results = []
    for function in (torch.compile(decode, backend="aot_eager", fullgraph=True), decode):
        decoded = function(z)
        gradients = torch.autograd.grad(decoded.sin().sum(), list(model.parameters()))
        results.append((decoded, *gradients))
    assert_close(*results)


def test_seeds_stack() -> None:
    models = [everything(learned()) for _ in range(3)]
    together, _ = stack_module_state(models)
    z, known = torch.randn(3, B, L), torch.randn(3, B, N, 3)

    def decode(p: dict[str, Tensor], z: Tensor, known: Tensor) -> Tensor:
        encoding = Encoding(z, elements=SetBatch(known, known[..., 0]))
        return functional_call(models[0], p, (encoding,)).x

    decoded = vmap(decode)(together, z, known)
    decoded.sin().sum().backward()
    for i, model in enumerate(models):
        alone = model(Encoding(z[i], elements=SetBatch(known[i], known[i, ..., 0]))).x
        assert_close(decoded[i], alone)
        alone.sin().sum().backward()
        for name, parameter in model.named_parameters():
            assert_close(together[name].grad[i], parameter.grad)


def test_known_features_need_an_encoded_set() -> None:
    with pytest.raises(ConfigError, match="this decoder reads elements"):
        everything(learned())(Encoding(torch.randn(B, L)))


# Initial sets


@pytest.mark.parametrize("mask", [False, True])
def test_random_sets_are_drawn_for_every_sample_and_call(mask: bool) -> None:
    initial = RandomSet(set_size=40, element_dim=D, std=0.1, mask=mask)
    encoding = Encoding(torch.zeros(50, L))
    torch.manual_seed(1)
    first, second = initial(encoding), initial(encoding)
    torch.manual_seed(1)
    assert torch.equal(initial(encoding), first)
    assert first.shape == (50, 40, D + mask)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert abs(first.std() - 0.1) < 0.01
    assert abs(first.mean()) < 0.01


@pytest.mark.parametrize(
    ("given", "drawn"),
    [(torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2],
)
def test_random_sets_are_never_in_half_precision(given: torch.dtype, drawn: torch.dtype) -> None:
    initial = RandomSet(set_size=N, element_dim=D, std=0.1, mask=False)
    assert initial(Encoding(torch.zeros(B, L, dtype=given))).dtype == drawn


@pytest.mark.parametrize("init", SetInit)
def test_learned_sets_start_uniform_or_normal(init: SetInit) -> None:
    initial = LearnedSet(set_size=500, element_dim=D, init=init, std=0.1, mask=None)
    rows = initial(Encoding(torch.zeros(B, L)))
    assert torch.equal(rows, initial.x.expand(B, 500, D))
    mean, std = (0.5, 12**-0.5) if init is SetInit.uniform else (0.0, 0.1)
    assert abs(rows.mean() - mean) < 0.05
    assert abs(rows.std() - std) < 0.02


def test_random_sets_keep_seeds_from_stacking() -> None:
    drawn = RandomSet(set_size=N, element_dim=D, std=0.1, mask=False)
    assert stackable(idspn(encoder_of(), learned()))
    assert not stackable(idspn(encoder_of(), drawn))
