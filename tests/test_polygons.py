"""Rotating polygons: what is drawn, how a pass repeats, and the Random row of Tables 5.1-5.3."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from setexp.config import compose_run, plain, register
from setexp.datasets.polygons import Polygons, polygons
from setexp.decoders.random_polygon import RandomPolygon
from setexp.errors import ConfigError
from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss
from setexp.losses.direct import DirectLoss
from setexp.losses.hungarian import HungarianLoss
from setexp.ops.costs import Cost
from setexp.sets import Batch, Encoding

HOW: dict[str, Any] = {"batch_size": 8, "shuffle": True, "drop_last": False}


def make(n: int = 5, count: int = 20) -> Polygons:
    return Polygons(set_size=n, element_dim=2, train_size=count, test_size=count // 2)


def one_pass(dataset: Polygons, split: str = "train", seed: int = 0, **changes: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return list(dataset.batches(split, generator=generator, **HOW | changes))


def elements(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.target.x for batch in batches])


def test_vertices_of_a_square() -> None:
    square = polygons(torch.zeros(1), 4)
    assert_close(square, torch.tensor([[[0.0, 1], [1, 0], [0, -1], [-1, 0]]]), atol=1e-6, rtol=0)
    turned = polygons(torch.tensor([math.pi / 2]), 4)
    assert_close(turned, square.roll(-1, dims=1), atol=1e-6, rtol=0)


@given(st.integers(2, 9), st.integers(0, 2**16))
def test_sets_are_regular_polygons(n: int, seed: int) -> None:
    x = elements(one_pass(make(n), seed=seed))
    angle = torch.atan2(x[..., 0], x[..., 1]).sort(-1).values
    gaps = torch.cat([angle.diff(dim=-1), angle[:, :1] - angle[:, -1:] + 2 * math.pi], -1)
    assert_close(x.norm(dim=-1), torch.ones(20, n))
    assert_close(gaps, torch.full((20, n), 2 * math.pi / n), atol=1e-5, rtol=0)


def test_rotations_and_orders_are_uniform() -> None:
    count = 8000
    (batch,) = one_pass(make(3, count), batch_size=count)
    angle = torch.atan2(batch.target.x[..., 0], batch.target.x[..., 1])
    rotation = angle[:, 0] % (2 * math.pi / 3)  # whatever vertex comes first
    for values, low, high in (
        (angle[:, 0], -math.pi, math.pi),
        (rotation, 0.0, 2 * math.pi / 3),
    ):
        shares = torch.histc(values, 8, low, high) / count
        assert ((shares - 1 / 8).abs() < 5 * (1 / 8 / count) ** 0.5).all()
    orders = angle.argsort(-1) @ torch.tensor([9, 3, 1])
    shares = orders.unique(return_counts=True)[1] / count
    assert len(shares) == 6
    assert ((shares - 1 / 6).abs() < 5 * (1 / 6 / count) ** 0.5).all()


def test_batches() -> None:
    dataset = make()
    batches = one_pass(dataset)
    assert [batch.target.x.shape for batch in batches] == [(8, 5, 2), (8, 5, 2), (4, 5, 2)]
    assert all(batch.input is batch.target for batch in batches)
    assert all(batch.target.mask.shape == batch.target.x.shape[:2] for batch in batches)
    assert all((batch.target.mask == 1).all() for batch in batches)
    assert [dataset.sizes(split) for split in ("train", "val", "test")] == [20, 10, 10]
    assert len(elements(one_pass(dataset, "test"))) == 10


def test_a_pass_repeats_under_its_seed_and_never_otherwise() -> None:
    dataset, generator = make(), torch.Generator().manual_seed(0)
    first, second = (
        elements(list(dataset.batches("train", generator=generator, **HOW))) for _ in range(2)
    )
    assert torch.equal(first, elements(one_pass(make())))
    assert not torch.isclose(first, second).all(-1).any()
    assert not torch.equal(first, elements(one_pass(dataset, seed=1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"element_dim": 3}, r"dataset.element_dim=3: a polygon's vertices have 2"),
        ({"set_size": 1}, r"dataset.set_size=1: a polygon has at least 2"),
    ],
)
def test_polygons_refuse(arguments: dict[str, int], message: str) -> None:
    sizes = {"set_size": 4, "element_dim": 2, "train_size": 1, "test_size": 1}
    with pytest.raises(ConfigError, match=message):
        Polygons(**{**sizes, **arguments})


# Errors before they are printed in hundredths, for polygons of 2, 4 and 8 vertices.
PRINTED = {
    "direct": {2: 1.00, 4: 1.00, 8: 1.00},
    "chamfer": {2: 0.727, 4: 0.200, 8: 0.0505},
    "hungarian": {2: 0.363, 4: 0.100, 8: 0.0252},
}


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("name", PRINTED)
def test_errors_of_random_rotations(name: str, n: int) -> None:
    count = 8192
    dataset = make(n, count)
    (batch,) = one_pass(dataset, seed=n, batch_size=count)
    prediction = RandomPolygon(set_size=n)(Encoding(torch.zeros(count, 1)))
    options = {"cost": Cost.squared, "steps": Steps.last, "mask_channel": False}
    loss = {
        "direct": DirectLoss(**options),
        "chamfer": ChamferLoss(**options),
        "hungarian": HungarianLoss(**options, set_size=n, max_size=n),
    }[name](prediction, batch.target)
    error = 5 * loss.std() / count**0.5
    assert abs(loss.mean() - PRINTED[name][n]) < error + 0.0005
    # nearest vertices are a uniform angle of at most pi/n apart
    closest = 1 - math.sin(math.pi / n) / (math.pi / n)
    exact = {"direct": 1.0, "chamfer": 2 * closest, "hungarian": closest}[name]
    assert abs(loss.mean() - exact) < error


def test_training_takes_10240_steps() -> None:
    register()
    config = plain(compose_run(["experiment=polygons_fspool"]))
    trainer = config["trainer"]
    assert config["dataset"]["train_size"] * trainer["epochs"] // trainer["batch_size"] == 10_240
    assert trainer["steps"] is None
