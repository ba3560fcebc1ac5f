"""Laws of DSPN's inner optimisation, and of its gradient through all inner steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_dspn import POOLINGS, B, D, L, N, dspn, set_encoder, target
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.decoders.dspn import DSPN
from setexp.encoders.set_encoder import ElementMLP, PairMLP
from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss
from setexp.ops.costs import Cost
from setexp.ops.descent import Reduction
from setexp.sets import Batch, Encoding, SetBatch
from setexp.tasks.autoencode import AutoEncode
from setexp.tasks.predict import Predict

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**16)


def objectives(encoder: nn.Module, sets: SetBatch, z: Tensor) -> Tensor:
    """Inner objective of each set after each step, (T + 1, B)."""
    each = zip(sets.x, sets.mask, strict=True)
    distances = [F.smooth_l1_loss(encoder(SetBatch(*s)).z, z, reduction="none") for s in each]
    return torch.stack(distances).mean(-1)


def test_the_first_set_is_the_learned_one() -> None:
    model = dspn(set_encoder())
    assert model.initial.x.shape == (N, D)
    assert model.initial.x.min() >= 0
    assert model.initial.x.max() <= 1
    assert model.initial.mask.tolist() == [[0.5]] * N
    decoded = model(Encoding(torch.randn(B, L)))
    assert decoded.x.shape == (5, B, N, D)
    assert decoded.mask.shape == (5, B, N)
    assert torch.equal(decoded.x[0], model.initial.x.expand(B, N, D))
    assert torch.equal(decoded.mask[0], model.initial.mask[:, 0].expand(B, N))


@given(seeds, st.sampled_from([1.0, 100.0, 10_000.0]))
def test_masks_stay_between_zero_and_one(seed: int, step_size: float) -> None:
    torch.manual_seed(seed)
    model = dspn(set_encoder(), step_size=step_size)
    nn.init.uniform_(model.initial.mask, -1, 2)
    masks = model(Encoding(torch.randn(B, L))).mask
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert torch.equal(masks[0], model.initial.mask[:, 0].clamp(0, 1).expand(B, N))


def test_step_sizes_refer_to_the_batch_or_to_the_reference_batch() -> None:
    encoder = set_encoder()
    mean = dspn(encoder)
    sample = dspn(encoder, reduction=Reduction.per_sample)
    sample.load_state_dict(mean.state_dict())
    z = torch.randn(B, L)
    assert_close(mean(Encoding(z)).x, sample(Encoding(z)).x)
    alone = sample(Encoding(z[:1])).x
    assert_close(alone, sample(Encoding(z)).x[:, :1])
    assert not torch.allclose(mean(Encoding(z[:1])).x[1:], alone[1:])
    mean.descent.step_size /= B
    assert_close(mean(Encoding(z[:1])).x, alone)


@given(seeds, st.integers(0, 6))
def test_more_steps_only_extend_the_trajectory(seed: int, steps: int) -> None:
    torch.manual_seed(seed)
    model = dspn(set_encoder())
    encoding = Encoding(torch.randn(B, L))
    longest, shorter = model(encoding, steps=6), model(encoding, steps=steps)
    assert torch.equal(shorter.x, longest.x[: steps + 1])
    assert torch.equal(shorter.mask, longest.mask[: steps + 1])
    assert torch.equal(model(encoding).x, longest.x[:5])


@pytest.mark.parametrize("elements", [ElementMLP, PairMLP])
@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=seeds)
def test_decoded_sets_follow_the_order_of_the_initial_set(
    pooling: str, elements: type, seed: int
) -> None:
    torch.manual_seed(seed)
    model = dspn(set_encoder(pooling, elements), steps=2)
    nn.init.uniform_(model.initial.mask)
    order, encoding = torch.randperm(N), Encoding(torch.randn(B, L))
    before = model(encoding)
    for parameter in (model.initial.x, model.initial.mask):
        parameter.data = parameter.data[order]
    after = model(encoding)
    assert_close(after.x, before.x[:, :, order], rtol=1e-9, atol=1e-9)
    assert_close(after.mask, before.mask[:, :, order], rtol=1e-9, atol=1e-9)


@given(seeds)
def test_decoded_sets_ignore_the_order_of_the_input(seed: int) -> None:
    torch.manual_seed(seed)
    loss = ChamferLoss(cost=Cost.huber, steps=Steps.all, mask_channel=True)
    task = AutoEncode(encoder=set_encoder(), decoder=dspn(None), loss=loss)
    s, order = target(seed), torch.randperm(N)
    shuffled = SetBatch(s.x[:, order], s.mask[:, order])
    one, other = task(Batch(s, s, {})), task(Batch(shuffled, shuffled, {}))
    assert_close(one.prediction.x, other.prediction.x)
    assert_close(one.prediction.mask, other.prediction.mask)
    assert_close(one.loss, other.loss)


@pytest.mark.parametrize("elements", [ElementMLP, PairMLP])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_small_steps_always_lower_the_objective(pooling: str, elements: type) -> None:
    encoder = set_encoder(pooling, elements)
    model = dspn(None, steps=10, step_size=5.0)
    z = encoder(target()).z.detach()
    distances = objectives(encoder, model(Encoding(z), encode=encoder), z)
    assert (distances.diff(dim=0) < 0).all()


def test_inverting_the_own_encoder_comes_close() -> None:
    encoder = set_encoder()
    model = dspn(None, steps=200)
    z = encoder(target()).z.detach()
    distances = objectives(encoder, model(Encoding(z), encode=encoder), z)
    assert (distances[-1] < 0.1 * distances[0]).all()


def plain_dspn(model: DSPN, encoder: nn.Module, z: Tensor) -> SetBatch:
    """The authors' loop: a batch mean, differentiated by `autograd.grad`."""
    x = model.initial.x.expand(len(z), -1, -1)
    mask = model.initial.mask[:, 0].clamp(0, 1).expand(len(z), -1)
    sets, masks = [x], [mask]
    for _ in range(model.steps):
        distance = F.smooth_l1_loss(encoder(SetBatch(x, mask)).z, z)
        slopes = torch.autograd.grad(distance, (x, mask), create_graph=True)
        x = x - model.descent.step_size * slopes[0]
        mask = (mask - model.descent.step_size * slopes[1]).clamp(0, 1)
        sets.append(x)
        masks.append(mask)
    return SetBatch(torch.stack(sets), torch.stack(masks))


@pytest.mark.parametrize("elements", [ElementMLP, PairMLP])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_go_through_all_steps(pooling: str, elements: type) -> None:
    encoder = set_encoder(pooling, elements)
    model = dspn(None)
    s, cotangent, shift = target(), torch.randn(5, B, N, D + 1), torch.randn(B, L)
    inputs = [*encoder.parameters(), *model.parameters()]
    results = []
    for decode in (lambda z: model(Encoding(z), encode=encoder), None):
        z = encoder(s).z + shift  # the encoder is shared with the inner objective
        decoded = decode(z) if decode else plain_dspn(model, encoder, z)
        total = (decoded.with_mask_channel() * cotangent).sum()
        results.append((decoded.x, decoded.mask, *torch.autograd.grad(total, inputs)))
    assert_close(*results, rtol=1e-9, atol=1e-9)
    assert (decoded.x[-1] - decoded.x[0]).abs().max() > 0.05


def test_gradients_are_those_of_finite_differences() -> None:
    model = dspn(set_encoder("mean"), steps=2)
    z = torch.randn(1, L, requires_grad=True)
    torch.autograd.gradcheck(lambda z: model(Encoding(z)).with_mask_channel(), (z,))


def test_evaluation_needs_no_outer_gradient() -> None:
    model, encoding = dspn(set_encoder()), Encoding(torch.randn(B, L))
    expected = model(encoding)
    with torch.no_grad():
        decoded = model(encoding)
    assert not decoded.x.requires_grad
    assert torch.equal(decoded.x, expected.x)
    assert torch.equal(decoded.mask, expected.mask)


def test_dspn_inverts_its_own_encoder_or_the_one_it_is_handed() -> None:
    encoder, encoding = set_encoder(), Encoding(torch.randn(B, L))
    own, handed = dspn(encoder), dspn(None)
    handed.load_state_dict(own.state_dict(), strict=False)
    expected = own(encoding).x
    assert torch.equal(handed(encoding, encode=encoder).x, expected)
    assert torch.equal(own(encoding, encode=set_encoder()).x, expected)
    with pytest.raises(AssertionError, match="give it one"):
        handed(encoding)


@pytest.mark.parametrize("pooling", ["fspool", "fspool relaxed"])
def test_dspn_compiles_as_one_graph(pooling: str) -> None:
    torch.compiler.reset()  # forget the graphs of other tests
    model, z = dspn(set_encoder(pooling), steps=2), torch.randn(B, L)
    compiled = torch.compile(
        lambda z: model(Encoding(z)).with_mask_channel(), backend="aot_eager", fullgraph=True
    )
    results = []
    for decode in (compiled, lambda z: model(Encoding(z)).with_mask_channel()):
        decoded = decode(z)
        gradients = torch.autograd.grad(decoded.sin().sum(), list(model.parameters()))
        results.append((decoded, *gradients))
    assert_close(*results)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_representation_loss_ties_both_encodings(weight: float) -> None:
    loss = ChamferLoss(cost=Cost.huber, steps=Steps.last, mask_channel=True)
    decoder = dspn(set_encoder())
    task = Predict(encoder=set_encoder(), decoder=decoder, loss=loss, representation_weight=weight)
    batch = Batch(target(0), target(1), {})
    outcome = task(batch)
    z, true = task.encoder(batch.input).z, decoder.set_encoder(batch.target).z
    distance = F.smooth_l1_loss(z, true, reduction="none").mean(-1)
    assert outcome.prediction.x.shape[0] == 5
    assert_close(outcome.stats["set_loss"], loss(outcome.prediction, batch.target))
    assert_close(outcome.loss, outcome.stats["set_loss"] + weight * distance)
    assert ("representation_loss" in outcome.stats) == bool(weight)
    if weight:
        added = (outcome.loss - outcome.stats["set_loss"]).sum()
        for encoder in (task.encoder, decoder.set_encoder):
            slopes = torch.autograd.grad(added, list(encoder.parameters()), retain_graph=True)
            plain_slopes = torch.autograd.grad(
                weight * distance.sum(), list(encoder.parameters()), retain_graph=True
            )
            assert slopes[0].any()
            assert_close(slopes, plain_slopes)
