"""What all checks share: lines of the table, and scenes drawn at the references' size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.bodies import gather_bodies
from setexp.datasets.clevr.camera import Frame
from setexp.datasets.clevr.lamps import LAMP_POSITIONS
from setexp.datasets.clevr.raster import first_hits
from setexp.datasets.clevr.render import render
from setexp.datasets.clevr.scenes import Scenes

HEIGHT, WIDTH = 240, 320


class Row(NamedTuple):
    """One line of the table."""

    check: str
    value: str
    threshold: str
    passed: bool


class Drawn(NamedTuple):
    """Scenes with their pictures (S, H, W, 3) and the slot seen at each pixel, -1 = ground."""

    scenes: Scenes
    images: Tensor
    slots: Tensor


def draw(scenes: Scenes, zoom: int = 1) -> Drawn:
    """Pictures and id maps of scenes at the references' size, or `zoom` times as large."""
    height, width = zoom * HEIGHT, zoom * WIDTH
    images = render(scenes, height=height, width=width, aspect=WIDTH / HEIGHT)
    slots = torch.full((len(scenes.count), height, width), -1)
    for start in range(0, len(slots), 20):
        some = scenes.rows(slice(start, start + 20))
        bodies = gather_bodies(some)
        hits = first_hits(bodies, Frame(some.camera, height, width, WIDTH / HEIGHT))
        slots[start : start + 20].view(-1)[hits.pixel] = bodies.slot[hits.body]
    return Drawn(scenes, images.permute(0, 2, 3, 1).float(), slots)


def lone(shape: str | None = None, color: str = "gray", material: str = "rubber") -> Scenes:
    """The scene without jitter, empty or with a large object at the origin."""

    def one(value: int) -> Tensor:
        return torch.tensor([[value]])

    return Scenes(
        count=torch.tensor([int(shape is not None)]),
        coords=torch.tensor([[[0.0, 0.0, words.RADII[0]]]]),
        shape=one(words.SHAPES.index(shape or "sphere")),
        color=one(words.COLORS.index(color)),
        material=one(words.MATERIALS.index(material)),
        size=one(0),
        rotation=torch.tensor([[0.0]]),
        camera=torch.tensor([view.POSITION]),
        lights=torch.tensor([LAMP_POSITIONS]),
    )


def apart(scenes: Scenes) -> Scenes:
    """Every object in a scene of its own."""
    scene, slot = scenes.present.nonzero(as_tuple=True)
    fields = {
        name: getattr(scenes, name)[scene, slot][:, None]
        for name in ("coords", "shape", "color", "material", "size", "rotation")
    }
    return Scenes(
        count=torch.ones_like(scene),
        camera=scenes.camera[scene],
        lights=scenes.lights[scene],
        **fields,
    )


def luma(rgb: Tensor) -> Tensor:
    """Brightness of colours (..., 3)."""
    return rgb @ torch.tensor([0.2126, 0.7152, 0.0722])


def fit_camera(coords: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera position that explains (u, v, depth) of points best, and the residuals in pixels."""
    from scipy.optimize import least_squares

    def misfit(position: np.ndarray) -> np.ndarray:
        seen = view.project(
            torch.from_numpy(coords), torch.from_numpy(position), height=HEIGHT, width=WIDTH
        ).numpy()
        return (seen - pixels) * [1.0, 1.0, 1e5]

    found = least_squares(lambda position: misfit(position).ravel(), view.POSITION, xtol=1e-12)
    return found.x, misfit(found.x)[:, :2]
