"""Slot Attention and Slot MLP: their formulas in plain PyTorch, symmetries, encoder and start."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from setexp.decoders.initial import GaussianSlots
from setexp.decoders.slot_attention import SlotAttention
from setexp.decoders.slot_head import SlotHead
from setexp.decoders.slot_mlp import SlotMLP
from setexp.encoders.position_cnn import PositionCNN, grid
from setexp.ops.layers import GRUCell
from setexp.sets import Encoding, SetBatch

pytestmark = pytest.mark.usefixtures("float64")

B, N, M, C, S, D = 2, 3, 5, 4, 6, 7  # sets, slots, elements, features, slot's, element's features
seeds = st.integers(0, 2**16)


class Given(nn.Module):
    """Slots to start from."""

    def __init__(self, slots: Tensor) -> None:
        super().__init__()
        self.slots = slots

    def forward(self, encoding: Encoding) -> Tensor:
        return self.slots


def head(coordinates: int = 3) -> SlotHead:
    return SlotHead(slot=S, hidden=8, element_dim=D, coordinates=coordinates)


def slot_attention(slots: Tensor | None = None, iterations: int = 3) -> SlotAttention:
    torch.manual_seed(0)
    initial = GaussianSlots(set_size=N, slot=S) if slots is None else Given(slots)
    model = SlotAttention(
        initial=initial, features=C, slot=S, hidden=9, iterations=iterations, epsilon=1e-8,
        norm_epsilon=1e-3, head=head(),
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if "initial" not in name:
            nn.init.normal_(parameter, std=0.5)  # biases and norms count as well
    return model


def encoding(seed: int, mask: Tensor | None = None) -> Encoding:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, M, C, generator=generator)
    mask = torch.ones(B, M) if mask is None else mask
    return Encoding(torch.zeros(B, 0), elements=SetBatch(x, mask))


def slots(seed: int) -> Tensor:
    return torch.randn(B, N, S, generator=torch.Generator().manual_seed(seed))


# Slot Attention


def plain(model: SlotAttention, x: Tensor, start: Tensor) -> Tensor:
    """Slots after each iteration for one set: loops, and PyTorch's own GRU."""
    cell = nn.GRUCell(S, S)
    cell.load_state_dict(
        {
            f"{kind}_{short}": getattr(getattr(model.cell, f"from_{long}"), kind)
            for kind in ("weight", "bias")
            for short, long in (("ih", "input"), ("hh", "hidden"))
        }
    )
    keys, values = (layer(model.norm_features(x)) for layer in (model.key, model.value))
    now, after = start, []
    for _ in range(model.iterations):
        queries = model.query(model.norm_slots(now))
        logits = torch.stack([torch.stack([q @ k / math.sqrt(S) for q in queries]) for k in keys])
        shares = logits.softmax(1) + model.epsilon
        weights = shares / shares.sum(0)
        now = cell(torch.einsum("mn,mc->nc", weights, values), now)
        now = now + model.update(model.norm_update(now))
        after.append(now)
    return torch.stack(after)


@given(seed=seeds)
def test_slot_attention_is_its_formula(seed: int) -> None:
    start, seen = slots(seed), encoding(seed)
    model = slot_attention(start)
    decoded = model(seen)
    assert decoded.x.shape == (3, B, N, D) and decoded.mask.shape == (3, B, N)
    expected = [plain(model, x, y) for x, y in zip(seen.elements.x, start, strict=True)]
    assert_close(decoded, model.head(torch.stack(expected, 1)))


@given(seed=seeds)
def test_slots_in_another_order_give_the_same_sets_in_that_order(seed: int) -> None:
    start, seen, order = slots(seed), encoding(seed), torch.randperm(N)
    one, other = slot_attention(start)(seen), slot_attention(start[:, order])(seen)
    assert_close(other, SetBatch(one.x[..., order, :], one.mask[..., order]))


@given(seed=seeds)
def test_the_order_of_what_is_attended_to_means_nothing(seed: int) -> None:
    mask = (torch.rand(B, M, generator=torch.Generator().manual_seed(seed)) > 0.3).double()
    mask[:, 0] = 1
    seen, order = encoding(seed, mask), torch.randperm(M)
    model = slot_attention(slots(seed))
    shuffled = SetBatch(seen.elements.x[:, order], mask[:, order])
    assert_close(model(seen._replace(elements=shuffled)), model(seen))


def test_padding_is_not_attended_to() -> None:
    mask = torch.ones(B, M)
    mask[1, 2:] = 0
    model, seen = slot_attention(slots(0)), encoding(0, mask)
    short = SetBatch(seen.elements.x[:, :2], mask[:, :2])
    few = model(seen._replace(elements=short))
    assert_close(model(seen).x[:, 1], few.x[:, 1])
    assert not torch.allclose(model(seen).x[:, 0], few.x[:, 0])


@given(seed=seeds)
def test_attention_adds_up(seed: int) -> None:
    model, mask = slot_attention(), torch.ones(B, M)
    keys = torch.randn(B, M, S)
    weights = model.attention(slots(seed), keys, mask)
    assert weights.shape == (B, N, M) and (weights > 0).all()
    assert_close(weights.sum(-1), torch.ones(B, N))
    # slots that are alike share every element evenly, and so see all elements alike
    alike = slots(seed)[:, :1].expand(B, N, S)
    assert_close(model.attention(alike, keys, mask), torch.full((B, N, M), 1 / M))


def test_slots_compete_for_elements() -> None:
    """A key that one slot asks for is lost to the other."""
    model = slot_attention()
    with torch.no_grad():
        model.query.weight.copy_(torch.eye(S))
        model.norm_slots.weight.fill_(1)
        model.norm_slots.bias.fill_(0)
    start = torch.eye(S)[None, :2] * 10.0
    keys = 20.0 * torch.eye(S)[None, :2]  # the first slot's, the second slot's
    weights = model.attention(start, keys, torch.ones(1, 2))
    assert_close(weights, torch.eye(2).unsqueeze(0), atol=1e-3, rtol=0)


def test_fewer_iterations_are_the_first_of_more() -> None:
    start, seen = slots(1), encoding(1)
    many, few = slot_attention(start, 4), slot_attention(start, 2)
    few.load_state_dict(many.state_dict())
    assert_close(few(seen).x, many(seen).x[:2])


def test_every_weight_learns_from_the_last_set() -> None:
    model, seen = slot_attention(), encoding(2)
    seen.elements.x.requires_grad_()
    decoded = model(seen)
    (decoded.x[-1].sin().sum() + decoded.mask[-1].sin().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert seen.elements.x.grad.any()


def test_start_is_drawn_anew_from_the_global_state() -> None:
    start, seen = GaussianSlots(set_size=4000, slot=S), encoding(0)
    assert start.draws
    torch.manual_seed(3)
    first, second = start(seen), start(seen)
    torch.manual_seed(3)
    assert torch.equal(start(seen), first) and not torch.equal(first, second)
    assert first.shape == (B, 4000, S)
    assert_close(first.mean((0, 1)), start.mean[0].detach(), atol=0.1, rtol=0)
    assert_close(first.std((0, 1)), start.log_std[0].exp().detach(), atol=0.1, rtol=0)
    first.square().sum().backward()
    assert start.mean.grad.any() and start.log_std.grad.any()


def test_gru_cell_is_pytorchs() -> None:
    ours, theirs = GRUCell(C, S), nn.GRUCell(C, S)
    with torch.no_grad():
        for part, suffix in ((ours.from_input, "ih"), (ours.from_hidden, "hh")):
            part.weight.copy_(getattr(theirs, f"weight_{suffix}"))
            part.bias.copy_(getattr(theirs, f"bias_{suffix}"))
    x, hidden = torch.randn(B, N, C), torch.randn(B, N, S)
    expected = theirs(x.flatten(0, 1), hidden.flatten(0, 1)).view(B, N, S)
    assert_close(ours(x, hidden), expected)
    fresh = GRUCell(C, S)
    assert not fresh.from_input.bias.any() | fresh.from_hidden.bias.any()
    weight = fresh.from_hidden.weight
    assert_close(weight.T @ weight, torch.eye(S))


# Slot MLP and the head of both


def slot_mlp(side: int) -> SlotMLP:
    torch.manual_seed(0)
    return SlotMLP(features=C, side=side, hidden=[9], set_size=N, slot=S, head=head())


def places(side: int) -> Encoding:
    x = torch.randn(B, side * side, C, generator=torch.Generator().manual_seed(side))
    return Encoding(torch.zeros(B, 0), elements=SetBatch(x, torch.ones(B, side * side)))


def test_slot_mlp_is_an_mlp_on_all_places() -> None:
    model, seen = slot_mlp(4), places(4)
    first, _, second = model.mlp
    flat = seen.elements.x.mT.flatten(1)
    made = second(first(flat).relu()).view(1, B, N, S)
    decoded = model(seen)
    assert decoded.x.shape == (1, B, N, D)
    assert_close(decoded, model.head(made))


def test_slot_mlp_averages_what_is_finer() -> None:
    model, fine = slot_mlp(2), places(4)
    image = fine.elements.x.view(B, 2, 2, 2, 2, C).mean((2, 4)).flatten(1, 2)
    coarse = fine._replace(elements=SetBatch(image, torch.ones(B, 4)))
    assert_close(model(fine), model(coarse))


def test_head_squashes_attributes_and_mask_into_shares() -> None:
    made, wide = head(coordinates=2), 1e3 * torch.randn(4, B, N, S)
    decoded = made(wide)
    assert decoded.x.shape == (4, B, N, D) and decoded.mask.shape == (4, B, N)
    assert decoded.x[..., :2].min() < -0.9 and decoded.x[..., :2].max() > 0.9
    rest = torch.cat([decoded.x[..., 2:], decoded.mask.unsqueeze(-1)], -1)
    assert rest.min() >= 0 and rest.max() > 0.9
    logits = made.mlp(slots(0))
    assert_close(made(slots(0)).x[..., 0], 2 * logits[..., 0].sigmoid() - 1)
    assert_close(made(slots(0)).mask, logits[..., -1].sigmoid())


# The encoder


def position_cnn(**changes: Any) -> PositionCNN:
    torch.manual_seed(0)
    how = {"width": C, "kernel": 5, "strides": [1, 2, 2, 1], "norm_epsilon": 1e-3, **changes}
    return PositionCNN(**how)


def test_places_come_row_by_row_with_their_positions() -> None:
    model, images = position_cnn(), torch.rand(B, 3, 16, 12)
    encoded = model(images)
    assert encoded.z.shape == (B, 0)
    assert torch.equal(encoded.elements.mask, torch.ones(B, 4 * 3))
    features = model.convolutions(2 * images - 1)
    for row, column in ((0, 0), (2, 1), (3, 2)):
        down, across = row / 3, column / 2
        where = model.position(torch.tensor([down, across, 1 - down, 1 - across]))
        place = features[:, :, row, column] + where
        expected = model.mlp(F.layer_norm(place, (C,), eps=1e-3))
        assert_close(encoded.elements.x[:, row * 3 + column], expected)


def test_the_grid_reaches_all_corners() -> None:
    found = grid(torch.zeros(1, 3, 5, C))
    assert found.shape == (3, 5, 4)
    assert found[0, 0].tolist() == [0, 0, 1, 1]
    assert found[-1, -1].tolist() == [1, 1, 0, 0]
    assert found[1, 1].tolist() == [0.5, 0.25, 0.5, 0.75]


def test_convolutions_are_those_of_the_paper() -> None:
    model = position_cnn(width=64)
    layers = [m for m in model.convolutions if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride[0]) for m in layers] == [
        (3, 64, 1), (64, 64, 2), (64, 64, 2), (64, 64, 1),
    ]  # fmt: skip
    assert all(m.weight.shape[2:] == (5, 5) and not m.bias.any() for m in layers)
    bound = (6 / (2 * 64 * 25)) ** 0.5
    assert 0.99 * bound < layers[1].weight.abs().max() <= bound
    assert layers[1].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.device("meta"):
        encoded = position_cnn(width=64)(torch.rand(B, 3, 128, 128))
    assert encoded.elements.x.shape == (B, 32 * 32, 64)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel=4: an even one has no middle"):
        position_cnn(kernel=4)


# Both paths of training


@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_compiles_as_one_graph(kind: str) -> None:
    torch.compiler.reset()
    encoder = position_cnn()
    decoder = slot_attention(slots(0)) if kind == "attention" else slot_mlp(2)
    images = torch.rand(B, 3, 16, 16)
    parameters = [*encoder.parameters(), *decoder.parameters()]

    def decode(images: Tensor) -> Tensor:
        return decoder(encoder(images)).with_mask_channel()

    compiled = torch.compile(decode, backend="aot_eager", fullgraph=True)
    found = []
    for function in (compiled, decode):
        rows = function(images)
        found.append((rows, *torch.autograd.grad(rows.sin().sum(), parameters)))
    assert_close(*found)


def test_slots_stack() -> None:
    models = [slot_attention(slots(0)) for _ in range(2)]
    nn.init.normal_(models[1].query.weight)
    together, _ = stack_module_state(models)
    seen = [encoding(seed).elements.x for seed in range(2)]

    def decode(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        elements = SetBatch(x, torch.ones(B, M))
        of = Encoding(torch.zeros(B, 0), elements=elements)
        return functional_call(models[0], parameters, (of,)).x

    stacked = vmap(decode)(together, torch.stack(seen))
    for index, model in enumerate(models):
        assert_close(stacked[index], decode(dict(model.named_parameters()), seen[index]))
