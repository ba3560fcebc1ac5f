"""Light that reaches the camera: ground and backdrop, rubber and metal, in linear units.

Closed forms fitted to renders of the generator's own scene: ground within 1 level of 255,
rubber within about 3, metal within about 10. Bounced light is one smooth term each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from setexp.datasets.clevr.lamps import COLORS, Lamps, arriving
from setexp.datasets.clevr.solids import dot, unit

_GROUND_ALBEDO = 0.8
# The generator's ground bends up into a wall in this horizontal direction.
_UPHILL = (-0.9032, 0.4292)


def shade_ground(points: Tensor, lamps: Lamps, visible: Tensor) -> Tensor:
    """Radiance of ground and wall, (3, S, P), at points of the ground's plane, wall or not.

    Args:
        points: where rays meet z = 0, (3, S, P).
        lamps: of the S scenes.
        visible: share of each lamp that a point sees, (4, S, P).
    """
    total = torch.zeros_like(points)
    for light, color in enumerate(COLORS):
        position, facing = lamps.position[:, :, light, None], lamps.facing[:, :, light, None]
        strength, towards, _ = arriving(light, points, position, facing)
        arrived = strength * towards[2].clamp_min(0) * visible[light]
        total += arrived * points.new_tensor(color)[:, None, None]
    uphill = _UPHILL[0] * points[0] + _UPHILL[1] * points[1]
    bounce = 0.0064 + 0.0361 * torch.sigmoid((uphill - 7) / 4.5)
    return total * (_GROUND_ALBEDO / math.pi) + bounce


def shade_objects(
    points: Tensor,
    normal: Tensor,
    ray: Tensor,
    albedo: Tensor,
    metal: Tensor,
    lamps: list[Tensor],
    visible: Tensor,
) -> Tensor:
    """Radiance of objects towards the camera, (3, F)."""
    mirrored = ray - 2 * dot(ray, normal) * normal
    facing_camera = -dot(ray, normal).clamp(-1.0, -1e-3)
    diffuse = torch.zeros_like(points)
    gloss = torch.zeros_like(points)
    for light, color in enumerate(COLORS):
        position, facing = lamps[0][:, :, light], lamps[1][:, :, light]
        strength, towards, wide = arriving(light, points, position, facing)
        facing_light = dot(towards, normal).clamp_min(0)
        strength = strength * visible[light]
        tint = points.new_tensor(color)[:, None]
        diffuse += strength * facing_light * tint
        half = dot(unit(towards - ray), normal)
        shine = 0.4 * _shine(half, facing_light, facing_camera, 0.2 + wide)
        shine += 0.6 * _shine(half, facing_light, facing_camera, 0.01 + wide)
        gloss += strength * shine * (facing_light > 0) * tint
    rubber = albedo * (0.93 / math.pi * diffuse + 0.102 * (1 - normal[2])) + 0.0036
    mirror = 0.4 * _surroundings(mirrored, 0.12) + 0.6 * _surroundings(mirrored, 0.01)
    return torch.where(metal, albedo * (mirror + gloss), rubber)


def _shine(half: Tensor, facing_light: Tensor, facing_camera: Tensor, rough: Tensor) -> Tensor:
    """GGX reflection times the cosine to the light: D G / (4 cosine to the camera)."""
    square = rough**2
    peak = square / (math.pi * (half**2 * (square - 1) + 1) ** 2)
    hidden = _smith(facing_light, square) * _smith(facing_camera, square)
    return peak * hidden / (4 * facing_camera)


def _smith(cosine: Tensor, square: Tensor) -> Tensor:
    return 2 * cosine / (cosine + (square + (1 - square) * cosine**2).sqrt())


def _surroundings(direction: Tensor, blur: float) -> Tensor:
    """Radiance of ground, wall and black sky in a direction (3, F), edges softened by `blur`."""
    ground = torch.sigmoid((-direction[2] - 0.04) / blur)
    flat = (direction[0] ** 2 + direction[1] ** 2).sqrt().clamp_min(1e-6)
    towards_wall = (_UPHILL[0] * direction[0] + _UPHILL[1] * direction[1]) / flat
    wall = (0.14 - 0.08 * direction[2]).clamp(0.07, 0.14)
    wall = wall * torch.sigmoid((towards_wall - math.cos(math.radians(57))) / blur)
    wall = wall * torch.sigmoid((0.78 - direction[2]) / blur)
    return 0.20 * ground + (1 - ground) * wall


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light as 8-bit sRGB, without tone curve."""
    clipped = linear.clamp(0.0, 1.0)
    encoded = torch.where(
        clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped.clamp_min(1e-4) ** (1 / 2.4) - 0.055
    )
    return (encoded * 255).round().to(torch.uint8)
