"""Pictures of CLEVR scenes by ray casting, on any device (after the CLEVR generator's look).

Geometry, camera, lights and materials follow the generator; light that bounces more than once is
approximated. The ground is shaded once per pixel, objects at every sample within it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from setexp.datasets.clevr.bodies import Bodies, gather_bodies
from setexp.datasets.clevr.camera import ASPECT, Frame, exact_products
from setexp.datasets.clevr.lamps import Lamps, gather_lamps
from setexp.datasets.clevr.raster import Hits, first_hits, scenes_at_once
from setexp.datasets.clevr.reflections import mirror_image
from setexp.datasets.clevr.scenes import Scenes
from setexp.datasets.clevr.shading import Surface, shade_ground, shade_metal, shade_rubber, to_srgb
from setexp.datasets.clevr.shadows import on_ground, on_objects


@exact_products()
def render(
    scenes: Scenes,
    *,
    height: int,
    width: int,
    supersample: int = 2,
    aspect: float = ASPECT,
) -> Tensor:
    """Draw scenes.

    Args:
        scenes: S of them; the result is on their device.
        height: rows that sample the official 480x320 frame, whatever the ratio to `width`.
        width: columns.
        supersample: samples along each side of a pixel.
        aspect: width over height of the frame; 4/3 shows what a render at 320x240 does.

    Returns:
        uint8 (S, 3, height, width).
    """
    chunk = scenes_at_once(scenes.camera.device, height * width * supersample**2)
    parts = [
        _draw(scenes.rows(slice(start, start + chunk)), height, width, supersample, aspect)
        for start in range(0, len(scenes.count), chunk)
    ]
    if not parts:
        return torch.zeros(0, 3, height, width, dtype=torch.uint8, device=scenes.camera.device)
    return torch.cat(parts)


def _draw(scenes: Scenes, height: int, width: int, supersample: int, aspect: float) -> Tensor:
    """Pictures of scenes that fit into memory together."""
    bodies, lamps = gather_bodies(scenes), gather_lamps(scenes.lights)
    frame = Frame(scenes.camera, height, width, aspect)
    ground = _draw_ground(bodies, lamps, frame)
    fine = Frame(scenes.camera, height * supersample, width * supersample, aspect)
    hits = first_hits(bodies, fine)
    layers = ground.new_zeros(4, len(scenes.count) * fine.height * fine.width)
    layers[3, hits.pixel] = 1.0
    metal = bodies.metal.index_select(0, hits.body)
    matt, shiny = hits.take(~metal), hits.take(metal)
    layers[:3, matt.pixel] = _draw_rubber(bodies, lamps, matt)
    layers[:3, shiny.pixel] = _draw_metal(bodies, lamps, shiny, frame, ground)
    split = (4, len(scenes.count), height, supersample, width, supersample)
    layers = layers.view(split).sum(dim=(3, 5)) / supersample**2
    behind = ground.view(3, len(scenes.count), height, width)
    return to_srgb(layers[:3] + (1 - layers[3]) * behind).transpose(0, 1).contiguous()


def _draw_ground(bodies: Bodies, lamps: Lamps, frame: Frame) -> Tensor:
    """Radiance of the scenes without their objects, but with their shadows, (3, S * H * W)."""
    count = len(frame.position)
    device = frame.position.device
    pixel = torch.arange(count * frame.height * frame.width, device=device)
    column = pixel % frame.width
    row = torch.div(pixel, frame.width, rounding_mode="floor") % frame.height
    scene = torch.div(pixel, frame.height * frame.width, rounding_mode="floor")
    ray = frame.rays(scene, row, column)
    depth = -frame.position[:, 2].index_select(0, scene) / ray[2].clamp_max(-0.05)
    points = frame.position.T.index_select(1, scene) + depth * ray
    visible = on_ground(bodies, lamps, frame, points)
    split = (-1, count, frame.height * frame.width)
    return shade_ground(points.view(split), lamps, visible.view(split)).flatten(1)


def _draw_rubber(bodies: Bodies, lamps: Lamps, hits: Hits) -> Tensor:
    """Radiance of rubber at pixels that show some, (3, F)."""
    visible = on_objects(bodies, lamps, hits.body, hits.point)
    albedo = bodies.albedo.index_select(1, hits.body)
    return shade_rubber(_surface(bodies, lamps, hits), albedo, visible)


def _draw_metal(bodies: Bodies, lamps: Lamps, hits: Hits, frame: Frame, ground: Tensor) -> Tensor:
    """Radiance of metal at pixels that show some, (3, F)."""
    visible = on_objects(bodies, lamps, hits.body, hits.point)
    surface = _surface(bodies, lamps, hits)
    mirror = mirror_image(bodies, hits.body, surface, frame, ground)
    return shade_metal(surface, bodies.albedo.index_select(1, hits.body), visible, mirror)


def _surface(bodies: Bodies, lamps: Lamps, hits: Hits) -> Surface:
    """Points with the lamps of their scenes."""
    scene = bodies.scene.index_select(0, hits.body)
    local = (field.index_select(1, scene) for field in (lamps.position, lamps.facing))
    return Surface(hits.point, hits.normal, hits.ray, *local)
