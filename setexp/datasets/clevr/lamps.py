"""CLEVR's four lights: positions, jitter and what they send to a point (CLEVR generator).

The sun is a lamp so far away that its light is parallel; all four are square, face the origin and
are invisible to the camera.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr.solids import dot

# Key, fill and back lamp; each axis is jittered by up to LAMP_JITTER once per scene.
LAMP_POSITIONS = (
    (6.4467, -2.9052, 4.2584),
    (-4.6711, -4.0136, 3.0112),
    (-1.1685, 2.6460, 5.8157),
)
LAMP_JITTER = 1.0
_POWERS = (100.0, 30.0, 50.0)
_SIDES = (0.5, 0.5, 1.0)
COLORS = ((1.0, 0.932, 0.817), (0.762, 0.818, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
_SUN_DIRECTION = (0.4145, -0.1946, 0.8890)
_SUN_IRRADIANCE = 0.45
_SUN_ANGLE = math.radians(11.4)
_FAR = 1000.0
# Highlights widen with a light's angular size; the sun's share is measured, not from its disc.
_SPREAD_OF_LAMPS, _SPREAD_OF_SUN = 0.15, 0.03


class Lamps(NamedTuple):
    """The lights key, fill, back and sun of S scenes, vectors first.

    Args:
        position: world units, (3, S, 4).
        facing: unit vectors from the origin to the lights, (3, S, 4).
        across: half of one side of the square, (3, S, 4).
        along: half of the other side, (3, S, 4).
    """

    position: Tensor
    facing: Tensor
    across: Tensor
    along: Tensor


def gather_lamps(positions: Tensor) -> Lamps:
    """The four lights from the positions (S, 3, 3) of three."""
    sun = _FAR * positions.new_tensor(_SUN_DIRECTION)
    # A square of the disc's area.
    sun_side = _FAR * math.sqrt(math.pi) * math.tan(_SUN_ANGLE / 2)
    position = torch.cat([positions, sun.expand(len(positions), 1, 3)], dim=1).permute(2, 0, 1)
    facing = position / position.norm(dim=0)
    side = positions.new_tensor([*_SIDES, sun_side])
    across = torch.stack([-facing[1], facing[0], torch.zeros_like(facing[0])])
    across = across / across.norm(dim=0)
    along = torch.linalg.cross(facing, across, dim=0)
    return Lamps(position, facing, across * side / 2, along * side / 2)


def arriving(
    light: int, points: Tensor, position: Tensor, facing: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Light of one lamp at points that face it, without its colour.

    Args:
        light: 0..3.
        points: (3, ...) in world units.
        position: of the lamp, broadcasting with `points`.
        facing: likewise.

    Returns:
        irradiance (...), unit vectors to the lamp (3, ...), widening of highlights (...).
    """
    towards = position - points
    distance = dot(towards, towards).sqrt()
    towards = towards / distance
    if light == len(_POWERS):
        irradiance = torch.full_like(distance, _SUN_IRRADIANCE)
        return irradiance, towards, torch.full_like(distance, _SPREAD_OF_SUN)
    strength = 0.25 * _POWERS[light] * dot(towards, facing).clamp_min(0) / distance**2
    return strength, towards, _SPREAD_OF_LAMPS * _SIDES[light] / distance
