"""Decoders: FSUnpool's equivariance, baselines, stacks of seeds, sizes; DSPN in `test_dspn`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_dspn import B, D, L, N, dspn, fspool, set_encoder, target
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.decoders.fsunpool import FSUnpoolDecoder
from setexp.decoders.lstm import LSTMDecoder
from setexp.decoders.mlp import MLPDecoder
from setexp.decoders.random_polygon import RandomPolygon
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.sets import Encoding, SetBatch

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**16)


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
