"""Rays against CLEVR's three solids in units of their radius: closed form, then rounded edges.

Every solid is a core with a skin: a point and 0.9992 (sphere), a box and 0.18 (cube), a cylinder
and 0.05 (cylinder), which fits the generator's meshes to an overlap of 0.995 or more. Vectors have
their three components in the leading dimension; rays are origin + t direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SPHERE, CUBE, CYLINDER = 0, 1, 2
SKINS = (0.9992, 0.18, 0.05)
# Half side of a plain cube with the rounded cube's mean silhouette; shadows use it.
PLAIN_CUBE = 0.96
_NEWTON_STEPS = 4
# A ray that comes this close to the surface hits it.
_TOLERANCE = 0.005


def dot(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor) -> Tensor:
    """Inner product over the leading dimension of three."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(vectors: Tensor) -> Tensor:
    """Vectors (3, ...) at length 1; far faster than `norm` over a short leading dimension."""
    return vectors / dot(vectors, vectors).sqrt()


def crossing(shape: int, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the plain solid of half height 1; a miss enters after it leaves.

    Args:
        shape: index into `vocabulary.SHAPES`.
        origin: (3, F).
        direction: (3, F), no component exactly 0.

    Returns:
        t of entry and exit, (F,) each.
    """
    if shape == SPHERE:
        return _between(dot(direction, direction), dot(origin, direction), dot(origin, origin))
    inverse = direction.reciprocal()
    middle, reach = -origin * inverse, inverse.abs()
    enter, leave = middle - reach, middle + reach
    if shape == CUBE:
        return enter.amax(0), leave.amin(0)
    x, y = direction[0], direction[1]
    a, b, c = x * x + y * y, origin[0] * x + origin[1] * y, origin[0] ** 2 + origin[1] ** 2
    around = _between(a, b, c)
    return torch.maximum(around[0], enter[2]), torch.minimum(around[1], leave[2])


def _between(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of a t² + 2 b t + c = 1; (inf, -inf) where there are none."""
    root = b * b - a * (c - 1)
    missed = root < 0
    root = root.clamp_min(0).sqrt()
    enter = ((-b - root) / a).masked_fill(missed, torch.inf)
    return enter, ((root - b) / a).masked_fill(missed, -torch.inf)


def first_hit(shape: int, origin: Tensor, direction: Tensor) -> Tensor:
    """Smallest t at which rays from outside meet the rounded solid, (F,); infinite for a miss.

    From the plain solid's surface Newton's method walks to the rounded one. The distance to a
    convex core is convex along a ray, so the steps never go past the first crossing.
    """
    if shape == SPHERE:
        origin, direction = origin / SKINS[SPHERE], direction / SKINS[SPHERE]
    enter, leave = crossing(shape, origin, direction)
    missed = enter >= leave
    if shape == SPHERE:
        return enter.masked_fill(missed, torch.inf)
    t = enter.masked_fill(missed, 0.0)
    for _ in range(_NEWTON_STEPS):
        offset = from_core(shape, origin + t * direction)
        gap = dot(offset, offset).sqrt()
        slope = dot(offset, direction) / gap
        t = t + ((gap - SKINS[shape]) / -slope.clamp_max(-1e-6)).clamp(0.0, 1e3)
    offset = from_core(shape, origin + t * direction)
    missed = missed | (dot(offset, offset) > (SKINS[shape] + _TOLERANCE) ** 2)
    return t.masked_fill(missed, torch.inf)


def from_core(shape: int, point: Tensor) -> Tensor:
    """Vector to points from the nearest point of the solid's core, along the normal; (3, F)."""
    if shape == SPHERE:
        return point
    inner = 1 - SKINS[shape]
    if shape == CUBE:
        return point - point.clamp(-inner, inner)
    around = (point[0] ** 2 + point[1] ** 2).sqrt()
    beyond = (1 - inner / around.clamp_min(inner)).clamp_min(0)
    z = point[2] - point[2].clamp(-inner, inner)
    return torch.stack([point[0] * beyond, point[1] * beyond, z])
