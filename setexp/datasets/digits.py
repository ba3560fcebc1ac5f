"""Procedural handwritten digits: the stand-in for MNIST where its files are missing.

Every class is a handful of strokes through control points. A digit is one of its class's shapes
with jittered control points, drawn at a random slant, rotation, aspect and stroke width, then
framed as MNIST frames its digits: ink in a box of 20 pixels, its centre of mass in the middle of
28 x 28. The constants below were fitted to the statistics of MNIST's training images (number of
bright pixels by class, width of the ink's box, share of grey pixels).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

SIDE = 28
MIN_POINTS, MAX_POINTS = 32, 342
"""The fewest and the most bright pixels of an MNIST image, enforced here as well."""

_BRIGHT = 33.5 / 255  # a pixel is bright when its stored value is at least 34, that is > 0.1307
_BOX = 20.0  # pixels, the larger side of the ink's box
_EDGE = 1.05  # pixels from full ink to none
_REACH_MEDIAN, _REACH_LOG_STD = 1.63, 0.24  # pixels are bright up to this far from a stroke
_SLANT_MEAN, _SLANT_STD = 0.2, 0.2  # horizontal shift per unit of height
_ROTATION_STD = 0.08  # radians
_ASPECT_STD = 0.17  # of the logarithm of width over height
_JITTER_STD = 3.0  # of control points, in hundredths of the height
_SHIFT = 0.5  # pixels off the centre of mass, at most
_STEPS = 2  # straight segments between two neighbouring control points
_CHUNK = 32  # digits drawn at a time: as many as keep the distances in a CPU's cache

Stroke = tuple[tuple[int, int], ...]

# Shapes of each class, (x, y) in hundredths with y down. Strokes are smooth; they meet in corners
# where they name the same point.
# fmt: off
_ZERO = (((52, 0), (20, 16), (6, 50), (18, 86), (48, 100), (80, 84), (94, 48), (80, 14), (52, 0)),)
_ONE = (((50, 0), (49, 50), (48, 100)),)
_ONE_FLAG = (((30, 22), (54, 0)), ((54, 0), (52, 50), (50, 100)))
_TWO = (((14, 24), (38, 2), (70, 8), (74, 34), (46, 68), (10, 96)), ((10, 96), (50, 94), (92, 96)))
_TWO_LOOP = (
    ((16, 20), (42, 0), (70, 14), (66, 46), (40, 80),
     (16, 96), (8, 84), (28, 78), (60, 94), (94, 92)),
)
_THREE = (
    ((16, 10), (48, 0), (76, 16), (68, 38), (40, 46)),
    ((40, 46), (74, 56), (82, 78), (58, 98), (28, 100), (8, 90)),
)
_FOUR_OPEN = (((22, 2), (14, 34), (22, 56), (50, 56), (82, 48)), ((80, 0), (72, 48), (64, 100)))
_FOUR = (((68, 0), (38, 32), (8, 64)), ((8, 64), (90, 62)), ((68, 0), (66, 50), (62, 100)))
_FIVE = (
    ((88, 2), (34, 6)),
    ((34, 6), (24, 44)),
    ((24, 44), (52, 38), (76, 56), (70, 84), (42, 100), (10, 92)),
)
_SIX = (((66, 0), (36, 26), (18, 62), (28, 94), (56, 98), (74, 78), (62, 58), (36, 66), (22, 84)),)
_SEVEN = (((10, 10), (48, 8), (84, 4)), ((84, 4), (62, 44), (46, 100)))
_SEVEN_BAR = (*_SEVEN, ((34, 54), (82, 48)))
_EIGHT = (
    ((76, 12), (46, 0), (24, 20), (44, 42), (70, 64), (70, 90),
     (44, 100), (22, 86), (34, 58), (64, 36), (76, 12)),
)
_NINE = (
    ((76, 16), (50, 0), (24, 18), (26, 44), (54, 46), (76, 16)),
    ((76, 16), (72, 58), (62, 100)),
)
_NINE_HOOK = (_NINE[0], ((76, 16), (74, 66), (54, 98), (22, 92)))
# fmt: on

# Four shapes of each class, taken equally often.
_SHAPES: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    (_ZERO, _ZERO, _ZERO, _ZERO),
    (_ONE, _ONE, _ONE, _ONE_FLAG),
    (_TWO, _TWO, _TWO_LOOP, _TWO_LOOP),
    (_THREE, _THREE, _THREE, _THREE),
    (_FOUR_OPEN, _FOUR_OPEN, _FOUR_OPEN, _FOUR),
    (_FIVE, _FIVE, _FIVE, _FIVE),
    (_SIX, _SIX, _SIX, _SIX),
    (_SEVEN, _SEVEN, _SEVEN, _SEVEN_BAR),
    (_EIGHT, _EIGHT, _EIGHT, _EIGHT),
    (_NINE, _NINE, _NINE, _NINE_HOOK),
)


def draw_digits(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw one digit for each label; the same generator state gives the same digits.

    Args:
        labels: (B,) integers in 0..9, on the generator's device.
        generator: source of every random number.

    Returns:
        Images (B, 28, 28) uint8, white ink on black, each with between 32 and 342 pixels whose
        value / 255 exceeds 0.1307.
    """
    points, starts, ends = (table.to(generator.device) for table in _shape_tables())
    n = len(labels)
    k = points.shape[1]
    unit = torch.rand(n, 3, generator=generator, device=generator.device)
    normal = torch.randn(n, 4, generator=generator, device=generator.device)
    jitter = torch.randn(n, k, 2, generator=generator, device=generator.device)
    shape = labels * 4 + (unit[:, 0] * 4).long().clamp(max=3)
    reach = _REACH_MEDIAN * (_REACH_LOG_STD * normal[:, 0]).exp()
    shift = (2 * unit[:, 1:] - 1) * _SHIFT
    images = torch.empty(n, SIDE, SIDE, dtype=torch.uint8, device=generator.device)
    for part in torch.arange(n, device=generator.device).split(_CHUNK):
        control = points[shape[part]] + _JITTER_STD * jitter[part]
        control = control @ _affine(normal[part, 1:])
        start, end = starts[shape[part]] @ control, ends[shape[part]] @ control
        start, end = _frame(start, end, reach[part], shift[part])
        images[part] = _ink(_distance(start, end), reach[part])
    return images


def _affine(normal: Tensor) -> Tensor:
    """Random maps of points, (B, 2, 2) for right multiplication: aspect, slant, then rotation."""
    aspect = (_ASPECT_STD * normal[:, 0]).exp()
    slant = _SLANT_MEAN + _SLANT_STD * normal[:, 1]
    cos, sin = (_ROTATION_STD * normal[:, 2]).cos(), (_ROTATION_STD * normal[:, 2]).sin()
    shear = torch.stack([aspect, torch.zeros_like(aspect), -slant, torch.ones_like(slant)], -1)
    rotation = torch.stack([cos, sin, -sin, cos], -1)
    return shear.unflatten(-1, (2, 2)) @ rotation.unflatten(-1, (2, 2))


def _frame(start: Tensor, end: Tensor, reach: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Scale segments (B, S, 2) so that the ink fills its box, and centre their mass, in pixels."""
    both = torch.cat([start, end], dim=1)
    extent = (both.amax(1) - both.amin(1)).amax(-1)
    scale = ((_BOX - 2 * reach) / extent)[:, None, None]
    length = (end - start).norm(dim=-1, keepdim=True)
    centre = (length * (start + end) / 2).sum(1, keepdim=True) / length.sum(1, keepdim=True)
    origin = (SIDE - 1) / 2 + shift.unsqueeze(1)
    return (start - centre) * scale + origin, (end - centre) * scale + origin


def _distance(start: Tensor, end: Tensor) -> Tensor:
    """Distance of each pixel centre to the nearest of its segments (B, S, 2), (B, 784) in pixels.

    With p the pixel, a the start, d = end - a and u = (p - a).d / |d|^2, the nearest point is at
    t = clamp(u, 0, 1) and the squared distance |p - a|^2 + |d|^2 t (t - 2u): one map affine in p
    and one separable in its coordinates, which is what makes this quick.
    """
    line = torch.arange(SIDE, dtype=start.dtype, device=start.device)
    from_start = line - start.unsqueeze(-1)  # (B, S, 2, 28)
    d = end - start
    d2 = d.square().sum(-1).clamp(min=1e-6)
    along = from_start * (d / d2.unsqueeze(-1)).unsqueeze(-1)
    u = along[:, :, 1, :, None] + along[:, :, 0, None, :]  # (B, S, row, column)
    t = u.clamp(0, 1)
    square = from_start.square()
    gap = u.mul_(-2).add_(t).mul_(t).mul_(d2[:, :, None, None])
    gap += square[:, :, 1, :, None]
    gap += square[:, :, 0, None, :]
    return gap.amin(1).clamp_(min=0).sqrt_().flatten(1)


def _ink(distance: Tensor, reach: Tensor) -> Tensor:
    """Turn distances (B, 784) into images whose bright pixels are those within `reach` (B,).

    `reach` is narrowed or widened where the count would leave [MIN_POINTS, MAX_POINTS]; the margin
    is several grey levels wide, so rounding cannot undo it.
    """
    margin = 0.03
    least = distance.kthvalue(MIN_POINTS, dim=1).values + margin
    most = distance.kthvalue(MAX_POINTS + 1, dim=1).values - margin
    inside = torch.minimum(torch.maximum(reach, least), most)
    value = ((inside.unsqueeze(-1) - distance) / _EDGE + _BRIGHT).clamp(0, 1)
    return (255 * value).round().to(torch.uint8).unflatten(-1, (SIDE, SIDE))


@lru_cache(maxsize=1)
def _shape_tables() -> tuple[Tensor, Tensor, Tensor]:
    """Control points (40, K, 2) of all shapes and the matrices (40, S, K) to segment ends.

    Shapes with fewer points or segments are padded; a padding segment has no length.
    """
    shapes = [shape for shapes in _SHAPES for shape in shapes]
    k = max(len(_control_points(shape)) for shape in shapes)
    pieces = [list(_segments(shape, k)) for shape in shapes]
    s = max(map(len, pieces))
    points = torch.zeros(len(shapes), k, 2)
    ends = torch.zeros(len(shapes), 2, s, k)
    ends[..., 0] = 1.0
    for i, shape in enumerate(shapes):
        control = torch.tensor(_control_points(shape), dtype=torch.float32)
        points[i, : len(control)] = control
        ends[i, :, : len(pieces[i])] = torch.stack([torch.stack(p) for p in pieces[i]], dim=1)
    return points, ends[:, 0].contiguous(), ends[:, 1].contiguous()


def _control_points(shape: tuple[Stroke, ...]) -> list[tuple[int, int]]:
    """The distinct points of a shape: strokes that name the same point share its jitter."""
    return list(dict.fromkeys(point for stroke in shape for point in stroke))


def _segments(shape: tuple[Stroke, ...], k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The segments of a shape as pairs of weights (k,) over its control points.

    Strokes are uniform Catmull-Rom splines, their end points reflected.
    """
    unit = torch.eye(k)
    control = _control_points(shape)
    for stroke in shape:
        p = [unit[control.index(point)] for point in stroke]
        p = [2 * p[0] - p[1], *p, 2 * p[-1] - p[-2]]
        path = [p[1]]
        for before, a, b, after in zip(p, p[1:], p[2:], p[3:], strict=False):
            for t in torch.linspace(0, 1, _STEPS + 1)[1:].tolist():
                bend = 2 * before - 5 * a + 4 * b - after
                twist = 3 * a - before - 3 * b + after
                path.append(a + 0.5 * t * (b - before + t * (bend + t * twist)))
        yield from pairwise(path)
