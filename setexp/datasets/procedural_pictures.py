"""Procedural colour pictures in classes: the stand-in for CIFAR-10 and 64 x 64 ImageNet.

Each shows one object before a sky and a ground: a polygon or a star, filled with stripes of a
colour. Light falls from one side, so that both axes of a picture have an order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CLASSES = 1000
"""Ten shapes, ten hues, ten kinds of stripes; a class is shape + 10 hue + 100 stripes."""

_CHUNK = 64  # pictures drawn at a time
_GRAIN = 0.06  # of the largest value, the range of each pixel's noise


def draw_pictures(label: Tensor, classes: int, side: int, *, generator: torch.Generator) -> Tensor:
    """One picture of each class asked for.

    Args:
        label: (B,) int64, below `classes`.
        classes: 10, where hue and stripes are random, or 1000.
        side: height and width in pixels.
        generator: of everything else, on the device of the result.

    Returns:
        uint8 (B, 3, side, side).
    """
    n, device = len(label), generator.device
    unit = torch.rand(n, 12, generator=generator, device=device)
    kinds = torch.randint(CLASSES, (n,), generator=generator, device=device)
    kinds = label if classes == CLASSES else kinds - kinds % 10 + label
    pictures = torch.empty(n, 3, side, side, dtype=torch.uint8, device=device)
    for part in torch.arange(n, device=device).split(_CHUNK):
        grain = torch.rand(len(part), 3, side, side, generator=generator, device=device)
        picture = _draw(kinds[part], unit[part], side).add_(grain, alpha=_GRAIN)
        pictures[part] = picture.clamp_(0, 1).mul_(255).to(torch.uint8)
    return pictures


def _draw(kind: Tensor, unit: Tensor, side: int) -> Tensor:
    """Pictures (B, 3, side, side) of values from 0 up, from kinds (B,) and numbers (B, 12)."""

    def column(index: int, low: float, high: float) -> Tensor:
        return (low + (high - low) * unit[:, index])[:, None, None]

    line = (torch.arange(side, device=unit.device) + 0.5) / side
    x, y = line.expand(1, side, side), line[:, None].expand(1, side, side)
    # sky and ground: two colours that darken towards the horizon, which leans a little
    horizon = column(0, 0.35, 0.75) + column(1, -0.15, 0.15) * (x - 0.5)
    ground = torch.sigmoid((y - horizon) * 5 * side).unsqueeze(1)
    depth = (0.4 + 0.9 * (y - horizon).abs()).unsqueeze(1)
    sky_colour, ground_colour = _colour(unit[:, 2], 0.5), _colour(unit[:, 3], 0.35)
    picture = depth * (sky_colour * (1 - ground) + ground_colour * ground)
    # the object, in its own polar coordinates
    dx, dy = x - column(4, 0.35, 0.65), y - column(5, 0.35, 0.65)
    radius = (dx.square() + dy.square()).sqrt()
    angle = torch.atan2(dy, dx) + column(6, -math.pi, math.pi) / 6
    edge = _outline(kind % 10, angle) * column(7, 0.24, 0.36)
    inside = torch.sigmoid((edge - radius) * 5 * side).unsqueeze(1)
    hue = (kind // 10 % 10 + 0.6 * unit[:, 8]) / 10
    colour = _colour(hue, 0.9)
    stripes = kind // 100
    direction = (stripes % 5 * (math.pi / 5))[:, None, None] + column(9, -0.2, 0.2)
    along = dx * direction.cos() + dy * direction.sin()
    wave = (along * torch.where(stripes < 5, 25.0, 60.0)[:, None, None] + column(10, 0, 6.3)).sin()
    filled = colour * (0.75 + 0.25 * wave).unsqueeze(1)
    picture = picture * (1 - inside) + filled * inside
    light = (1 + column(11, 0.1, 0.5) * (2 * x - 1)).unsqueeze(1)  # brighter on the right
    return picture * light


def _outline(shape: Tensor, angle: Tensor) -> Tensor:
    """Distance from the middle to the edge: polygons of 3 to 7 corners, then stars of as many."""
    corners = (shape % 5 + 3)[:, None, None]
    sector = 2 * math.pi / corners
    within = angle.remainder(sector) - sector / 2
    polygon = (sector / 2).cos() / within.cos()
    star = 0.65 + 0.35 * (corners * angle).cos()
    return torch.where((shape < 5)[:, None, None], polygon, star)


def _colour(hue: Tensor, saturation: float) -> Tensor:
    """RGB (B, 3, 1, 1) of hues in [0, 1)."""
    phase = torch.arange(3, device=hue.device) / 3
    wheel = 0.5 + 0.5 * (2 * math.pi * (hue.unsqueeze(-1) + phase)).cos()
    return (1 - saturation + saturation * wheel)[:, :, None, None]
