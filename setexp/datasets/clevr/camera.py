"""CLEVR's camera: a perspective view of the origin without roll (CLEVR generator, base scene)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

POSITION = (7.48113, -6.50764, 5.34367)
# Largest shift of the camera per axis, drawn once per scene.
JITTER = 0.5
# Focal length (35 mm) over the sensor's width (32 mm), that is, in widths of the picture.
FOCAL = 35 / 32
# Width over height of an official picture, 480x320.
ASPECT = 1.5


def axes(position: Tensor) -> Tensor:
    """Unit vectors right, up and backwards of cameras that look at the origin.

    Args:
        position: (..., 3) in world units.

    Returns:
        (..., 3, 3), one vector per row.
    """
    back = position / position.norm(dim=-1, keepdim=True)
    right = torch.stack([-back[..., 1], back[..., 0], torch.zeros_like(back[..., 0])], dim=-1)
    right = right / right.norm(dim=-1, keepdim=True)
    return torch.stack([right, torch.linalg.cross(back, right), back], dim=-2)


def project(
    points: Tensor, position: Tensor, *, height: int, width: int, aspect: float | None = None
) -> Tensor:
    """Where points appear: u to the right and v down from the top left corner, and the depth.

    Args:
        points: (..., N, 3) in world units.
        position: of the cameras, (..., 3).
        height: rows of the picture.
        width: columns of the picture.
        aspect: width over height of the frame that the picture samples; None = square pixels.

    Returns:
        (..., N, 3): u and v in (continuous) pixels, depth along the optical axis in world units.
    """
    aspect = aspect or width / height
    seen = (points - position[..., None, :]) @ axes(position).transpose(-1, -2)
    depth = -seen[..., 2]
    u = width / 2 + FOCAL * width * seen[..., 0] / depth
    v = height / 2 - FOCAL * aspect * height * seen[..., 1] / depth
    return torch.stack([u, v, depth], dim=-1)


@contextmanager
def exact_products() -> Iterator[None]:
    """Products in float32 on a GPU, whatever a run allows itself: others see its scenes, too."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


class Frame(NamedTuple):
    """The cameras and the pixels of S pictures.

    Args:
        position: of the cameras, (S, 3).
        height: rows.
        width: columns.
        aspect: width over height of the frame that the pixels sample.
    """

    position: Tensor
    height: int
    width: int
    aspect: float

    def film(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel centres on the plane at depth 1: x, y of rays x right + y up - back."""
        x = (columns + 0.5 - self.width / 2) / (FOCAL * self.width)
        y = (self.height / 2 - rows - 0.5) / (FOCAL * self.aspect * self.height)
        return x, y

    def rays(self, scene: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Rays through F pixels, with length 1 along the optical axis, (3, F)."""
        x, y = self.film(rows, columns)
        frames = axes(self.position).permute(1, 2, 0).flatten(0, 1).index_select(1, scene)
        return x * frames[:3] + y * frames[3:6] - frames[6:]

    def see(self, points: Tensor, scene: Tensor) -> Tensor:
        """`project` with components first: points (3, K, P) of scenes (K,) as u, v, depth."""
        seen = project(
            points.permute(1, 2, 0),
            self.position.index_select(0, scene),
            height=self.height,
            width=self.width,
            aspect=self.aspect,
        )
        return seen.permute(2, 0, 1)


def directions(position: Tensor) -> dict[str, Tensor]:
    """The scene file's six directions from cameras (..., 3), each (..., 3); four are horizontal."""
    back = torch.cat([position[..., :2], torch.zeros_like(position[..., 2:])], dim=-1)
    behind = -back / back.norm(dim=-1, keepdim=True)
    right = torch.stack([behind[..., 1], -behind[..., 0], behind[..., 2]], dim=-1)
    above = torch.zeros_like(behind)
    above[..., 2] = 1.0
    return {
        "left": -right,
        "right": right,
        "front": -behind,
        "behind": behind,
        "above": above,
        "below": -above,
    }


def yaw(rotation: Tensor) -> Tensor:
    """Actual turn in radians: the generator stores 0..360 but applies the number as radians."""
    return rotation.remainder(2 * math.pi)
