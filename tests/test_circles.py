"""Circles: where they may lie, what they look like, pairs of pictures, and how passes are drawn."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from setexp.datasets.circle_images import CircleImages
from setexp.datasets.circle_pairs import CirclePairs
from setexp.datasets.circles import Rules, draw, place, reach, touching
from setexp.errors import ConfigError

SIDE, RADIUS = 24, 5
PRINTED: dict[str, Any] = {"image_size": 64, "set_size": 10, "min_radius": 1, "max_radius": 11}
SIZES = {"train_size": 64, "val_size": 8, "test_size": 8}


def images(**changes: Any) -> CircleImages:
    settings = {**PRINTED, **SIZES, "max_circles": 10, "counted_size": 6, "data_seed": 0, **changes}
    return CircleImages(**settings)


def pairs(**changes: Any) -> CirclePairs:
    settings = {k: v for k, v in PRINTED.items() if k != "set_size"}
    return CirclePairs(**{**settings, **SIZES, "data_seed": 0, **changes})


def disc(circle: Tensor, *, larger: int = 0, side: int = 64) -> Tensor:
    """Pixels of one circle, one by one."""
    x, y, radius = circle[:3].tolist()
    found = torch.zeros(side, side, dtype=torch.bool)
    for i, j in itertools.product(range(side), range(side)):
        found[i, j] = (i - x) ** 2 + (j - y) ** 2 <= (radius + larger) ** 2
    return found


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(dataset: Any, split: str, *, shuffle: bool = True) -> list[Any]:
    return list(dataset.batches(split, 3, generator(), shuffle=shuffle, drop_last=False))


def test_what_touches_is_what_shares_a_pixel() -> None:
    near = reach(RADIUS, torch.device("cpu"))
    assert not near[..., -1, :].any() and not near[..., -1].any()
    drawn = torch.randint(0, SIDE, (200, 2, 4), generator=generator())
    drawn[..., 2] = drawn[..., 2] % RADIUS + 1
    drawn[..., 3] = drawn[..., 3] % 2
    found = touching(drawn[:, 0], drawn[:, 1], near)
    assert 10 < found.sum() < 190
    for (a, b), met in zip(drawn, found, strict=True):
        shared = (disc(a, larger=1, side=SIDE + 9) & disc(b, side=SIDE + 9)).any()
        assert bool(met) == bool(shared and a[3] == b[3])


def test_pictures_of_circles() -> None:
    circles = torch.tensor([[[5, 6, 3, 0], [7, 6, 2, 1], [15, 15, 4, 0]]])
    picture = draw(circles.float(), torch.tensor([[1.0, 1.0, 0.0]]), SIDE)[0]
    red, green = disc(circles[0, 0], side=SIDE), disc(circles[0, 1], side=SIDE)
    assert torch.equal(picture[0] > 0, red) and torch.equal(picture[1] > 0, green)
    assert (picture[:2].sum(0) == 2).any()  # yellow
    assert picture[2].sum() == 0 and set(picture.unique().tolist()) == {0, 1}


def test_circles_follow_the_printed_rules() -> None:
    dataset = images(train_size=2000)
    circles, count = dataset.circles("train")
    x, y, radius, colour = circles.unbind(-1)
    present = torch.arange(10) < count.unsqueeze(-1)
    assert (circles[~present] == 0).all()
    for centre in (x, y):
        assert (centre - radius)[present].min() == 0
        assert (centre + radius)[present].max() == 63
    share = torch.bincount(count, minlength=11) / len(count)
    assert (share - 1 / 11).abs().max() < 0.025
    first = radius[count > 0, 0]  # later ones are smaller, for lack of room
    assert (torch.bincount(first, minlength=12)[1:] / len(first) - 1 / 11).abs().max() < 0.03
    assert abs(colour[present].float().mean() - 0.5) < 0.02
    near = reach(11, torch.device("cpu"))
    for i, j in itertools.combinations(range(10), 2):
        both = present[:, i] & present[:, j]
        assert not touching(circles[both, j], circles[both, i], near).any()


def test_splits_of_equal_counts() -> None:
    dataset = images()
    assert dataset.sizes("circles_3") == 6
    counts = torch.cat([batch.target.mask.sum(-1) for batch in some(dataset, "circles_3")])
    assert counts.tolist() == [3] * 6
    with pytest.raises(ConfigError, match="circles_11: dataset.set_size=10"):
        dataset.sizes("circles_11")
    with pytest.raises(ConfigError, match="split nothing: circles have train"):
        dataset.sizes("nothing")


def test_batches_show_their_circles() -> None:
    batches = some(images(), "test")
    assert sum(len(batch.input) for batch in batches) == 8
    for batch in batches:
        assert batch.input is batch.aux["picture"]
        assert torch.equal(batch.input, draw(*batch.target, 64))


def test_pairs_keep_radii_and_colours() -> None:
    dataset = pairs(train_size=500)
    first, second = dataset.circles("train").unbind(1)
    assert torch.equal(first[..., 2:], second[..., 2:])
    near = reach(11, torch.device("cpu"))
    assert not touching(second[:, 1], second[:, 0], near).any()
    assert (first != second).any((1, 2)).all()
    batch = some(dataset, "val", shuffle=False)[0]
    circles = dataset.circles("val")[:3]
    for k, (a, b) in enumerate(circles):
        way = sum((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 for p, q in zip(a, b, strict=True))
        assert float(batch.target[k]) == pytest.approx(float(way) / 4096)
        mask = torch.ones(1, 2)
        assert torch.equal(batch.input[k, 1], draw(b.unsqueeze(0).float(), mask, 64)[0])


@pytest.mark.parametrize("dataset", [images(), pairs()], ids=["images", "pairs"])
def test_splits_and_orders_differ(dataset: Any) -> None:
    shuffled, still = (some(dataset, "train", shuffle=how) for how in (True, False))
    assert not torch.equal(shuffled[0].input, still[0].input)
    assert not torch.equal(some(dataset, "val")[0].input, some(dataset, "test")[0].input)


def test_the_data_seed_decides() -> None:
    a, b, c = (images(data_seed=s).circles("val")[0] for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_device_does_not_decide() -> None:
    """Meta tensors can be moved to, but nothing can be drawn on their device."""
    meta = torch.device("meta")
    assert all(part.device == meta for part in images().to(meta).circles("val"))
    assert pairs().to(meta).circles("val").device == meta


@pytest.mark.parametrize("make", [images, pairs])
def test_circles_that_do_not_fit_are_refused(make: Any) -> None:
    one_place = {"image_size": 23, "min_radius": 11}  # pairs would look for another for ever
    wrong = [{"max_radius": 32}, {"min_radius": 0}, {"min_radius": 5, "max_radius": 4}, one_place]
    for changes in wrong:
        with pytest.raises(ConfigError, match=r"must be 1 <= min_radius <= max_radius"):
            make(**changes)
    for ask in (make().sizes, make().circles):
        with pytest.raises(ConfigError, match="split x"):
            ask("x")


def test_a_picture_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset.image_size=16: no room for \d circles"):
        place(torch.tensor([6]), 6, Rules(16, 6, 6), generator())
    with pytest.raises(ConfigError, match="dataset.max_circles=11: 1 to dataset.set_size=10"):
        images(max_circles=11)
