"""Circles that may overlap only in another colour: where they lie, and what they look like
(SSLR, 4.1).

A circle is four numbers x, y, radius, colour (0 red, 1 green), in pixels. It covers the pixels that
are at most its radius away from its centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from setexp.datasets.drawn import Drawn
from setexp.errors import ConfigError

CIRCLE_DIM = 4
# A scene that is not full takes a few tries; one that is full takes any number.
_MOST_TRIES = 10_000


class Rules(NamedTuple):
    """Side of the pictures and radii of circles, in pixels."""

    image_size: int
    min_radius: int
    max_radius: int

    def checked(self) -> Rules:
        """The same.

        Raises:
            ConfigError: a radius below 1, the wrong way round, or too large to move in the picture.
        """
        room = self.image_size - 2 * self.max_radius
        if not 1 <= self.min_radius <= self.max_radius or room < 2:
            raise ConfigError(
                f"dataset.min_radius={self.min_radius}, max_radius={self.max_radius}: must be 1 <= "
                f"min_radius <= max_radius <= dataset.image_size / 2 - 1 = "
                f"{self.image_size / 2 - 1:g}"
            )
        return self


class FixedCircles(Drawn):
    """A dataset of circles that are drawn once per split, on the CPU, when first asked for.

    Args:
        rules: of all circles. sizes: pictures or pairs of them, by split. data_seed: of all.

    Raises:
        ConfigError: circles that do not fit.
    """

    def __init__(self, rules: Rules, sizes: Mapping[str, int], data_seed: int) -> None:
        super().__init__(sizes)
        self.rules, self.data_seed = rules.checked(), data_seed
        self._placed: dict[str, Any] = {}  # of each split, on the device

    def to(self, device: torch.device) -> Self:
        """Deliver batches on this device from now on."""
        self._placed.clear()
        return super().to(device)

    def _fixed(self, number: int) -> torch.Generator:
        """What decides the circles of the split of a number, on the CPU."""
        return torch.Generator().manual_seed(1000 * self.data_seed + number)


def draw(circles: Tensor, mask: Tensor, image_size: int) -> Tensor:
    """Pictures of circles: (B, N, 4) and (B, N) to (B, 3, X, Y) of zeros and ones, blue unused."""
    axis = torch.arange(image_size, device=circles.device, dtype=circles.dtype)
    x, y, radius, colour = circles.unsqueeze(-1).unbind(-2)
    across = ((axis - x).square().unsqueeze(-1), (axis - y).square().unsqueeze(-2))
    inside = across[0] + across[1] <= radius.square().unsqueeze(-1)
    inside = inside & (mask > 0).unsqueeze(-1).unsqueeze(-1)
    red, green = ((inside & (colour == c).unsqueeze(-1)).any(1) for c in (0, 1))
    return torch.stack([red, green, torch.zeros_like(red)], dim=1).float()


def reach(max_radius: int, device: torch.device) -> Tensor:
    """Whether a disc of radius R + 1 shares a pixel with one of radius r at an offset.

    Returns:
        bool (max_radius + 1, max_radius + 1, S, S), by R, r and the sides of the offset, of which
        the last ones are out of reach.
    """
    axis = torch.arange(-max_radius - 1, max_radius + 2, device=device)
    squares = axis.square() + axis.square().unsqueeze(-1)
    radii = torch.arange(max_radius + 2, device=device).reshape(-1, 1, 1)
    discs = (squares <= radii.square()).float().unsqueeze(1)  # of all radii
    side = 2 * (max_radius + 1)
    shared = F.conv2d(discs[:-1], discs[1:], padding=side) > 0.5  # r, R, offsets
    return F.pad(shared[..., side:, side:].transpose(0, 1), (0, 1, 0, 1))


def touching(circles: Tensor, others: Tensor, reach: Tensor) -> Tensor:
    """Whether circles, a pixel larger, meet others of their colour: twice (..., 4) to (...)."""
    offset = (circles[..., :2] - others[..., :2]).abs().clamp(max=reach.shape[-1] - 1)
    met = reach[circles[..., 2], others[..., 2], offset[..., 0], offset[..., 1]]
    return met & (circles[..., 3] == others[..., 3])


def anywhere(radius: Tensor, image_size: int, generator: torch.Generator) -> Tensor:
    """Centres of circles that lie within the picture: radii (S,) to (S, 2)."""
    share = torch.rand(len(radius), 2, generator=generator, device=radius.device)
    radius = radius.unsqueeze(-1)
    return (share * (image_size - 2 * radius) + radius).floor().long()


def place(count: Tensor, most: int, rules: Rules, generator: torch.Generator) -> Tensor:
    """Circles of S pictures, one after the other; one that touches its colour is drawn again.

    Args:
        count: of each picture, (S,). most: the largest that is possible.

    Returns:
        int64 (S, most, 4), zero beyond each count.

    Raises:
        ConfigError: a picture has no room left.
    """
    device = count.device
    image_size, min_radius, max_radius = rules
    near = reach(max_radius, device)
    circles = torch.zeros(len(count), most, CIRCLE_DIM, dtype=torch.int64, device=device)
    for slot in range(most):
        waiting, tries = (count > slot).nonzero()[:, 0], 0
        while len(waiting):
            if tries == _MOST_TRIES:
                raise ConfigError(
                    f"dataset.image_size={image_size}: no room for {slot + 1} circles of radius "
                    f"{min_radius} and more; ask for fewer or smaller ones"
                )
            shape = (len(waiting), 1)
            radius = torch.randint(
                min_radius, max_radius + 1, shape, generator=generator, device=device
            )
            colour = torch.randint(2, shape, generator=generator, device=device)
            centre = anywhere(radius[:, 0], image_size, generator)
            drawn = torch.cat([centre, radius, colour], dim=1)
            met = touching(drawn.unsqueeze(1), circles[waiting, :slot], near).any(1)
            circles[waiting[~met], slot] = drawn[~met]
            waiting, tries = waiting[met], tries + 1
    return circles
