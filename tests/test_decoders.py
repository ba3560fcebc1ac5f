"""Decoders: laws of DSPN's inner optimisation, FSUnpool's equivariance, baselines, sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.decoders.dspn import DSPN, Gradient, Objective, RegulariserReduction
from setexp.decoders.fsunpool import FSUnpoolDecoder
from setexp.decoders.initial import LearnedSet, SetInit
from setexp.decoders.lstm import LSTMDecoder
from setexp.decoders.mlp import MLPDecoder
from setexp.decoders.random_polygon import RandomPolygon
from setexp.encoders.fspool import FSPool
from setexp.encoders.pooling import MaxPool, MeanPool, SumPool
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss
from setexp.ops.costs import Cost
from setexp.ops.descent import Descent, Projection, Reduction
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.sets import Batch, Encoding, SetBatch
from setexp.tasks.autoencode import AutoEncode
from setexp.tasks.predict import Predict

pytestmark = pytest.mark.usefixtures("float64")

B, N, D, L = 3, 5, 2, 6  # sets, elements, features, latent
seeds = st.integers(0, 2**16)


def fspool(*, features: int = L, masked: bool = False, relaxed: bool = False) -> FSPool:
    return FSPool(
        features=features, n_pieces=20, set_size=None, init=WeightInit.normal, descending=True,
        masked=masked, relaxed=relaxed, legacy_singleton_mask=False,
    )  # fmt: skip


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "fspool": fspool,
    "fspool relaxed": lambda: fspool(relaxed=True),
    "sum": lambda: SumPool(masked=False),
    "mean": lambda: MeanPool(masked=False, by_set_size=False),
    "max": lambda: MaxPool(masked=False),
}


def set_encoder(pooling: str = "fspool", elements: type = ElementMLP) -> SetEncoder:
    """A small encoder as DSPN's: the mask is a feature."""
    return SetEncoder(
        elements=elements(widths=[D + 1, 8, L], init=LinearInit.xavier),
        pooling=POOLINGS[pooling](),
        head=[],
        mask_channel=True,
        divide_by_rows=True,
    )


def dspn(
    encoder: nn.Module | None, *, steps: int = 4, step_size: float = 30.0, **changes: Any
) -> DSPN:
    """A DSPN as the thesis has it; `changes` are of its descent."""
    descent = {
        "step_size": step_size,
        "reduction": Reduction.batch_mean,
        "reference_batch_size": B,
        "momentum": 0.0,
        "nesterov": False,
        "clip": None,
        "projection": Projection.mask,
        "project_initial": True,
    }
    return DSPN(
        set_encoder=encoder,
        initial=LearnedSet(set_size=N, element_dim=D, init=SetInit.uniform, std=0.0, mask=0.5),
        objective=Objective.huber,
        regulariser=0.0,
        regulariser_reduction=RegulariserReduction.mean,
        descent=Descent(**{**descent, **changes}),
        gradient=Gradient.unrolled,
        steps=steps,
        mask_channel=True,
        condition=False,
    )


def target(seed: int = 0, n: int = N) -> SetBatch:
    """Random sets of 1, 3 and 5 elements, zero-padded."""
    mask = (torch.arange(n) < torch.tensor([[1], [3], [5]])).double()
    x = torch.rand(B, n, D, generator=torch.Generator().manual_seed(seed))
    return SetBatch(x * mask.unsqueeze(-1), mask)


def objectives(encoder: nn.Module, sets: SetBatch, z: Tensor) -> Tensor:
    """Inner objective of each set after each step, (T + 1, B)."""
    each = zip(sets.x, sets.mask, strict=True)
    distances = [F.smooth_l1_loss(encoder(SetBatch(*s)).z, z, reduction="none") for s in each]
    return torch.stack(distances).mean(-1)


# DSPN


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


# FSUnpool


def fs_autoencoder(*, masked: bool) -> tuple[SetEncoder, FSUnpoolDecoder]:
    encoder = SetEncoder(
        elements=ElementMLP(widths=[D, 8, L], init=LinearInit.xavier),
        pooling=fspool(masked=masked, relaxed=True),
        head=[L, 4],
        mask_channel=False,
        divide_by_rows=False,
    )
    decoder = FSUnpoolDecoder(
        latent=4, hidden=[8, L], element=[8, D], n_pieces=20, init=WeightInit.normal, masked=masked
    )
    for bias in (p for p in decoder.parameters() if p.dim() == 1):
        nn.init.normal_(bias)
    return encoder, decoder


@pytest.mark.parametrize("masked", [False, True])
@given(seed=seeds)
def test_fsunpool_autoencoder_is_equivariant(masked: bool, seed: int) -> None:
    torch.manual_seed(seed)
    encoder, decoder = fs_autoencoder(masked=masked)
    s, order = target(seed), torch.randperm(N)
    decoded = decoder(encoder(s))
    shuffled = decoder(encoder(SetBatch(s.x[:, order], s.mask[:, order])))
    assert decoded.x.shape == (1, B, N, D)
    assert_close(shuffled.x[0], decoded.x[0][:, order])
    assert torch.equal(shuffled.mask[0], s.mask[:, order])


@given(seeds, st.integers(0, 3))
def test_fsunpool_autoencoder_ignores_padding(seed: int, extra: int) -> None:
    torch.manual_seed(seed)
    encoder, decoder = fs_autoencoder(masked=True)
    s = target(seed)
    x = torch.cat([s.x, torch.zeros(B, extra, D)], 1)
    mask = torch.cat([s.mask, torch.zeros(B, extra)], 1)
    x = (x + 100 * torch.randn_like(x) * (1 - mask).unsqueeze(-1)).requires_grad_()
    decoded = decoder(encoder(SetBatch(x, mask))).x[0]
    assert_close(decoded[:, :N], decoder(encoder(s)).x[0])
    assert not decoded[mask == 0].any()
    decoded.square().sum().backward()
    assert x.grad is not None
    assert not x.grad[mask == 0].any()


def test_fsunpool_needs_a_relaxed_order() -> None:
    _, decoder = fs_autoencoder(masked=True)
    with pytest.raises(AssertionError, match="relaxed FSPool"):
        decoder(Encoding(torch.randn(B, 4), elements=target()))


# Baselines


def baseline(kind: type, *, mask_channel: bool = True, mask_bias: float = 0.0) -> nn.Module:
    hidden: Any = [8] if kind is MLPDecoder else 8
    return kind(
        latent=L, hidden=hidden, set_size=N, element_dim=D, mask_channel=mask_channel,
        mask_bias=mask_bias,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [MLPDecoder, LSTMDecoder])
def test_baselines_predict_elements_and_masks(kind: type) -> None:
    model, biased = baseline(kind), baseline(kind, mask_bias=1.0)
    biased.load_state_dict(model.state_dict())
    encoding = Encoding(torch.randn(B, L))
    decoded, other = model(encoding), biased(encoding)
    assert decoded.x.shape == (1, B, N, D)
    assert decoded.mask.shape == (1, B, N)
    assert torch.equal(other.x, decoded.x)
    assert torch.equal(other.mask, decoded.mask + 1)
    unmasked = baseline(kind, mask_channel=False)(encoding)
    assert unmasked.x.shape == (1, B, N, D)
    assert torch.equal(unmasked.mask, torch.ones(1, B, N))


def test_mlp_decoder_is_a_list_of_elements() -> None:
    model = baseline(MLPDecoder)
    z = torch.randn(B, L)
    elements = model.mlp[2](model.mlp[0](z).relu()).reshape(B, N, D + 1)
    assert_close(model(Encoding(z)).with_mask_channel()[0], elements)


def test_lstm_decoder_starts_from_the_cell_state() -> None:
    model, plain_lstm = baseline(LSTMDecoder), nn.LSTM(1, 8, batch_first=True)
    plain_lstm.load_state_dict(
        {
            "weight_ih_l0": model.lstm.from_input.weight,
            "weight_hh_l0": model.lstm.from_hidden.weight,
            "bias_ih_l0": model.lstm.from_input.bias,
            "bias_hh_l0": model.lstm.from_hidden.bias,
        }
    )
    z = torch.randn(B, L)
    start = (torch.zeros(1, B, 8), model.cell(z).unsqueeze(0))
    states, _ = plain_lstm(torch.zeros(B, N, 1), start)
    assert_close(model(Encoding(z)).with_mask_channel()[0], model.element(states))


def test_the_decoders_lstm_starts_as_pytorchs() -> None:
    """Uniform within 1 / sqrt(hidden), biases too; linear maps around it are Xavier uniform."""
    model = LSTMDecoder(
        latent=9, hidden=100, set_size=2, element_dim=1, mask_channel=True, mask_bias=0.0
    )
    for parameter in model.lstm.parameters():
        assert 0.09 < parameter.abs().max() <= 0.1
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.2)
    assert not model.cell.bias.any() and not model.element.bias.any()


def test_random_polygons_are_regular_and_turn_uniformly() -> None:
    x = RandomPolygon(set_size=3)(Encoding(torch.zeros(4000, 1))).x[0]
    assert_close(x.norm(dim=-1), torch.ones(4000, 3))
    assert_close(x.sum(1), torch.zeros(4000, 2))
    angle = torch.atan2(x[:, 0, 0], x[:, 0, 1])
    quarters = torch.histc(angle, 4, -torch.pi, torch.pi) / 4000
    assert ((quarters - 0.25).abs() < 5 * (0.25 * 0.75 / 4000) ** 0.5).all()


class FSAutoencoder(nn.Module):
    """Encoder and FSUnpool decoder, called like a decoder: z holds sets of three elements."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = fs_autoencoder(masked=True)

    def forward(self, encoding: Encoding) -> SetBatch:
        mask = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]])
        return self.decoder(self.encoder(SetBatch(encoding.z.unflatten(-1, (3, D)), mask)))


# All together

DECODERS: dict[str, Callable[[], nn.Module]] = {
    "dspn": lambda: dspn(set_encoder()),
    "dspn of pairs": lambda: dspn(set_encoder(elements=PairMLP)),
    "dspn, relaxed": lambda: dspn(set_encoder("fspool relaxed")),
    "mlp": lambda: baseline(MLPDecoder),
    "lstm": lambda: baseline(LSTMDecoder),
    "fsunpool": FSAutoencoder,
}


@pytest.mark.parametrize("name", DECODERS)
def test_seeds_stack(name: str) -> None:
    models = [DECODERS[name]() for _ in range(3)]
    together, _ = stack_module_state(models)
    z = torch.randn(3, B, L)
    decoded = vmap(lambda p, z: functional_call(models[0], p, (Encoding(z),)))(together, z)
    decoded.with_mask_channel().sin().sum().backward()
    for i, model in enumerate(models):
        alone = model(Encoding(z[i]))
        assert_close(decoded.x[i], alone.x)
        assert_close(decoded.mask[i], alone.mask)
        alone.with_mask_channel().sin().sum().backward()
        for parameter_name, parameter in model.named_parameters():
            assert_close(together[parameter_name].grad[i], parameter.grad)


@pytest.mark.parametrize(
    ("latent", "experiment", "count"),
    [
        (256, "dspn_mnist", 139_010),
        (256, "dspn_mnist_mlp", 533_250),
        (256, "dspn_mnist_lstm", 469_763),
        (64, "dspn_mnist", 85_634),
        (64, "dspn_mnist_mlp", 430_722),
        (64, "dspn_mnist_lstm", 367_235),
    ],
)
def test_numbers_of_parameters_on_mnist(latent: int, experiment: str, count: int) -> None:
    register()
    config = compose_run([f"experiment={experiment}", f"latent={latent}"])
    task = build(plain(config)["task"], "task")
    assert sum(p.numel() for p in task.parameters()) == count


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
