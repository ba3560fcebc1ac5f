"""Our parts equal the plainly written ones that `benchmarks/bench.py` times them against.

iDSPN and numbering are in `test_reference_idspn.py`. Weights are carried over as a state dict;
values agree to 1e-10 and so do the gradients of inputs and of all parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference import descent, permutation, sets
from smoke_runs import config
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.build import build
from setexp.encoders.fspool import FSPool
from setexp.encoders.permutation import OrderingCost, PermutationOptimisation
from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss
from setexp.losses.direct import DirectLoss
from setexp.losses.hungarian import HungarianLoss
from setexp.ops import sorting
from setexp.ops.costs import Cost
from setexp.ops.position_weights import WeightInit
from setexp.ops.tiles import cut
from setexp.sets import Batch, Encoding, SetBatch

pytestmark = pytest.mark.usefixtures("float64")

B, N, L, C = 5, 6, 4, 3  # sets, elements, latent, features

PATHS = pytest.mark.parametrize("parts", [False, True], ids=["whole", "in parts"])


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether relaxed permutations are made in parts, as large ones are; two rows at a time."""

    def choose(parts: bool) -> None:
        if parts:
            monkeypatch.setattr(sorting, "_WHOLE_NUMEL", 0)
            monkeypatch.setattr(sorting.neural_sort, "_CPU_NUMBERS", 2 * N * N)

    return choose


def padded(d: int = 2, least: int = 1) -> SetBatch:
    """Random padded sets of `least` to N elements."""
    size = torch.arange(B) % (N - least + 1) + least
    mask = (torch.arange(N) < size[:, None]).to(torch.float64)
    return SetBatch(torch.randn(B, N, d) * mask.unsqueeze(-1), mask)


def alike(found: Tensor, expected: Tensor, mine: list[Tensor], plain: list[Tensor]) -> None:
    """Values, and gradients of a random combination of them."""
    assert_close(found, expected, rtol=1e-10, atol=1e-10)
    along = torch.randn_like(found)
    ours = torch.autograd.grad((found * along).sum(), mine)
    theirs = torch.autograd.grad((expected * along).sum(), plain)
    for one, other in zip(ours, theirs, strict=True):
        assert other.any()
        assert_close(one, other, rtol=1e-10, atol=1e-10)


def load(plain: nn.Module, mine: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Random weights for both; the parameters of each, in one order."""
    for parameter in mine.parameters():
        nn.init.normal_(parameter, std=0.5)
    plain.load_state_dict(mine.state_dict())
    theirs = dict(plain.named_parameters())
    return list(mine.parameters()), [theirs[name] for name, _ in mine.named_parameters()]


def fspool(masked: bool, relaxed: bool) -> FSPool:
    return FSPool(
        features=C, n_pieces=20, set_size=None, init=WeightInit.normal, descending=True,
        masked=masked, relaxed=relaxed, legacy_singleton_mask=False,
    )  # fmt: skip


@PATHS
@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("relaxed", [False, True], ids=["hard", "relaxed"])
def test_fspool(relaxed: bool, masked: bool, parts: bool, in_parts: Callable[[bool], None]) -> None:
    in_parts(parts)
    mine, plain = fspool(masked, relaxed), sets.FSPool(C, 20, masked, relaxed)
    parameters, theirs = load(plain, mine)
    mask = padded().mask
    x = torch.randn(B, N, C, requires_grad=True)  # padding holds anything
    found, order = mine(x, mask)
    expected, matrices = plain(x, mask)
    alike(found, expected, [x, *parameters], [x, *theirs])
    if masked:
        assert not torch.autograd.grad(mine(x, mask)[0].sum(), x)[0][mask == 0].any()
    if order is None:
        assert not relaxed
        return
    assert (order.matrix is None) is parts
    rows = mask if masked else torch.ones_like(mask)
    real = rows[:, None, :, None] * rows[:, None, None, :]
    assert_close(order.permutation * real, matrices * real, rtol=1e-10, atol=1e-10)


@PATHS
def test_neural_sort_of_features_far_apart(parts: bool, in_parts: Callable[[bool], None]) -> None:
    """Most of the permutation is lost in rounding; nothing of it may be missed."""
    in_parts(parts)
    s = padded(C, least=2)
    x = (s.x * 30).requires_grad_()
    weights = torch.randn(C, N) * s.mask.unsqueeze(1)
    order = sorting.relaxed_order(x.mT, s.mask.unsqueeze(1))
    matrices = sets.neural_sort(x.mT, s.mask)
    expected = (matrices.mT @ weights.unsqueeze(-1)).squeeze(-1)
    alike(order.to_elements(weights), expected, [x], [x])


@pytest.mark.parametrize("cost", ["squared", "huber"])
@pytest.mark.parametrize("distance", ["direct", "chamfer", "hungarian"])
def test_losses(distance: str, cost: str) -> None:
    how = {"cost": Cost[cost], "steps": Steps.last, "mask_channel": False}
    mine = {
        "direct": lambda: DirectLoss(**how),
        "chamfer": lambda: ChamferLoss(**how),
        "hungarian": lambda: HungarianLoss(**how, set_size=N, max_size=N),
    }[distance]()
    x, y = torch.randn(B, N, 2, requires_grad=True), torch.randn(B, N, 2, requires_grad=True)
    one, other = (SetBatch(s, s.new_ones(B, N)) for s in (x, y))
    found = mine(SetBatch(one.x.unsqueeze(0), one.mask.unsqueeze(0)), other)
    expected = getattr(sets, distance)(x, y, getattr(sets, cost))
    alike(found, expected, [x, y], [x, y])


SMALL = ["hidden=5", f"latent={L}", f"dataset.set_size={N}"]


def network(mask_channel: bool = False) -> sets.Encoder:
    """The set encoder of the auto-encoders of polygons, whose pooling is relaxed."""
    pooling = sets.FSPool(5, 20, False, True)
    return sets.Encoder(sets.Elements([2, 5, 5]), pooling, [5, 5, L], mask_channel)


@pytest.mark.parametrize(
    ("experiment", "decoder"),
    [
        ("polygons_fspool", lambda: sets.FSUnpool(L, [5, 5], [5, 2], 20, False)),
        ("polygons_mlp_chamfer", lambda: sets.MLPDecoder(L, [5, 5], N, 2)),
    ],
)
@PATHS
def test_decoders(
    experiment: str,
    decoder: Callable[[], nn.Module],
    parts: bool,
    in_parts: Callable[[bool], None],
) -> None:
    in_parts(parts)
    task = build(config(f"experiment={experiment}", *SMALL)["task"], "task")
    plain = sets.Task(network(), decoder(), sets.direct, sets.squared)
    parameters, theirs = load(plain.decoder, task.decoder)
    load(plain.encoder, task.encoder)
    s = SetBatch(torch.randn(B, N, 2), torch.ones(B, N))
    z, encoded = task.encoder(s), plain.encoder(s)
    found = task.decoder(Encoding(z.z, z.order, s)).x[0]
    expected = plain.decoder(encoded, s.mask, plain.encoder)[0][0]
    alike(found, expected, parameters, theirs)


def pairs() -> sets.Encoder:
    """The inverted set encoder of scenes: a relation network."""
    return sets.Encoder(sets.Pairs([19, 5, 5]), sets.FSPool(5, 20, False, False), (), True, True)


def elements() -> sets.Encoder:
    """The set encoder of digits."""
    return sets.Encoder(
        sets.Elements([3, 5, 5, L]), sets.FSPool(L, 20, False, False), (), True, True
    )


def test_pair_encoder() -> None:
    node = config("experiment=dspn_clevr_state", "hidden=5", "latent=5", f"dataset.set_size={N}")
    mine, plain = build(node["task"]["decoder"]["set_encoder"], "set_encoder"), pairs()
    parameters, theirs = load(plain, mine)
    # no two rows are alike, because the gradient of either is right
    x, mask = torch.randn(B, N, 18, requires_grad=True), torch.rand(B, N, requires_grad=True)
    found, expected = mine(SetBatch(x, mask)).z, plain((x, mask))[0]
    alike(found, expected, [x, mask, *parameters], [x, mask, *theirs])


class Vectors(nn.Module):
    """Latent vectors instead of an image encoder, for us and for the reference."""

    def forward(self, z: Tensor) -> Encoding:
        return Encoding(z)


class PlainVectors(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor, None]:
        return z, None


TASKS: dict[str, Callable[[], sets.Task]] = {
    "polygons_fspool": lambda: sets.Task(
        network(),
        sets.FSUnpool(L, [5, 5], [5, 2], 20, False),
        sets.direct,
        sets.squared,
    ),
    "polygons_mlp_chamfer": lambda: sets.Task(
        network(), sets.MLPDecoder(L, [5, 5], N, 2), sets.chamfer, sets.squared
    ),
    "polygons_mlp_hungarian": lambda: sets.Task(
        network(), sets.MLPDecoder(L, [5, 5], N, 2), sets.hungarian, sets.squared
    ),
    "dspn_mnist": lambda: sets.Task(
        elements(),
        descent.DSPN(N, 2, 3, 800.0),
        sets.chamfer,
        sets.huber,
        all_steps=True,
        mask_channel=True,
    ),
    "dspn_clevr_state": lambda: sets.Task(
        PlainVectors(),
        descent.DSPN(N, 18, 3, 800.0, pairs()),
        sets.hungarian,
        sets.huber,
        mask_channel=True,
        representation=0.1,
    ),
}


@PATHS
@pytest.mark.parametrize("experiment", TASKS)
def test_tasks(experiment: str, parts: bool, in_parts: Callable[[bool], None]) -> None:
    """Whole losses, from the configs that are trained."""
    in_parts(parts)
    images = experiment == "dspn_clevr_state"
    steps = ["decoder.steps=3"] if experiment.startswith("dspn") else []
    latent = ["hidden=5", "latent=5"] if images else SMALL[:2]
    nodes = config(f"experiment={experiment}", *latent, SMALL[2], *steps)
    task, plain = build(nodes["task"], "task"), TASKS[experiment]()
    if images:
        task.encoder = Vectors()
    parameters, theirs = load(plain, task)
    target = (
        padded(18 if images else 2) if steps else SetBatch(torch.randn(B, N, 2), torch.ones(B, N))
    )
    given = torch.randn(B, 5) if images else target
    found = task(Batch(given, target, {})).loss.mean()
    alike(found, plain(given, target), parameters, theirs)


@pytest.mark.parametrize("shape", [[6], [2, 3]])
def test_permutation_optimisation(shape: list[int]) -> None:
    cost = OrderingCost(features=C, hidden=7, axes=len(shape))
    mine = PermutationOptimisation(
        elements=nn.Identity(), cost=cost, initial=None, shape=shape, steps=4, rounds=4,
        masked=False,
    )  # fmt: skip
    plain_cost = permutation.PairCost(C, 7, len(shape))
    plain = permutation.Permutation(nn.Identity(), plain_cost, shape, 4, 4)
    parameters, others = load(plain, mine)
    x = torch.randn(B, N, C)
    found = mine(SetBatch(x, torch.ones(B, N))).mT @ x
    alike(found, plain(x), parameters, others)


def test_tiles_of_the_reference() -> None:
    images = torch.randint(256, (1, 1, 28, 28), dtype=torch.uint8)
    shuffled, ordered = permutation.Puzzles(images, 4, 0.1, 0.3)[0]
    assert_close(ordered, (cut(images.float() / 255, 4)[0] - 0.1) / 0.3)
    assert_close(shuffled.sort(0).values, ordered.sort(0).values)
