"""Which object a picture shows where: rays through the pixels around each object, nearest hit.

Only pixels within an object's projected box are looked at, as one flat list over all objects of
all scenes, so work and memory follow what is visible and not scenes x objects x pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr.bodies import Bodies, gather_bodies
from setexp.datasets.clevr.camera import Frame, axes
from setexp.datasets.clevr.solids import first_hit, from_core, unit

if TYPE_CHECKING:
    from setexp.datasets.clevr.scenes import Scenes

# Rays followed at once. More do not help a CPU, whose caches they leave; a GPU needs many.
_RAYS = {"cpu": 600_000, "cuda": 20_000_000}


class Hits(NamedTuple):
    """F pixels that show an object.

    Args:
        body: index of the body, ascending, int64 (F,).
        pixel: index into the flat (S, height, width), int64 (F,).
        point: in world units, (3, F).
        normal: unit length, outwards, (3, F).
        ray: from the camera, unit length, (3, F).
    """

    body: Tensor
    pixel: Tensor
    point: Tensor
    normal: Tensor
    ray: Tensor

    def take(self, mask: Tensor) -> Hits:
        """Some of the pixels, in order."""
        index = mask.nonzero()[:, 0]
        return Hits(*(field.index_select(-1, index) for field in self))


def spread(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the owner, and number within it, of the sizes.sum() members of some groups."""
    owner = torch.repeat_interleave(sizes)
    start = (sizes.cumsum(0) - sizes).index_select(0, owner)
    return owner, torch.arange(len(owner), device=sizes.device) - start


def pixels_around(uv: Tensor, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels whose centres lie in the upright boxes around some points.

    Args:
        uv: continuous pixel coordinates of P points for each of K boxes, (2, K, P).
        frame: gives the picture's size; boxes are cut to it.

    Returns:
        index of the box, row and column of each pixel, (F,) each.
    """
    limit = uv.new_tensor([[frame.width], [frame.height]])
    low = (uv.amin(-1) - 0.5).ceil().clamp_min(0).minimum(limit).long()
    high = (uv.amax(-1) - 0.5).floor().minimum(limit - 1.0).clamp_min(-1).long()
    columns, rows = (high - low + 1).clamp_min(0)
    box, number = spread(columns * rows)
    across, left, top = torch.stack([columns, *low]).index_select(1, box)
    row = torch.div(number, across, rounding_mode="floor")
    return box, top + row, left + number - row * across


def first_hits(bodies: Bodies, frame: Frame) -> Hits:
    """The nearest surface at every pixel that shows one."""
    scene, rows, columns, body, normal, depth = _all_hits(bodies, frame)
    pixel = (scene * frame.height + rows) * frame.width + columns
    nearest = depth.new_full((len(frame.position) * frame.height * frame.width,), torch.inf)
    nearest = nearest.scatter_reduce(0, pixel, depth, "amin")
    seen = (nearest.index_select(0, pixel) == depth).nonzero()[:, 0]
    scene, rows, columns, body, depth, pixel = (
        field.index_select(0, seen) for field in (scene, rows, columns, body, depth, pixel)
    )
    ray = frame.rays(scene, rows, columns)
    point = frame.position.T.index_select(1, scene) + depth * ray
    normal = bodies.take(body).to_world(normal.index_select(1, seen))
    return Hits(body, pixel, point, normal, unit(ray))


def _all_hits(bodies: Bodies, frame: Frame) -> tuple[Tensor, ...]:
    """Scene, row, column, body, normal (its frame) and depth of every object's every pixel."""
    found = []
    for shape, span in bodies.spans():
        some = bodies.take(span)
        uv = frame.see(some.corners(), some.scene)[:2]
        member, rows, columns = pixels_around(uv, frame)
        position = frame.position.index_select(0, some.scene)
        turned = some.to_frame(axes(position).permute(2, 0, 1))
        origin = some.to_frame(position.T - some.centre)
        # Right, up and back in the body's frame, and the camera's place in it.
        frames = torch.cat([turned.permute(2, 0, 1).flatten(0, 1), origin])
        frames = frames.index_select(1, member)
        x, y = frame.film(rows, columns)
        direction = x * frames[:3] + y * frames[3:6] - frames[6:9]
        depth = first_hit(shape, frames[9:], direction)
        kept = depth.isfinite().nonzero()[:, 0]
        member, rows, columns, depth = (
            field.index_select(0, kept) for field in (member, rows, columns, depth)
        )
        point = frames[9:].index_select(1, kept) + depth * direction.index_select(1, kept)
        normal = unit(from_core(shape, point))
        scene = some.scene.index_select(0, member)
        found.append((scene, rows, columns, member + span.start, normal, depth))
    return tuple(torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))


def scenes_at_once(device: torch.device, samples: int) -> int:
    """How many pictures of so many samples to work on together, at least 1."""
    return max(1, _RAYS.get(device.type, _RAYS["cuda"]) // samples)


def visible_pixels(scenes: Scenes, *, height: int, width: int) -> Tensor:
    """Pixels that show each object in a picture without antialiasing, int64 (S, N)."""
    chunk = scenes_at_once(scenes.camera.device, height * width)
    counts = torch.zeros_like(scenes.shape)
    for start in range(0, len(counts), chunk):
        some = scenes.rows(slice(start, start + chunk))
        bodies = gather_bodies(some)
        hits = first_hits(bodies, Frame(some.camera, height, width, width / height))
        seen = torch.bincount(hits.body, minlength=len(bodies.scene))
        counts[start : start + chunk][bodies.scene, bodies.slot] = seen
    return counts
