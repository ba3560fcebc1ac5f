"""CLEVR objects seen from above, with the camera at the bottom as in the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from setexp.datasets.clevr.camera import POSITION, directions
from setexp.datasets.clevr.vocabulary import COLOR_BYTES, COLORS, RADII, SIZES
from setexp.figures import canvas
from setexp.figures.objects import Pair, Thing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REACH = 4.75  # world units shown from the middle to each side
_GROUND = 3.0  # objects stand at |x|, |y| up to this (CLEVR generator)
_WAYS = directions(torch.tensor(POSITION))
_RIGHT, _BEHIND = _WAYS["right"].tolist(), _WAYS["behind"].tolist()


def place(x: float, y: float) -> tuple[float, float]:
    """World coordinates to the plan's: to the right, and away from the nominal camera."""
    return x * _RIGHT[0] + y * _RIGHT[1], x * _BEHIND[0] + y * _BEHIND[1]


def draw_ground(axes: Axes) -> None:
    """The square that objects stand on, and its x and y axes."""
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    g = _GROUND
    corners = [place(x, y) for x, y in ((-g, -g), (g, -g), (g, g), (-g, g))]
    axes.fill(*zip(*corners, strict=True), color=canvas.GROUND, linewidth=0, zorder=0)
    for name, way in (("x", (g, 0.0)), ("y", (0.0, g))):
        u, v = place(*way)
        axes.plot([-u, u], [-v, v], color=canvas.RULE, linewidth=0.7, zorder=0.5)
        axes.text(
            1.13 * u, 1.13 * v, name, fontsize=7, color=canvas.QUIET, ha="center", va="center"
        )


def draw_thing(axes: Axes, thing: Thing, at: tuple[float, float] | None = None) -> None:
    """An object in its colour and, whatever its height, its size; as opaque as its mask.

    Spheres are discs, cubes squares, cylinders cans. Metal has a bold outline and a glint.
    """
    u, v = place(*thing.position[:2]) if at is None else at
    radius = RADII[SIZES.index(thing.size)]
    metal = thing.material == "metal"
    color = [byte / 255 for byte in COLOR_BYTES[COLORS.index(thing.color)]]
    opacity = min(max(thing.present, 0.0), 1.0)
    # nearer objects cover those behind, as in the image
    order = 2 - v / 100
    axes.fill(
        *_outline(thing.shape, u, v, radius),
        facecolor=(*color, opacity),
        edgecolor=(0.1, 0.1, 0.1, opacity) if metal else (1, 1, 1, opacity),
        linewidth=1.3 if metal else 0.6,
        zorder=order,
    )
    if metal:
        axes.fill(
            *_outline("sphere", u - 0.35 * radius, v + 0.35 * radius, 0.2 * radius),
            color=(1, 1, 1, 0.9 * opacity),
            linewidth=0,
            zorder=order,
        )


def draw_pairs(axes: Axes, pairs: list[Pair]) -> None:
    """Predicted objects, dashed rings where they truly are, red where something is wrong."""
    for pair in pairs:
        draw_thing(axes, pair.predicted)
        if pair.true is not None:
            color = canvas.QUIET if pair.found else canvas.MISTAKE
            draw_ring(axes, pair.true, color, dashed=True)
        if not pair.found:
            continue
        if not pair.right:
            draw_ring(axes, pair.predicted, canvas.MISTAKE)
        if pair.true is not None:
            ends = [place(*thing.position[:2]) for thing in (pair.predicted, pair.true)]
            axes.plot(*zip(*ends, strict=True), color=canvas.QUIET, linewidth=0.8, zorder=3)


def draw_ring(
    axes: Axes,
    thing: Thing,
    color: str,
    *,
    dashed: bool = False,
    at: tuple[float, float] | None = None,
) -> None:
    """A ring around where an object is; a dashed one hugs it, a full one keeps a distance."""
    u, v = place(*thing.position[:2]) if at is None else at
    radius = RADII[SIZES.index(thing.size)] + (0.05 if dashed else 0.22)
    axes.fill(
        *_outline("sphere", u, v, radius),
        fill=False,
        edgecolor=color,
        linewidth=0.9 if dashed else 1.6,
        linestyle=(0, (2, 1.5)) if dashed else "solid",
        zorder=3,
    )


def _outline(shape: str, u: float, v: float, radius: float) -> tuple[list[float], list[float]]:
    """Corners of a shape's outline around (u, v)."""
    turn = [2 * math.pi * k / 48 for k in range(48)]
    circle = [(math.cos(t), math.sin(t)) for t in turn]
    if shape == "cube":
        corners = [(s * 0.84, t * 0.84) for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    elif shape == "cylinder":  # the upper half of a flat ellipse on top, the lower one below
        corners = [(0.7 * c, 0.28 * s + (0.72 if s >= 0 else -0.72)) for c, s in circle]
    else:
        corners = circle
    return [u + radius * c for c, _ in corners], [v + radius * s for _, s in corners]
