"""Random CLEVR scenes, many at once, and their description in the official file's words.

Source: the public CLEVR generator (Johnson et al., 2017); its placement and visibility rules are
restated here for batches. A rejected scene is redrawn with its own number of objects, camera and
lamps, so that crowded scenes stay as frequent as sparse ones.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.lamps import LAMP_JITTER, LAMP_POSITIONS
from setexp.datasets.clevr.raster import visible_pixels
from setexp.errors import ConfigError

# Distances of the generator: between two bodies, and along the directions right and behind.
GAP, MARGIN = 0.25, 0.4
# An object stands in a relation to another if it lies this much further along the direction.
RELATION_MARGIN = 0.2
_EXTENT, _TRIES = 3.0, 50
# The size for which `min_visible_pixels` counts.
_ID_HEIGHT, _ID_WIDTH = 240, 320
# Attempts made at once, in all and for one scene.
_ATTEMPTS, _COPIES = 4096, 64
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

    count: Tensor  # type: ignore[assignment]  # hides tuple.count
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


def check_objects(fewest: int, most: int, set_size: int = words.MAX_OBJECTS) -> None:
    """Refuse numbers of objects that no scene has, or that a padded set has no rows for.

    Raises:
        ConfigError: it is not 1 <= fewest <= most <= 10 and set_size.
    """
    if not 1 <= fewest <= most <= min(set_size, words.MAX_OBJECTS):
        few_rows = set_size < words.MAX_OBJECTS
        limit = f"dataset.set_size={set_size}" if few_rows else words.MAX_OBJECTS
        raise ConfigError(
            f"dataset.min_objects={fewest}, max_objects={most}: must be in order, from 1 to {limit}"
        )


@view.exact_products()
def sample_scenes(
    count: int,
    *,
    generator: torch.Generator,
    min_objects: int = 3,
    max_objects: int = 10,
    min_visible_pixels: int = 200,
) -> Scenes:
    """Draw scenes by the generator's rules; a function of the generator's state alone.

    Args:
        count: S.
        generator: decides device and numbers.
        min_objects: fewest objects of a scene; the number is uniform up to `max_objects`.
        max_objects: most objects of a scene, N.
        min_visible_pixels: of every object in a 320x240 picture.

    Raises:
        ConfigError: an impossible number of objects.
        RuntimeError: scenes are still rejected after very many attempts.
    """
    check_objects(min_objects, max_objects)
    result = _empty(count, generator, min_objects, max_objects)
    vectors = _ways(result.camera)
    ways = torch.stack([vectors["right"][:, :2], vectors["behind"][:, :2]], 1)
    pending = torch.arange(count, device=generator.device)
    for _ in range(_MOST_ROUNDS):
        if len(pending) == 0:
            return result
        # Independent attempts for the same slot; the first success counts.
        copies = min(-(-_ATTEMPTS // len(pending)), _COPIES)
        owner = pending.repeat(copies)[:_ATTEMPTS]
        owner, coords, size = _place(result.count, ways, owner, max_objects, generator)
        owner, coords, size = _first_of_each(owner, coords, size)
        tried = _furnish(result.rows(owner), coords, size, generator)
        seen = _all_visible(tried, min_visible_pixels)
        owner, tried = owner[seen], tried.rows(seen)
        for field, drawn in zip(result, tried, strict=True):
            field[owner] = drawn
        done = torch.zeros(count, dtype=torch.bool, device=generator.device)
        done[owner] = True
        pending = pending[~done[pending]]
    raise RuntimeError(f"{len(pending)} of {count} CLEVR scenes rejected {_MOST_ROUNDS} times")


def seed_of(label: str) -> int:
    """The seed that a text stands for, the same on every machine."""
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:7])


def sample_labelled(
    label: str, count: int, *, min_objects: int, max_objects: int, device: str = "cpu"
) -> Scenes:
    """Scenes that a text stands for, drawn on a device; see `sample_scenes`."""
    return sample_scenes(
        count,
        generator=torch.Generator(device).manual_seed(seed_of(label)),
        min_objects=min_objects,
        max_objects=max_objects,
    )


def _empty(count: int, generator: torch.Generator, fewest: int, most: int) -> Scenes:
    """Scenes without objects: what stays fixed while objects are redrawn."""
    device = generator.device
    number = torch.randint(fewest, most + 1, (count,), generator=generator, device=device)
    zeros = torch.zeros(count, most, dtype=torch.int64, device=device)
    camera = view.JITTER * _signed((count, 3), generator)
    lights = LAMP_JITTER * _signed((count, 3, 3), generator)
    return Scenes(
        count=number,
        coords=camera.new_zeros(count, most, 3),
        shape=zeros,
        color=zeros.clone(),
        material=zeros.clone(),
        size=zeros.clone(),
        rotation=camera.new_zeros(count, most),
        camera=camera + camera.new_tensor(view.POSITION),
        lights=lights + camera.new_tensor(LAMP_POSITIONS),
    )


def _signed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers in -1..1."""
    drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return 2 * drawn - 1


def _ways(camera: Tensor) -> dict[str, Tensor]:
    """Six directions of each of S scenes, (S, 3), all from the camera before its jitter."""
    return view.directions(camera.new_tensor(view.POSITION).expand_as(camera))


def _place(
    count: Tensor, ways: Tensor, owner: Tensor, slots: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Place objects one by one; attempts with an object that does not fit in 50 tries drop out.

    Args:
        count: objects of each scene, (S,).
        ways: right and behind of each scene, (S, 2, 2).
        owner: the scene of each of A attempts, (A,).
        slots: N.
        generator: of all draws.

    Returns:
        owner (B,), coords (B, N, 2) and size (B, N) of the B attempts that succeeded.
    """
    device = generator.device
    radii = ways.new_tensor(words.RADII)
    size = torch.randint(2, (len(owner), slots), generator=generator, device=device)
    coords = ways.new_zeros(len(owner), slots, 2)
    for k in range(slots):
        tries = _EXTENT * _signed((len(owner), _TRIES, 2), generator)
        fits = torch.ones(len(owner), _TRIES, dtype=torch.bool, device=device)
        radius = radii[size]
        for j in range(k):
            offset = tries - coords[:, j, None]
            nearest = (radius[:, k] + radius[:, j] + GAP)[:, None]
            along = (offset @ ways[owner].transpose(1, 2)).abs().amin(-1)
            fits &= (offset.square().sum(-1) >= nearest.square()) & (along >= MARGIN)
        present = k < count[owner]
        first = fits.int().argmax(1)
        coords[:, k] = torch.where(
            present[:, None], tries[torch.arange(len(owner), device=device), first], 0.0
        )
        kept = (fits.any(1) | ~present).nonzero()[:, 0]
        owner, coords, size = owner[kept], coords[kept], size[kept]
    return owner, coords, size


def _first_of_each(owner: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
    """Rows of the first attempt of every scene that has one."""
    position = torch.arange(len(owner), device=owner.device)
    first = position.new_full((int(owner.max()) + 1 if len(owner) else 0,), len(owner))
    first = first.scatter_reduce(0, owner, position, "amin")
    kept = (first[owner] == position).nonzero()[:, 0]
    return tuple(field[kept] for field in (owner, *fields))


def _furnish(scenes: Scenes, coords: Tensor, size: Tensor, generator: torch.Generator) -> Scenes:
    """Scenes with objects of these sizes at these places and random other attributes."""
    device = generator.device
    present = scenes.present
    radius = coords.new_tensor(words.RADII)[size]

    def choose(options: tuple[object, ...]) -> Tensor:
        drawn = torch.randint(len(options), size.shape, generator=generator, device=device)
        return drawn * present

    return scenes._replace(
        coords=torch.cat([coords, radius[..., None]], -1) * present[..., None],
        shape=choose(words.SHAPES),
        color=choose(words.COLORS),
        material=choose(words.MATERIALS),
        size=size * present,
        rotation=(180 + 180 * _signed(size.shape, generator)) * present,
    )


def _all_visible(scenes: Scenes, fewest: int) -> Tensor:
    """Whether every object of a scene shows enough pixels, bool (S,)."""
    if fewest <= 0:
        return torch.ones_like(scenes.count, dtype=torch.bool)
    seen = visible_pixels(scenes, height=_ID_HEIGHT, width=_ID_WIDTH)
    return ((seen >= fewest) | ~scenes.present).all(1)


def to_official(
    scenes: Scenes,
    split: str,
    first_index: int = 0,
    *,
    width: int = 480,
    height: int = 320,
) -> list[dict[str, Any]]:
    """Describe scenes as the entries of "scenes" in an official scene file.

    Args:
        scenes: S of them.
        split: "train", "val" or "test"; part of the file names.
        first_index: number of the first scene within the split.
        width: of the pictures that "pixel_coords" belong to.
        height: likewise.
    """
    camera = scenes.camera.double()
    coords = scenes.coords.double()
    ways = _ways(camera)
    pixels = view.project(coords, camera, height=height, width=width)
    offset = coords[:, None] - coords[:, :, None]
    pairs = scenes.present[:, None] & scenes.present[:, :, None]
    related = {
        name: ((offset * ways[name][:, None, None]).sum(-1) > RELATION_MARGIN) & pairs
        for name in ("right", "behind", "front", "left")
    }
    vectors = torch.stack(list(ways.values()), 1).tolist()
    columns = [column.tolist() for column in (scenes.count, coords, pixels, *scenes[2:7])]
    relations = {name: holds.tolist() for name, holds in related.items()}
    return [
        _describe(
            split,
            first_index + row,
            dict(zip(ways, vectors[row], strict=True)),
            {name: holds[row] for name, holds in relations.items()},
            [column[row] for column in columns],
        )
        for row in range(len(camera))
    ]


def _describe(
    split: str,
    index: int,
    ways: dict[str, list[float]],
    relations: dict[str, list[list[bool]]],
    columns: list[Any],
) -> dict[str, Any]:
    """One scene's dictionary; `columns` are its count, coords, pixels and attributes."""
    count, *fields = columns
    objects = [
        {
            "shape": words.SHAPES[shape],
            "size": words.SIZES[size],
            "material": words.MATERIALS[material],
            "color": words.COLORS[color],
            "3d_coords": coords,
            "rotation": rotation,
            "pixel_coords": [round(pixel[0]), round(pixel[1]), pixel[2]],
        }
        for coords, pixel, shape, color, material, size, rotation in zip(
            *(field[:count] for field in fields), strict=True
        )
    ]
    return {
        "split": split,
        "image_index": index,
        "image_filename": f"CLEVR_{split}_{index:06d}.png",
        "directions": ways,
        "relationships": {
            name: [[j for j in range(count) if row[j]] for row in holds[:count]]
            for name, holds in relations.items()
        },
        "objects": objects,
    }
