"""Procedural digits: what MNIST promises about its images, these keep."""

import pytest
import torch
from torch import Tensor

from setexp.datasets.digits import MAX_POINTS, MIN_POINTS, draw_digits


def draw(labels: Tensor, seed: int = 0) -> Tensor:
    return draw_digits(labels, generator=torch.Generator().manual_seed(seed))


def points(images: Tensor) -> Tensor:
    """Set sizes by the definition: pixels with value / 255 > 0.1307."""
    return (images.float() / 255 > 0.1307).sum((1, 2))


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(3000) % 10


@pytest.fixture(scope="module")
def images(labels: Tensor) -> Tensor:
    return draw(labels)


def test_images_are_bytes_of_mnist_shape(images: Tensor) -> None:
    assert images.shape == (3000, 28, 28)
    assert images.dtype == torch.uint8
    assert images.amax() == 255
    assert (images == 0).float().mean() > 0.7


def test_set_sizes_resemble_mnist(images: Tensor) -> None:
    sizes = points(images).float()
    assert abs(sizes.mean() - 133) < 13.3
    assert abs(sizes.std() - 38.8) < 5
    assert sizes.min() >= 32
    assert sizes.max() <= 342


# Mean set size of each class over MNIST's 60000 training images.
@pytest.mark.parametrize(
    ("digit", "mean"),
    list(enumerate([172.8, 77.2, 150.6, 144.5, 125.2, 134.0, 139.2, 116.8, 153.2, 126.3])),
)
def test_set_sizes_of_a_class_resemble_mnist(
    images: Tensor, labels: Tensor, digit: int, mean: float
) -> None:
    sizes = points(images[labels == digit]).float()
    assert abs(sizes.mean() / mean - 1) < 0.15
    assert 0.15 < sizes.std() / sizes.mean() < 0.3  # 0.20 to 0.24 in MNIST


def test_ink_is_framed_like_mnist(images: Tensor) -> None:
    bright = images > 33
    height = bright.any(2).sum(1)
    width = bright.any(1).sum(1)
    box = torch.maximum(height, width)
    assert box.min() >= 18
    assert box.max() <= 22
    line = torch.arange(28.0)
    ink = images.double()
    mass = ink.sum((1, 2))
    for axis in (1, 2):
        centre = (ink.sum(3 - axis) * line).sum(1) / mass
        assert (centre - 13.5).abs().max() < 2
        assert abs(centre.mean() - 13.5) < 0.25


@pytest.mark.parametrize("reach", [0.0, 0.5, 12.0])
def test_number_of_points_is_enforced(
    monkeypatch: pytest.MonkeyPatch, labels: Tensor, reach: float
) -> None:
    from setexp.datasets import digits

    some = labels[:200]
    monkeypatch.setattr(digits, "_REACH_MEDIAN", reach)
    monkeypatch.setattr(digits, "_BOX", 20.0 + 2 * reach)
    sizes = points(draw(some))
    assert sizes.min() >= MIN_POINTS
    assert sizes.max() <= MAX_POINTS
    assert (sizes == MAX_POINTS).any() if reach == 12 else (sizes == MIN_POINTS).any()


def test_same_generator_state_same_digits(labels: Tensor) -> None:
    assert torch.equal(draw(labels[:50], 3), draw(labels[:50], 3))
    assert not torch.equal(draw(labels[:50], 3), draw(labels[:50], 4))


def test_no_two_digits_of_a_class_are_equal() -> None:
    images = draw(torch.full((100,), 7)).flatten(1)
    assert len(images.unique(dim=0)) == 100


def test_classes_can_be_told_apart(images: Tensor, labels: Tensor) -> None:
    """The nearest class mean, from other digits, finds the class of most."""
    flat = images.flatten(1).float()
    seen, unseen = slice(0, 2000), slice(2000, None)
    means = torch.stack([flat[seen][labels[seen] == d].mean(0) for d in range(10)])
    guess = torch.cdist(flat[unseen], means).argmin(1)
    correct = guess == labels[unseen]
    assert correct.float().mean() > 0.8
    assert all(correct[labels[unseen] == d].float().mean() > 0.6 for d in range(10))


def test_a_straight_stroke_has_the_stroke_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without randomness, a one is its stroke: each of its rows as wide as twice the reach."""
    from setexp.datasets import digits

    for name in (
        "_REACH_LOG_STD",
        "_SLANT_MEAN",
        "_SLANT_STD",
        "_ROTATION_STD",
        "_ASPECT_STD",
        "_JITTER_STD",
        "_SHIFT",
    ):
        monkeypatch.setattr(digits, name, 0.0)
    monkeypatch.setattr(digits, "_REACH_MEDIAN", 2.0)
    ones = draw(torch.ones(20, dtype=torch.long))
    plain = ones[points(ones).argmin()]  # without the flag
    rows = (plain > 33).sum(1)
    assert rows[:4].sum() == 0
    assert rows[24:].sum() == 0
    assert (rows[6:22] == 4).all()
