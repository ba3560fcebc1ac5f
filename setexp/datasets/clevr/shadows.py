"""How much of each lamp points can see: a lattice of rays to the lamp against nearby objects.

Only pairs that may matter are followed: on the ground, pixels around an object's shadow; on an
object, the lamps that another object may cover. Where several objects cover the same lamp, the
one that covers most of it counts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr.bodies import Bodies
from setexp.datasets.clevr.camera import Frame
from setexp.datasets.clevr.lamps import Lamps
from setexp.datasets.clevr.raster import pixels_around, spread
from setexp.datasets.clevr.solids import CUBE, PLAIN_CUBE, crossing, dot, unit

# Radius of a sphere around each solid, in half heights.
_BOUNDS = (1.0, 1.6, 1.42)
LIGHTS = 4
# Rays that start in an object or right under it do not count: that ground is seen only where a
# part of a pixel is not covered but its centre is, and would draw a black line there.
_CLEAR = 1e-6
# Lattice points along each side of a lamp: more for the ground, which is shaded once a pixel, than
# for objects, which are shaded at every sample within it.
_ON_GROUND, _ON_OBJECTS = 3, 2


class _Casters(NamedTuple):
    """P pairs of one shape's body and a lamp; lamps are in the body's frame.

    Args:
        light: 0..3, (P,).
        bodies: (P,).
        lamp: position, across and along stacked, (9, P).
    """

    light: Tensor
    bodies: Bodies
    lamp: Tensor


def _pair(bodies: Bodies, light: Tensor, lamps: Lamps) -> _Casters:
    """Casters from bodies (P,) and the lamps (P,) that they cover."""
    place = bodies.scene * LIGHTS + light
    position, _, across, along = (field.flatten(1).index_select(1, place) for field in lamps)
    frames = [bodies.to_frame(v) for v in (position - bodies.centre, across, along)]
    return _Casters(light, bodies, torch.cat(frames))


def _covered(shape: int, casters: _Casters, pair: Tensor, points: Tensor, samples: int) -> Tensor:
    """Share of a lamp's lattice that a body hides from points, (F,).

    Args:
        shape: of all bodies.
        casters: P pairs.
        pair: which pair each point belongs to, (F,).
        points: (3, F) in world units.
        samples: lattice points along each side of the lamp.
    """
    some = casters.bodies.take(pair)
    origin = some.to_frame(points - some.centre)
    lamp = casters.lamp.index_select(1, pair)
    towards, across, along = lamp[:3] - origin, lamp[3:6], lamp[6:]
    if shape == CUBE:
        origin = origin / PLAIN_CUBE
        towards, across, along = (v / PLAIN_CUBE for v in (towards, across, along))
    # The ground touches the plain solid, though the smaller plain cube would float above it.
    origin[2].clamp_min_(-1.0)
    hidden = torch.zeros_like(origin[0])
    for i in range(samples):
        row = towards + ((2 * i + 1) / samples - 1) * across
        for j in range(samples):
            enter, leave = crossing(shape, origin, row + ((2 * j + 1) / samples - 1) * along)
            hidden += (enter < leave) & (enter > _CLEAR)
    return hidden / samples**2


def on_ground(bodies: Bodies, lamps: Lamps, frame: Frame, ground: Tensor) -> Tensor:
    """Visible share of each lamp from the ground at every pixel.

    Args:
        bodies: K objects of S scenes.
        lamps: of the scenes.
        frame: P pixels a picture.
        ground: points in world units, (3, S * P).

    Returns:
        (4, S * P).
    """
    pixels = frame.height * frame.width
    visible = ground.new_ones(LIGHTS, ground.shape[1])
    for shape, span in bodies.spans():
        light = torch.arange(LIGHTS, device=ground.device).repeat(span.stop - span.start)
        index = torch.arange(span.start, span.stop, device=ground.device)
        casters = _pair(bodies.take(index.repeat_interleave(LIGHTS)), light, lamps)
        uv = _outline(casters, lamps, frame)
        pair, rows, columns = pixels_around(uv, frame)
        place = casters.bodies.scene.index_select(0, pair) * pixels + rows * frame.width + columns
        points = ground.index_select(1, place)
        share = 1 - _covered(shape, casters, pair, points, _ON_GROUND)
        place = place + casters.light.index_select(0, pair) * ground.shape[1]
        visible.view(-1).scatter_reduce_(0, place, share, "amin")
    return visible


def _outline(casters: _Casters, lamps: Lamps, frame: Frame) -> Tensor:
    """Pixel coordinates of points around each caster's shadow on the flat ground, (2, P, 32)."""
    place = casters.bodies.scene * LIGHTS + casters.light
    position, _, across, along = (field.flatten(1).index_select(1, place) for field in lamps)
    sign = position.new_tensor([-1.0, 1.0])
    u, v = torch.cartesian_prod(sign, sign).T
    source = (position[..., None] + across[..., None] * u + along[..., None] * v)[:, :, None]
    body = casters.bodies.corners()[..., None]
    reach = source[2] / (source[2] - body[2])
    fallen = (source + (body - source) * reach).flatten(2)
    seen = frame.see(fallen, casters.bodies.scene)
    # A shadow that reaches behind the camera may be anywhere in the picture.
    behind = (seen[2] < 0.1).any(-1)[:, None]
    size = seen.new_tensor([frame.width, frame.height])[:, None, None]
    whole = size * sign.repeat(fallen.shape[-1] // 2).clamp_min(0)
    return torch.where(behind, whole, seen[:2])


def on_objects(bodies: Bodies, lamps: Lamps, body: Tensor, points: Tensor) -> Tensor:
    """Visible share of each lamp from points on objects, (4, F); their own shape is left out.

    Args:
        bodies: K objects.
        lamps: of their scenes.
        body: whose surface each point is on, ascending, (F,).
        points: in world units, (3, F).
    """
    visible = points.new_ones(LIGHTS, points.shape[1])
    per_body = torch.bincount(body, minlength=len(bodies.scene))
    first = per_body.cumsum(0) - per_body
    shadowed, shadowing, light = _near_pairs(bodies, lamps)
    for shape, span in bodies.spans():
        kept = ((shadowing >= span.start) & (shadowing < span.stop)).nonzero()[:, 0]
        receiver, lamp = shadowed[kept], light[kept]
        casters = _pair(bodies.take(shadowing[kept]), lamp, lamps)
        pair, number = spread(per_body[receiver])
        point = first[receiver].index_select(0, pair) + number
        share = 1 - _covered(shape, casters, pair, points.index_select(1, point), _ON_OBJECTS)
        place = point + lamp.index_select(0, pair) * points.shape[1]
        visible.view(-1).scatter_reduce_(0, place, share, "amin")
    return visible


def _near_pairs(bodies: Bodies, lamps: Lamps) -> tuple[Tensor, Tensor, Tensor]:
    """Bodies, others that may cover a lamp for them, and the lamp: P triples of indices."""
    shadowed, shadowing = bodies.neighbours()
    bounds = bodies.radius.new_tensor(_BOUNDS)
    size = bounds.repeat_interleave(bodies.groups) * bodies.radius
    reach = (size[shadowed] + size[shadowing])[:, None]
    centre = bodies.centre.index_select(1, shadowed)
    lamp = unit(lamps.position[:, bodies.scene[shadowed]] - centre[..., None])
    offset = bodies.centre.index_select(1, shadowing) - centre
    along = dot(lamp, offset[..., None])
    off = dot(offset, offset)[:, None] - along**2
    pair, light = ((along > -reach) & (off < (reach + 0.1) ** 2)).nonzero(as_tuple=True)
    return shadowed[pair], shadowing[pair], light
