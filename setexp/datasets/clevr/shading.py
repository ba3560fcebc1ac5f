"""Light that reaches the camera: ground and backdrop, rubber and metal, in linear units.

Closed forms fitted to renders of the generator's own scene: ground within 1 level of 255,
rubber within about 3, metal within about 10. Bounced light is one smooth term each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr.lamps import COLORS, Lamps, arriving
from setexp.datasets.clevr.solids import dot, unit

_GROUND_ALBEDO = 0.8
# Fitted: part of the mirrored light is lost in the rough lobe and in shadows close by.
_MIRROR = 0.9
# The generator's ground bends up into a wall in this horizontal direction.
_UPHILL = (-0.9032, 0.4292)


class Surface(NamedTuple):
    """F points on objects.

    Args:
        point: in world units, (3, F).
        normal: unit length, (3, F).
        ray: unit vectors from the eye, (3, F).
        position: of the four lights, (3, F, 4).
        facing: likewise.
    """

    point: Tensor
    normal: Tensor
    ray: Tensor
    position: Tensor
    facing: Tensor

    def light(self, light: int) -> tuple[Tensor, Tensor, Tensor]:
        """Irradiance (F,), direction (3, F) and widening of highlights (F,) of one lamp."""
        return arriving(light, self.point, self.position[..., light], self.facing[..., light])

    def mirrored(self) -> Tensor:
        """Direction in which the eye sees mirror images, (3, F)."""
        return self.ray - 2 * dot(self.ray, self.normal) * self.normal


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


def shade_rubber(surface: Surface, albedo: Tensor, visible: Tensor) -> Tensor:
    """Radiance of rubber, nearly matt, (3, F).

    Args:
        surface: F points.
        albedo: (3, F).
        visible: share of each lamp that a point sees, (4, F).
    """
    total = torch.zeros_like(albedo)
    for light, color in enumerate(COLORS):
        strength, towards, _ = surface.light(light)
        arrived = strength * dot(towards, surface.normal).clamp_min(0) * visible[light]
        total += arrived * albedo.new_tensor(color)[:, None]
    return albedo * (0.93 / math.pi * total + 0.102 * (1 - surface.normal[2])) + 0.0036


def shade_metal(surface: Surface, albedo: Tensor, visible: Tensor, mirror: Tensor) -> Tensor:
    """Radiance of metal, (3, F): a blurred and a sharp mirror image and highlights of the lamps.

    Args:
        surface: F points.
        albedo: (3, F).
        visible: share of each lamp that a point sees, (4, F).
        mirror: what is mirrored but the lamps, (3, F) or grey (1, F).
    """
    facing_camera = -dot(surface.ray, surface.normal).clamp(-1.0, -1e-3)
    total = _MIRROR * mirror.expand_as(albedo)
    for light, color in enumerate(COLORS):
        strength, towards, wide = surface.light(light)
        facing_light = dot(towards, surface.normal).clamp_min(0)
        half = dot(unit(towards - surface.ray), surface.normal)
        shine = 0.4 * _shine(half, facing_light, facing_camera, 0.2 + wide)
        shine += 0.6 * _shine(half, facing_light, facing_camera, 0.01 + wide)
        arrived = strength * visible[light] * shine * (facing_light > 0)
        total += arrived * albedo.new_tensor(color)[:, None]
    return albedo * total


def _shine(half: Tensor, facing_light: Tensor, facing_camera: Tensor, rough: Tensor) -> Tensor:
    """GGX reflection times the cosine to the light: D G / (4 cosine to the camera)."""
    square = rough**2
    peak = square / (math.pi * (half**2 * (square - 1) + 1) ** 2)
    hidden = _smith(facing_light, square) * _smith(facing_camera, square)
    return peak * hidden / (4 * facing_camera)


def _smith(cosine: Tensor, square: Tensor) -> Tensor:
    return 2 * cosine / (cosine + (square + (1 - square) * cosine**2).sqrt())


def surroundings(direction: Tensor, ground: Tensor | float = 0.2) -> Tensor:
    """Mirror image of ground, wall and black sky, (3, F) or, of grey ground, (1, F).

    Args:
        direction: unit vectors from the surface, (3, F).
        ground: radiance of the ground in that direction.
    """
    blurred, sharp = (_scenery(direction, ground, blur) for blur in (0.12, 0.01))
    return 0.4 * blurred + 0.6 * sharp


def _scenery(direction: Tensor, ground: Tensor | float, blur: float) -> Tensor:
    below = torch.sigmoid((-direction[2:] - 0.04) / blur)
    flat = (direction[0] ** 2 + direction[1] ** 2).sqrt().clamp_min(1e-6)
    towards_wall = (_UPHILL[0] * direction[0] + _UPHILL[1] * direction[1]) / flat
    wall = (0.14 - 0.08 * direction[2]).clamp(0.07, 0.14)
    wall = wall * torch.sigmoid((towards_wall - math.cos(math.radians(57))) / blur)
    wall = wall * torch.sigmoid((0.78 - direction[2]) / blur)
    return ground * below + (1 - below) * wall


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light as 8-bit sRGB, without tone curve."""
    clipped = linear.clamp(0.0, 1.0)
    encoded = torch.where(
        clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped.clamp_min(1e-4) ** (1 / 2.4) - 0.055
    )
    return (encoded * 255).round().to(torch.uint8)
