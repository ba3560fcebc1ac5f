"""Scene descriptions to padded arrays: state vectors and the boxes that DSPN was trained on.

One reader serves the official scene files and procedural scenes alike. Source of both encodings:
the released DSPN code (Thesis, 6.4.2 and 6.4.3); they are restated here, not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from setexp.datasets.clevr.vocabulary import COLORS, MATERIALS, MAX_OBJECTS, SHAPES, SIZES
from setexp.errors import ConfigError

Array = NDArray[Any]

STATE_DIM = 3 + len(MATERIALS) + len(COLORS) + len(SHAPES) + len(SIZES)
BOX_DIM = 4
# The box rule was fitted to pictures of this size; other pictures are read through its view.
WIDTH, HEIGHT = 480, 320

_WORDS = {"material": MATERIALS, "color": COLORS, "shape": SHAPES, "size": SIZES}


class SceneArrays(NamedTuple):
    """S scenes of up to N = 10 objects in the order of the file, padded with zeros.

    Args:
        image_index: the scene's number in its split, int64 (S,).
        mask: 1 = object, 0 = padding, float32 (S, N).
        state: `state_vectors`, float32 (S, N, 18).
        boxes: `box_vectors`, float32 (S, N, 4).
        coords: centres in world units, float64 (S, N, 3).
        pixel_coords: centres in pixels of the picture as stored and depth, float64 (S, N, 3).
        attributes: positions in MATERIALS, COLORS, SHAPES, SIZES, uint8 (S, N, 4).
    """

    image_index: Array
    mask: Array
    state: Array
    boxes: Array
    coords: Array
    pixel_coords: Array
    attributes: Array


def view_box(width: int, height: int) -> tuple[float, float, float, float]:
    """Part (left, top, right, bottom), in pixels, of a picture that a 480x320 render would show.

    CLEVR's camera keeps its horizontal field of view whatever the picture's shape, so a taller
    picture only shows more at its top and bottom (at 320x240, 13 1/3 rows each).

    Raises:
        ConfigError: the picture is flatter than 480x320, so part of the view is missing.
    """
    margin = (height - HEIGHT * (width / WIDTH)) / 2
    if margin < 0:
        raise ConfigError(
            f"CLEVR pictures of {width}x{height} pixels do not cover the 480x320 view;"
            " render them at 480x320, as the official release, or taller"
        )
    return (0.0, margin, float(width), height - margin)


def state_vectors(coords: Array, attributes: Array) -> Array:
    """Coordinates / 3, then one-hot material, colour, shape and size: (K, 18), float64.

    Args:
        coords: centres in world units, (K, 3).
        attributes: positions in MATERIALS, COLORS, SHAPES, SIZES, (K, 4).
    """
    one_hot = [
        np.eye(len(words))[attributes[:, column]] for column, words in enumerate(_WORDS.values())
    ]
    return np.concatenate([coords / 3, *one_hot], axis=1)


def box_vectors(pixels: Array, coords: Array, right: Array, shapes: Array) -> Array:
    """DSPN's box rule: xmin, ymin, xmax, ymax as shares of width and height, (K, 4), float64.

    A smooth label made from an object's centre, not its tight outline (mean IoU with that: 0.78),
    and not clipped to the picture. Its second rotation uses the already rotated first coordinate;
    that slip of the released code is kept, because the printed tables were scored with it.

    Args:
        pixels: centres (x, y, ...) in pixels of a 480x320 picture, (K, 2 or more).
        coords: centres in world units, (K, 3).
        right: the scene's direction "right", (K, 2 or more).
        shapes: positions in SHAPES, (K,).
    """
    cos, sin = right[:, 0], right[:, 1]
    height = coords[:, 2]
    across = cos * coords[:, 0] + sin * coords[:, 1]
    depth = cos * coords[:, 1] - sin * across
    extent = 6.9 * height * (15 - depth) / 2

    cube = shapes == SHAPES.index("cube")
    cylinder = shapes == SHAPES.index("cylinder")
    distance, eye = 9.4 + depth, 6.4
    rise = eye / distance + 1
    tall = extent * height * rise / (height * rise - height * (eye - height) / distance)
    short = tall * (eye - height + distance) / (eye + height + distance)
    wide = np.where(cylinder, 11.0, 13.0) * extent / (10 + depth)

    side = np.where(cube | cylinder, wide, extent)
    up = np.where(cylinder, tall, side)
    down = np.where(cylinder, short, side)
    x, y = pixels[:, 0], pixels[:, 1]
    corners = [(x - side) / WIDTH, (y - down) / HEIGHT, (x + side) / WIDTH, (y + up) / HEIGHT]
    return np.stack(corners, axis=1)


def read_scenes(
    scenes: Sequence[dict[str, Any]], *, width: int = WIDTH, height: int = HEIGHT
) -> SceneArrays:
    """Scene dictionaries in the form of the official release as padded arrays.

    Args:
        scenes: S entries of "scenes" of a CLEVR scene file.
        width: of the pictures that "pixel_coords" belong to, in pixels.
        height: likewise; boxes are those of the 480x320 view (`view_box`).

    Raises:
        ConfigError: a scene lacks a field, has an unknown word, no object, or more than 10.
    """
    left, top, _, _ = view_box(width, height)
    rows = [_read_scene(scene, position) for position, scene in enumerate(scenes)]
    counts = np.array([len(row[0]) for row in rows], dtype=np.int64)
    mask = np.arange(MAX_OBJECTS) < counts[:, None]
    coords, pixels, attributes, right = (
        np.concatenate([row[column] for row in rows]) for column in range(4)
    )
    shown = (pixels[:, :2] - (left, top)) * (WIDTH / width)

    def pad(flat: Array, dtype: type) -> Array:
        padded = np.zeros((*mask.shape, flat.shape[1]), dtype=dtype)
        padded[mask] = flat
        return padded

    return SceneArrays(
        image_index=np.array([scene["image_index"] for scene in scenes], dtype=np.int64),
        mask=mask.astype(np.float32),
        state=pad(state_vectors(coords, attributes), np.float32),
        boxes=pad(box_vectors(shown, coords, right, attributes[:, 2]), np.float32),
        coords=pad(coords, np.float64),
        pixel_coords=pad(pixels, np.float64),
        attributes=pad(attributes, np.uint8),
    )


def _read_scene(scene: dict[str, Any], position: int) -> tuple[Array, Array, Array, Array]:
    """Coordinates, pixels, attributes and direction "right" of one scene's n objects, (n, ...)."""
    name = scene.get("image_filename", position) if isinstance(scene, dict) else position
    try:
        int(scene["image_index"])
        objects, right = scene["objects"], scene["directions"]["right"]
        if not 1 <= len(objects) <= MAX_OBJECTS:
            raise ConfigError(f"{len(objects)} objects; from 1 to {MAX_OBJECTS} can be read")
        coords = np.array([item["3d_coords"] for item in objects], dtype=np.float64)
        pixels = np.array([item["pixel_coords"] for item in objects], dtype=np.float64)
        words = [[_word(item, key) for key in _WORDS] for item in objects]
        rights = np.tile(np.array(right, dtype=np.float64), (len(objects), 1))
        if not coords.shape == pixels.shape == rights.shape == (len(objects), 3):
            raise ConfigError("3d_coords, pixel_coords and directions must be three numbers each")
    except KeyError as error:
        raise ConfigError(f"CLEVR scene {name} lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"CLEVR scene {name} is not as in the release: {error}") from error
    return coords, pixels, np.array(words, dtype=np.int64), rights


def _word(item: dict[str, Any], key: str) -> int:
    if item[key] not in _WORDS[key]:
        accepted = ", ".join(_WORDS[key])
        raise ConfigError(f"{key}={item[key]!r}; accepted: {accepted}")
    return _WORDS[key].index(item[key])
