"""What metal mirrors: other objects, and the ground with its shadows as the picture shows it."""

from __future__ import annotations

import torch
from torch import Tensor

from setexp.datasets.clevr.bodies import Bodies
from setexp.datasets.clevr.camera import Frame
from setexp.datasets.clevr.raster import spread
from setexp.datasets.clevr.shading import Surface, shade_metal, shade_rubber, surroundings
from setexp.datasets.clevr.solids import crossing, from_core, unit


def mirror_image(
    bodies: Bodies, body: Tensor, surface: Surface, frame: Frame, ground: Tensor
) -> Tensor:
    """Radiance that arrives from the mirror direction, lamps apart, (3, F).

    Args:
        bodies: K objects.
        body: whose surface each point is on, ascending, (F,).
        surface: F points.
        frame: of `ground`.
        ground: radiance of the ground at every pixel, (3, S * P).
    """
    direction = surface.mirrored()
    scene = bodies.scene.index_select(0, body)
    below = _ground_in(surface.point, direction, scene, frame, ground)
    image = surroundings(direction, below)
    seen, other, point, normal = _other_bodies(bodies, body, surface.point, direction)
    there = Surface(
        point,
        normal,
        direction.index_select(1, seen),
        surface.position.index_select(1, seen),
        surface.facing.index_select(1, seen),
    )
    image[:, seen] = _plain_look(bodies.take(other), there)
    return image


def _ground_in(
    point: Tensor, direction: Tensor, scene: Tensor, frame: Frame, ground: Tensor
) -> Tensor:
    """Radiance of the ground in a direction; beyond the picture, that at its border."""
    reach = point[2] / -direction[2].clamp_max(-0.02)
    u, v, depth = frame.see((point + reach * direction)[..., None], scene)[..., 0]
    # What lies behind the camera continues the picture's lower border.
    behind = depth < 0.1
    column = u.masked_fill(behind, frame.width / 2).clamp(0, frame.width - 1).long()
    row = v.masked_fill(behind, frame.height).clamp(0, frame.height - 1).long()
    return ground.index_select(1, (scene * frame.height + row) * frame.width + column)


def _plain_look(bodies: Bodies, surface: Surface) -> Tensor:
    """Radiance of mirrored objects (F,), without shadows and further mirror images."""
    visible = surface.point.new_ones(4, 1)
    rubber = shade_rubber(surface, bodies.albedo, visible)
    metal = shade_metal(surface, bodies.albedo, visible, surroundings(surface.mirrored()))
    return torch.where(bodies.metal, metal, rubber)


def _other_bodies(
    bodies: Bodies, body: Tensor, point: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First other object along rays from F points on objects.

    Returns:
        for the G rays that meet one: index of the ray and of the body, (G,) each; point and normal
        in world units, (3, G) each.
    """
    per_body = torch.bincount(body, minlength=len(bodies.scene))
    first = per_body.cumsum(0) - per_body
    looking, mirrored = bodies.neighbours()
    nearest = point.new_full((point.shape[1],), torch.inf)
    found = []
    for shape, span in bodies.spans():
        kept = ((mirrored >= span.start) & (mirrored < span.stop)).nonzero()[:, 0]
        pair, number = spread(per_body[looking[kept]])
        ray = first[looking[kept]].index_select(0, pair) + number
        some = bodies.take(mirrored[kept].index_select(0, pair))
        origin = some.to_frame(point.index_select(1, ray) - some.centre)
        way = some.to_frame(direction.index_select(1, ray))
        enter, leave = crossing(shape, origin, way)
        hit = ((enter < leave) & (enter > 0)).nonzero()[:, 0]
        ray, enter = ray.index_select(0, hit), enter.index_select(0, hit)
        place = origin.index_select(1, hit) + enter * way.index_select(1, hit)
        normal = some.take(hit).to_world(unit(from_core(shape, place)))
        nearest.scatter_reduce_(0, ray, enter, "amin")
        other = mirrored[kept].index_select(0, pair.index_select(0, hit))
        found.append((ray, other, enter, normal))
    ray, other, enter, normal = (torch.cat(part, -1) for part in zip(*found, strict=True))
    hit = (nearest.index_select(0, ray) == enter).nonzero()[:, 0]
    ray, enter = ray.index_select(0, hit), enter.index_select(0, hit)
    place = point.index_select(1, ray) + enter * direction.index_select(1, ray)
    return ray, other.index_select(0, hit), place, normal.index_select(1, hit)
