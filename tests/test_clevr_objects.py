"""State vectors, boxes and padding of CLEVR scenes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from setexp.datasets.clevr.objects import (
    STATE_DIM,
    box_vectors,
    read_scenes,
    state_vectors,
    view_box,
)
from setexp.datasets.clevr.vocabulary import COLORS, MATERIALS, MAX_OBJECTS, SHAPES, SIZES
from setexp.errors import ConfigError

GOLDEN = np.load(Path(__file__).parent / "golden" / "clevr_objects.npz")


def scene(count: int = 3, seed: int = 0) -> dict[str, Any]:
    """A scene in the form of the release, with random objects."""
    random = np.random.default_rng(seed)
    objects = [
        {
            "material": str(random.choice(MATERIALS)),
            "color": str(random.choice(COLORS)),
            "shape": str(random.choice(SHAPES)),
            "size": str(random.choice(SIZES)),
            "3d_coords": random.uniform(-3, 3, 3).tolist(),
            "pixel_coords": [int(random.integers(480)), int(random.integers(320)), 10.0],
        }
        for _ in range(count)
    ]
    directions = {"right": [0.6, 0.8, 0.0]}
    return {"image_index": seed, "objects": objects, "directions": directions}


def golden_attributes() -> np.ndarray:
    words = {"material": MATERIALS, "color": COLORS, "shape": SHAPES, "size": SIZES}
    columns = [[w.index(str(name)) for name in GOLDEN[key]] for key, w in words.items()]
    return np.array(columns).T


def test_states_equal_the_released_code() -> None:
    state = state_vectors(GOLDEN["coords_3d"], golden_attributes())
    assert state.shape == (225, STATE_DIM) == (225, 18)
    np.testing.assert_allclose(state, GOLDEN["state"], rtol=0, atol=1e-12)


def test_boxes_equal_the_released_code() -> None:
    boxes = box_vectors(
        GOLDEN["pixel_coords"],
        GOLDEN["coords_3d"],
        GOLDEN["right_direction"],
        golden_attributes()[:, 2],
    )
    np.testing.assert_allclose(boxes, GOLDEN["box"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "left", "up", "down"),
    [
        # At the origin with height 0.5: extent 6.9 * 0.5 * 15 / 2 = 25.875 pixels.
        ("sphere", 25.875, 25.875, 25.875),
        ("cube", 33.6375, 33.6375, 33.6375),
        # With camera distance 9.4 and height 6.4: (6.4 + 9.4) / (9.4 + 0.5), (5.9 + 9.4) / 16.3.
        ("cylinder", 28.4625, 25.875 * 15.8 / 9.9, 25.875 * 15.8 / 9.9 * 15.3 / 16.3),
    ],
)
def test_box_worked_by_hand(shape: str, left: float, up: float, down: float) -> None:
    box = box_vectors(
        np.array([[240.0, 160.0]]),
        np.array([[0.0, 0.0, 0.5]]),
        np.array([[1.0, 0.0]]),
        np.array([SHAPES.index(shape)]),
    )
    expected = [(240 - left) / 480, (160 - down) / 320, (240 + left) / 480, (160 + up) / 320]
    np.testing.assert_allclose(box[0], expected, rtol=1e-12)


def test_box_uses_the_rotated_coordinate_twice() -> None:
    # across = 0.6 * 1 + 0.8 * 2 = 2.2, depth = 0.6 * 2 - 0.8 * 2.2 = -0.56 (a rotation gives 0.4).
    box = box_vectors(
        np.zeros((1, 2)),
        np.array([[1.0, 2.0, 0.5]]),
        np.array([[0.6, 0.8]]),
        np.array([SHAPES.index("sphere")]),
    )
    np.testing.assert_allclose(box[0, 2], 6.9 * 0.5 * 15.56 / 2 / 480, rtol=1e-12)


def test_state_worked_by_hand() -> None:
    words = [MATERIALS.index("metal"), COLORS.index("red"), SHAPES.index("cube"), 1]
    state = state_vectors(np.array([[3.0, -1.5, 0.75]]), np.array([words]))[0]
    np.testing.assert_array_equal(state[:3], [1.0, -0.5, 0.25])
    assert np.flatnonzero(state[3:]).tolist() == [1, 2 + 4, 10 + 1, 13 + 1]


def test_rows_beyond_the_objects_are_zero() -> None:
    arrays = read_scenes([scene(3, 0), scene(10, 1), scene(1, 2)])
    np.testing.assert_array_equal(arrays.mask.sum(1), [3, 10, 1])
    np.testing.assert_array_equal(arrays.image_index, [0, 1, 2])
    for rows in arrays[2:]:
        assert rows.shape[:2] == (3, MAX_OBJECTS)
        assert not rows[arrays.mask == 0].any()
    assert arrays.state.dtype == arrays.boxes.dtype == arrays.mask.dtype == np.float32


def test_scenes_are_read_independently_and_in_object_order() -> None:
    scenes = [scene(n, n) for n in (4, 7, 10)]
    together = read_scenes(scenes)
    alone = [read_scenes([one]) for one in scenes]
    for field, parts in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(field, np.concatenate(parts))
    reverse = copy.deepcopy(scenes[1])
    reverse["objects"].reverse()
    flipped = read_scenes([reverse])
    np.testing.assert_array_equal(flipped.boxes[0, :7], together.boxes[1, :7][::-1])
    np.testing.assert_array_equal(flipped.state[0, :7], together.state[1, :7][::-1])


def test_taller_pictures_are_seen_through_the_480_by_320_view() -> None:
    official = scene(5)
    small = copy.deepcopy(official)
    for item in small["objects"]:
        x, y, depth = item["pixel_coords"]
        item["pixel_coords"] = [x / 1.5, (y + 20) / 1.5, depth]
    boxes = read_scenes([small], width=320, height=240).boxes
    np.testing.assert_allclose(boxes, read_scenes([official]).boxes, atol=1e-6)
    assert view_box(480, 320) == (0, 0, 480, 320)
    np.testing.assert_allclose(view_box(320, 240), (0, 40 / 3, 320, 240 - 40 / 3))
    with pytest.raises(ConfigError, match="480x300"):
        view_box(480, 300)


def broken(**changes: Any) -> dict[str, Any]:
    changed = scene(2)
    for key, value in changes.items():
        changed["objects"][1][key.replace("coords_3d", "3d_coords")] = value
    return changed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (broken(color="pink"), "color='pink'; accepted: .*cyan"),
        (broken(shape=None), "shape=None"),
        (broken(coords_3d=[1.0, 2.0]), "not as in the release"),
        (scene(11), "11 objects; from 1 to 10"),
        (scene(0), "0 objects"),
        ({"image_index": 0, "objects": scene()["objects"]}, "lacks the field 'directions'"),
        ({**scene(), "directions": {"right": [1, 0]}}, "three numbers"),
        ({**scene(), "image_index": "first"}, "not as in the release"),
        ("a scene", "CLEVR scene 0"),
    ],
)
def test_wrong_scenes_are_refused_in_one_line(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_scenes([wrong])
    assert "\n" not in str(error.value)
