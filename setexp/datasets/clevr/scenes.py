"""Random CLEVR scenes, many at once, and their description in the official file's words.

Source: the public CLEVR generator (Johnson et al., 2017); its placement and visibility rules are
restated here for batches. A rejected scene is redrawn with its own number of objects, camera and
lamps, so that crowded scenes stay as frequent as sparse ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.lamps import LAMP_JITTER, LAMP_POSITIONS
from setexp.errors import ConfigError

MAX_OBJECTS = 10
# Distances of the generator: between two bodies, and along the directions right and behind.
GAP, MARGIN = 0.25, 0.4
# An object stands in a relation to another if it lies this much further along the direction.
RELATION_MARGIN = 0.2
_EXTENT, _TRIES = 3.0, 50
# The size for which `min_visible_pixels` counts.
_ID_HEIGHT, _ID_WIDTH = 240, 320
_ATTEMPTS = 4096
_MOST_ROUNDS = 10_000


class Scenes(NamedTuple):
    """S scenes with N = max_objects slots, filled from the front and padded with zeros.

    Args:
        count: number of objects, int64 (S,).
        coords: centres in world units, float32 (S, N, 3).
        shape: index into `vocabulary.SHAPES`, int64 (S, N).
        color: index into `vocabulary.COLORS`, likewise.
        material: index into `vocabulary.MATERIALS`, likewise.
        size: index into `vocabulary.SIZES`, likewise.
        rotation: 0..360 as stored, but applied as radians, float32 (S, N).
        camera: position in world units, float32 (S, 3).
        lights: positions of the lamps key, fill and back, float32 (S, 3, 3).
    """

    count: Tensor
    coords: Tensor
    shape: Tensor
    color: Tensor
    material: Tensor
    size: Tensor
    rotation: Tensor
    camera: Tensor
    lights: Tensor

    def rows(self, index: slice | Tensor) -> Scenes:
        """Some of the scenes, by slice or by int64 index."""
        return Scenes(*(field[index] for field in self))

    @property
    def present(self) -> Tensor:
        """Which slots hold an object, bool (S, N)."""
        slots = torch.arange(self.coords.shape[1], device=self.count.device)
        return slots < self.count[:, None]


def sample_scenes(
    count: int,
    *,
    generator: torch.Generator,
    min_objects: int = 3,
    max_objects: int = 10,
    min_visible_pixels: int = 200,
    directions: str = "nominal",
) -> Scenes:
    """Draw scenes by the generator's rules; a function of the generator's state alone.

    Args:
        count: S.
        generator: decides device and numbers.
        min_objects: fewest objects of a scene; the number is uniform up to `max_objects`.
        max_objects: most objects of a scene, N.
        min_visible_pixels: of every object in a 320x240 picture.
        directions: along which margins are kept, "nominal" (official) or "per_camera".

    Raises:
        ConfigError: an impossible number of objects or unknown directions.
        RuntimeError: scenes are still rejected after very many attempts.
    """
    if not 1 <= min_objects <= max_objects <= MAX_OBJECTS:
        raise ConfigError(
            f"min_objects={min_objects}, max_objects={max_objects}; must be in order, from 1 to"
            f" {MAX_OBJECTS}"
        )
    result = _empty(count, generator, min_objects, max_objects)
    ways = _ways(result.camera, directions)[:, :2]
    pending = torch.arange(count, device=generator.device)
    for _ in range(_MOST_ROUNDS):
        if len(pending) == 0:
            return result
        # Independent attempts for the same slot; the first success counts.
        owner = pending.repeat(max(1, _ATTEMPTS // len(pending)))[: max(_ATTEMPTS, len(pending))]
        owner = owner[:_ATTEMPTS]
        placed, index = _place(result.count[owner], ways[owner], generator, max_objects)
        owner = owner[index]
        tried = _furnish(result, owner, placed, generator)
        owner, tried = _first_of_each(owner, tried)
        seen = _visible(tried, min_visible_pixels)
        owner, tried = owner[seen], tried.rows(seen)
        for field, drawn in zip(result, tried, strict=True):
            field[owner] = drawn
        done = torch.zeros(count, dtype=torch.bool, device=generator.device)
        done[owner] = True
        pending = pending[~done[pending]]
    raise RuntimeError(f"{len(pending)} of {count} CLEVR scenes rejected {_MOST_ROUNDS} times")
