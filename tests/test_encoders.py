"""Laws of every encoder with every pooling: order and padding mean nothing; sets may be empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from setexp.encoders.fspool import FSPool
from setexp.encoders.image import (
    ImageEncoder,
    ImageInit,
    OneConvolution,
    ResNet,
    TwoConvolutions,
)
from setexp.encoders.pooling import MaxPool, MeanPool, SumPool
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.ops.layers import Linear, LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.sets import SetBatch

pytestmark = pytest.mark.usefixtures("float64")

D, C, L = 3, 5, 4  # features of elements, pooled, latent


def fspool(
    *,
    n_pieces: int | None = 20,
    set_size: int | None = None,
    init: WeightInit = WeightInit.normal,
    descending: bool = True,
    masked: bool,
    relaxed: bool = False,
    legacy: bool = False,
) -> FSPool:
    return FSPool(
        features=C, n_pieces=n_pieces, set_size=set_size, init=init, descending=descending,
        masked=masked, relaxed=relaxed, legacy_singleton_mask=legacy,
    )  # fmt: skip


# Being listed here means being tested.
MASKED: dict[str, Callable[[], nn.Module]] = {
    "sum": lambda: SumPool(masked=True),
    "mean": lambda: MeanPool(masked=True, by_set_size=True),
    "max": lambda: MaxPool(masked=True),
    "fspool": lambda: fspool(masked=True),
    "fspool graphs": lambda: fspool(n_pieces=5, descending=False, masked=True),
    "fspool relaxed": lambda: fspool(masked=True, relaxed=True),
}
UNMASKED: dict[str, Callable[[], nn.Module]] = {
    "sum of all": lambda: SumPool(masked=False),
    "mean of all": lambda: MeanPool(masked=False, by_set_size=False),
    "max of all": lambda: MaxPool(masked=False),
    "fspool of all": lambda: fspool(masked=False),
    "fspool of all relaxed": lambda: fspool(masked=False, relaxed=True),
}
POOLINGS = MASKED | UNMASKED
ELEMENTS = {"elements": ElementMLP, "pairs": PairMLP}

seeds = st.integers(0, 2**16)
set_sizes = st.lists(st.integers(0, 4), min_size=1, max_size=4)


def encoder(elements: str, pooling: nn.Module, *, mask_channel: bool = False) -> SetEncoder:
    return SetEncoder(
        elements=ELEMENTS[elements](widths=[D + mask_channel, 8, C], init=LinearInit.xavier),
        pooling=pooling,
        head=[C, L],
        mask_channel=mask_channel,
        divide_by_rows=mask_channel,
    )


def make(elements: str, pooling: str, *, mask_channel: bool = False) -> SetEncoder:
    return encoder(elements, POOLINGS[pooling](), mask_channel=mask_channel)


def sets(seed: int, sizes: list[int], n: int = 4) -> SetBatch:
    """Random sets of these sizes; padded rows hold arbitrary numbers."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(n) < torch.tensor(sizes)[:, None]).double()
    return SetBatch(torch.randn(len(sizes), n, D, generator=generator), mask)


@pytest.mark.parametrize("mask_channel", [False, True])
@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=seeds, sizes=set_sizes)
def test_order_means_nothing(
    pooling: str, elements: str, mask_channel: bool, seed: int, sizes: list[int]
) -> None:
    model, s = make(elements, pooling, mask_channel=mask_channel), sets(seed, sizes)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    assert_close(model(SetBatch(s.x[:, order], s.mask[:, order])).z, model(s).z)


@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", MASKED)
@given(seed=seeds, sizes=set_sizes, extra=st.integers(0, 3))
def test_padding_means_nothing(
    pooling: str, elements: str, seed: int, sizes: list[int], extra: int
) -> None:
    model, s = make(elements, pooling), sets(seed, sizes)
    n = 4 + extra
    other = sets(seed + 1, sizes, n)
    x = torch.where(other.mask.unsqueeze(-1) > 0, 0.0, 100 * other.x)  # other contents
    x[:, :4] += s.x * s.mask.unsqueeze(-1)
    x.requires_grad_()
    encoding = model(SetBatch(x, other.mask))
    assert_close(encoding.z, model(s).z)
    (encoding.z**2).sum().backward()
    assert x.grad is not None
    assert not x.grad[other.mask == 0].any()


@pytest.mark.parametrize("pooling", UNMASKED)
def test_unmasked_poolings_see_all_rows(pooling: str) -> None:
    model, s = make("elements", pooling), sets(0, [2, 0, 4])
    everything = SetBatch(s.x, torch.ones_like(s.mask))
    assert torch.equal(model(s).z, model(everything).z)


@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("n", [1, 4])
def test_empty_and_single_element_sets_are_finite(pooling: str, elements: str, n: int) -> None:
    model, s = make(elements, pooling), sets(0, [0, 1], n)
    s.x.requires_grad_()
    z = model(s).z
    z.sin().sum().backward()
    assert torch.isfinite(z).all()
    assert torch.isfinite(s.x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if pooling in MASKED:
        assert_close(z[0], model.head(torch.zeros(C)))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_agree_with_their_definition(pooling: str) -> None:
    pool, s = POOLINGS[pooling](), sets(0, [3, 1, 4])
    x = torch.randn(3, 4, C)
    pooled, order = pool(x, s.mask)
    assert (order is not None) == ("relaxed" in pooling)
    for row, features, mask in zip(pooled, x, s.mask, strict=True):
        members = features[mask > 0] if pooling in MASKED else features
        if isinstance(pool, FSPool):
            if "relaxed" in pooling:
                continue  # compared with NeuralSort in test_ops
            ordered = members.sort(0, descending=pool.descending).values
            weights = pool.weights(len(members), None)
            expected = (ordered * weights.T).sum(0)
        else:
            reduce = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[pooling.split()[0]]
            expected = reduce(members, 0)
        assert_close(row, expected)


def test_relaxed_fspool_of_well_separated_features_is_fspool() -> None:
    hard, soft = fspool(masked=True), fspool(masked=True, relaxed=True)
    soft.load_state_dict(hard.state_dict())
    x = 50.0 * torch.randn(2, 4, C).argsort(1)
    mask = sets(0, [4, 2]).mask
    assert_close(soft(x, mask)[0], hard(x, mask)[0])


def test_fspool_with_one_weight_per_position() -> None:
    pool = fspool(
        n_pieces=None, set_size=4, init=WeightInit.kaiming, descending=False, masked=False
    )
    assert pool.weights.weight.shape == (C, 4)
    x = torch.randn(2, 4, C)
    assert_close(pool(x, torch.zeros(2, 4))[0], (x.sort(1).values * pool.weights.weight.T).sum(1))
    order = torch.randperm(4)
    assert_close(pool(x[:, order], torch.zeros(2, 4))[0], pool(x, torch.zeros(2, 4))[0])


def test_fspool_with_weights_of_one_is_a_sum() -> None:
    ones = fspool(init=WeightInit.ones, masked=True)
    x, mask = torch.randn(3, 4, C), sets(0, [0, 1, 4]).mask
    assert_close(ones(x, mask)[0], SumPool(masked=True)(x, mask)[0])


def test_released_mask_sees_two_rows_of_smaller_sets() -> None:
    exact, released = fspool(masked=True), fspool(masked=True, legacy=True)
    released.load_state_dict(exact.state_dict())
    x = torch.randn(1, 4, C)
    two = exact(x, sets(0, [2]).mask)[0]
    for size in (0, 1, 2):
        assert torch.equal(released(x, sets(0, [size]).mask)[0], two)
    three = sets(0, [3]).mask
    assert torch.equal(released(x, three)[0], exact(x, three)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relaxed": True, "descending": False}, "relaxed sort is descending"),
        ({"n_pieces": None, "set_size": 4}, "sets of variable size"),
        ({"n_pieces": None, "masked": False}, "needs set_size"),
    ],
)
def test_fspool_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fspool(**{"masked": True, **arguments})


def test_pair_encoder_is_a_network_on_concatenated_pairs() -> None:
    model = PairMLP(widths=[D, 8, C], init=LinearInit.xavier)
    nn.init.normal_(model.pair.bias)
    x, mask = torch.randn(2, 4, D), sets(0, [4, 2]).mask
    rows = [torch.cat([x[:, i], x[:, j]], -1) for i in range(4) for j in range(4)]
    plain = nn.Linear(2 * D, 8)
    plain.load_state_dict(model.pair.state_dict())
    features, present = model(x, mask)
    assert_close(features, model.rest[1](plain(torch.stack(rows, 1)).relu()))
    assert present[1].reshape(4, 4).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
    single = PairMLP(widths=[D, C], init=LinearInit.xavier)
    assert_close(single(x, mask)[0][:, 5], single.pair(torch.cat([x[:, 1], x[:, 1]], -1)))


@pytest.mark.parametrize("elements", ELEMENTS)
def test_layers_of_elements_start_as_asked(elements: str) -> None:
    for init in LinearInit:
        torch.manual_seed(0)
        layers = [
            layer
            for layer in ELEMENTS[elements](widths=[D, 8, C], init=init).modules()
            if isinstance(layer, nn.Linear)
        ]
        torch.manual_seed(0)
        assert len(layers) == 2
        for layer in layers:
            expected = Linear(layer.in_features, layer.out_features, init=init)
            assert torch.equal(layer.weight, expected.weight)
            assert torch.equal(layer.bias, expected.bias)


@pytest.mark.parametrize(("elements", "rows"), [("elements", 4), ("pairs", 16)])
def test_mask_is_the_last_feature_and_features_are_divided(elements: str, rows: int) -> None:
    model, s = make(elements, "sum of all", mask_channel=True), sets(0, [3, 1])
    features, _ = model.elements(torch.cat([s.x, s.mask.unsqueeze(-1)], -1), s.mask)
    assert_close(model(s).z, model.head(features.sum(1) / rows))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_any_pooling_is_of_divided_features(pooling: str) -> None:
    model, s = make("pairs", pooling, mask_channel=True), sets(3, [4, 0, 2])
    x, mask = model.elements(s.with_mask_channel(), s.mask)
    assert_close(model(s).z, model.head(model.pooling(x / x.shape[-2], mask)[0]))


def test_encoding_keeps_what_a_decoder_may_undo() -> None:
    s = sets(0, [3, 1])
    relaxed, hard = make("elements", "fspool relaxed")(s), make("elements", "fspool")(s)
    assert relaxed.order is not None
    assert relaxed.order.permutation.shape == (2, C, 4, 4)
    assert hard.order is None
    assert relaxed.elements is s


@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_seeds_stack(pooling: str, elements: str) -> None:
    models = [make(elements, pooling, mask_channel=True) for _ in range(3)]
    stacks = [sets(seed, [4, 2, 0]) for seed in range(3)]
    together, _ = stack_module_state(models)
    batch = SetBatch(*(torch.stack(tensors) for tensors in zip(*stacks, strict=True)))
    z = vmap(lambda p, s: functional_call(models[0], p, (s,)).z)(together, batch)
    z.sin().sum().backward()
    for i, (model, s) in enumerate(zip(models, stacks, strict=True)):
        alone = model(s).z
        assert_close(z[i], alone)
        alone.sin().sum().backward()
        for name, parameter in model.named_parameters():
            assert_close(together[name].grad[i], parameter.grad)


@pytest.mark.parametrize(
    ("pooling", "elements"), [*((p, "elements") for p in POOLINGS), ("fspool", "pairs")]
)
def test_compiles_as_one_graph(pooling: str, elements: str) -> None:
    torch.compiler.reset()  # forget the other parameters' graphs
    model, s = make(elements, pooling, mask_channel=True), sets(0, [4, 2, 0])
    compiled = torch.compile(lambda s: model(s).z, backend="aot_eager", fullgraph=True)
    gradients: list[tuple[Tensor, ...]] = []
    for encode in (compiled, lambda s: model(s).z):
        z = encode(s)
        gradients.append((z, *torch.autograd.grad(z.sin().sum(), list(model.parameters()))))
    assert_close(*gradients)


# Images


def image_encoder(head: str = "two", **changes: Any) -> ImageEncoder:
    small = {"blocks": [1, 1], "widths": [4, 8], "max_pool": False, "latent": 8, "side": 4}
    how = {**small, "image_size": 16, "init": ImageInit.xavier, **changes}
    trunk = ResNet(blocks=how["blocks"], widths=how["widths"], max_pool=how["max_pool"])
    channels, latent = how["widths"][-1], how["latent"]
    return ImageEncoder(
        trunk=trunk,
        head=TwoConvolutions(channels=channels, latent=latent)
        if head == "two"
        else OneConvolution(channels=channels, side=how["side"], latent=latent),
        image_size=how["image_size"],
        init=how["init"],
    )


def test_resnet_has_the_layers_of_torchvisions() -> None:
    from torchvision.models import resnet18

    ours = image_encoder(blocks=[2] * 4, widths=[64, 128, 256, 512], max_pool=True, image_size=128)
    theirs = nn.Sequential(*list(resnet18(weights=None).children())[:-2])
    values = theirs.state_dict().values()
    assert [v.shape for v in ours.trunk.state_dict().values()] == [v.shape for v in values]
    ours.trunk.load_state_dict(dict(zip(ours.trunk.state_dict(), values, strict=True)))
    images = torch.rand(2, 3, 128, 128)
    assert_close(ours.eval().trunk(images), theirs.eval()(images))
    encoding = ours(images)
    assert encoding.z.shape == (2, 8)
    assert encoding.order is encoding.elements is None


@pytest.mark.parametrize(("image_size", "side", "channels"), [(128, 4, 128), (256, 8, 32)])
def test_both_resolutions_of_idspn_make_512_features(
    image_size: int, side: int, channels: int
) -> None:
    with torch.device("meta"):
        model = image_encoder(
            "one",
            blocks=[2] * 4, widths=[64, 128, 256, 512], max_pool=True, latent=512,
            image_size=image_size, side=side, init=ImageInit.default,
        )  # fmt: skip
        features = model.trunk(torch.rand(2, 3, image_size, image_size))
        assert features.shape == (2, 512, side, side)
        assert model.head(features).shape == (2, channels, side // 2, side // 2)
        assert model(torch.rand(2, 3, image_size, image_size)).z.shape == (2, 512)


def test_weights_of_an_image_encoder() -> None:
    bound = (6 / (2 * 64 * 9)) ** 0.5  # of the second convolution, 3 x 3 from 64 to 64
    for head in ("one", "two"):
        xavier = image_encoder(head, widths=[64, 64])
        default = image_encoder(head, widths=[64, 64], init=ImageInit.default)
        weights = [model.trunk[3].conv1.weight for model in (xavier, default)]
        assert 0.99 * bound < weights[0].abs().max() <= bound
        assert abs(weights[1].std() - (2 / (64 * 9)) ** 0.5) < 0.001
        for model in (xavier, default):
            assert model(torch.rand(2, 3, 16, 16)).z.shape == (2, 8)
        for zero, drawn in zip(xavier.head, default.head, strict=True):
            if isinstance(zero, nn.Conv2d):
                assert not zero.bias.any()
                fan_in = zero.in_channels * zero.kernel_size[0] ** 2
                for part in (drawn.weight, drawn.bias):  # PyTorch's: uniform
                    assert 0 < part.abs().max() <= fan_in**-0.5


def test_images_and_weights_are_channels_last() -> None:
    for head in ("one", "two"):
        model = image_encoder(head)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        features = model.trunk(
            torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        )
        assert features.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("changes", "fit"),
    [
        ({"image_size": 32}, 16),
        ({"max_pool": True}, 32),
        ({"head": "one", "image_size": 8}, 16),
        ({"head": "one", "side": 8, "latent": 16}, 32),
    ],
)
def test_images_that_do_not_fit_are_refused(changes: dict[str, Any], fit: int) -> None:
    with pytest.raises(
        ValueError, match=rf"image_size={changes.get('image_size', 16)}: .* {fit} p"
    ):
        image_encoder(**changes)


@pytest.mark.parametrize("changes", [{"side": 5}, {"latent": 6}])
def test_places_that_make_no_vector_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"side=\d, latent=\d: the side must be even"):
        image_encoder("one", **changes)
