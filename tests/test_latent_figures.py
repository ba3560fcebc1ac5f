"""What the pictures of latent sets are made of."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from setexp.figures.circle_shift import coloured
from setexp.figures.latent_map import LatentMap, embed
from setexp.figures.latent_sets import Latent, as_pixels, one_circle, take_apart
from setexp.ops.superposition import Superposition, superpose
from setexp.sets import Encoding, SetBatch


class Blobs(nn.Module):
    """A task whose elements are three pixels of the first column, and show themselves."""

    def encoder(self, pictures: Tensor) -> Encoding:
        x = pictures[:, 1, :3, :1]
        return Encoding(x[..., 0], elements=SetBatch(x, torch.ones(x.shape[:2])))

    def decoder(self, encoding: Encoding) -> SetBatch:
        assert encoding.elements is not None
        return SetBatch(encoding.elements.x.unsqueeze(0), encoding.elements.mask.unsqueeze(0))

    def show(self, elements: Tensor) -> Superposition:
        raw = (20 * elements - 10).reshape(*elements.shape[:2], 1, 1, 1).expand(-1, -1, 3, 4, 4)
        return superpose(raw)


def test_pictures_are_taken_apart_in_order() -> None:
    pictures = torch.zeros(300, 3, 4, 4)  # more than go at once
    pictures[torch.arange(300), 1, torch.arange(300) % 3, 0] = 1
    latent = take_apart(Blobs(), pictures)
    assert isinstance(latent, Latent) and latent.elements.shape == (300, 3, 1)
    assert torch.equal(latent.brightness.argmax(-1), torch.arange(300) % 3)


def test_each_element_has_a_colour_of_its_own() -> None:
    parts = torch.zeros(1, 3, 3, 2, 2)
    for k in range(3):
        parts[0, k, 1, k // 2, k % 2] = 0.5
    shown = coloured(parts)[0].flatten(1).T
    assert len({tuple(pixel.tolist()) for pixel in shown}) == 4
    assert shown[3].tolist() == [0, 0, 0]


def test_the_first_axis_of_circles_goes_to_the_right() -> None:
    (picture,) = one_circle(torch.tensor([[9, 3, 1, 0]]), 12)
    down, right, colour = as_pixels(picture, transposed=True).nonzero()
    assert (down.mean(), right.mean(), set(colour)) == (3, 9, {0})


def test_circles_of_a_map() -> None:
    circles = LatentMap(dimensions=3, places=4, radii=[1, 3]).circles(16)
    assert len(circles) == len({tuple(c) for c in circles.tolist()}) == 4 * 4 * 2 * 2
    centre, radius = circles[:, :2], circles[:, 2:3]
    assert (centre - radius).min() == 0 and (centre + radius).max() == 15


def test_dimensions_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions=4: 2 or 3"):
        LatentMap(dimensions=4, places=4, radii=[1])


def test_a_map_needs_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which `setexp.experiment.draw` then says, and goes on."""
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match="sklearn"):
        embed(torch.rand(8, 3), 2, 0)
