"""Random CLEVR scenes: placement, visibility, what the scene file says, and the real camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import scenes as scenes_module
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.objects import read_scenes
from setexp.datasets.clevr.raster import visible_pixels
from setexp.datasets.clevr.scenes import Scenes, sample_scenes, to_official
from setexp.errors import ConfigError

SAMPLE = Path(__file__).parents[1] / "../shared/datasets/CLEVR_v1.0"
OPPOSITES = (("left", "right"), ("front", "behind"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return sample_scenes(60, generator=generator())


def offsets(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor]:
    """Horizontal offsets between slots, (S, N, N, 2), and which pairs of objects there are."""
    offset = scenes.coords[:, :, None, :2] - scenes.coords[:, None, :, :2]
    pairs = scenes.present[:, :, None] & scenes.present[:, None]
    return offset, pairs & ~torch.eye(pairs.shape[1], dtype=torch.bool)


def test_objects_keep_their_distance(scenes: Scenes) -> None:
    offset, pairs = offsets(scenes)
    radius = torch.tensor(words.RADII)[scenes.size]
    gap = offset.norm(dim=-1) - radius[:, :, None] - radius[:, None]
    assert gap[pairs].min() >= 0.25 - 1e-5
    # The nominal right and behind of the generator, to its printed digits.
    for way in ((0.6563112736, 0.7544902563), (-0.7544903159, 0.6563112736)):
        assert (offset @ torch.tensor(way)).abs()[pairs].min() >= 0.4 - 1e-5


def test_every_object_is_visible(scenes: Scenes) -> None:
    assert visible_pixels(scenes, height=240, width=320)[scenes.present].min() >= 200
    careless = sample_scenes(60, generator=generator(), min_visible_pixels=0)
    assert visible_pixels(careless, height=240, width=320)[careless.present].min() < 200


def test_crowded_scenes_are_as_frequent_as_sparse_ones() -> None:
    drawn = sample_scenes(1600, generator=generator(2), min_visible_pixels=0)
    counts = torch.bincount(drawn.count, minlength=11)[3:].double()
    # 0.999 quantile of chi-squared with 7 degrees of freedom.
    assert ((counts - 200) ** 2 / 200).sum() < 24.3
    assert len(counts) == 8


def test_redraws_keep_count_camera_and_lamps(scenes: Scenes) -> None:
    careless = sample_scenes(60, generator=generator(), min_visible_pixels=0)
    for name in ("count", "camera", "lights"):
        assert torch.equal(getattr(scenes, name), getattr(careless, name))
    assert not torch.equal(scenes.coords, careless.coords)


def test_scenes_are_drawn_in_float32_whatever_a_run_allows_itself(
    tf32: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs share what one of them draws."""
    products, seen = tf32[1], []
    place = scenes_module._place
    products.allow_tf32 = True

    def watched(*arguments: Any) -> Any:
        seen.append(products.allow_tf32)
        return place(*arguments)

    monkeypatch.setattr(scenes_module, "_place", watched)
    sample_scenes(2, generator=generator(), min_objects=3, max_objects=3)
    assert seen and not any(seen) and products.allow_tf32


def test_a_seed_decides_everything(scenes: Scenes) -> None:
    again = sample_scenes(60, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(scenes, again, strict=True))
    assert not torch.equal(scenes.coords, sample_scenes(60, generator=generator(1)).coords)


def test_padding_is_zero_and_ranges_hold(scenes: Scenes) -> None:
    empty = ~scenes.present
    for field in scenes[1:7]:
        assert not field[empty].any()
    assert empty.any()
    for name, options in (("shape", 3), ("color", 8), ("material", 2), ("size", 2)):
        assert set(getattr(scenes, name)[scenes.present].tolist()) == set(range(options))
    assert scenes.coords[..., :2].abs().max() <= 3 and scenes.rotation.max() < 360
    radius = torch.tensor(words.RADII)[scenes.size]
    assert torch.equal(scenes.coords[..., 2][scenes.present], radius[scenes.present])
    assert (scenes.camera - torch.tensor(view.POSITION)).abs().max() <= 0.5


def test_few_objects() -> None:
    drawn = sample_scenes(30, generator=generator(), min_objects=1, max_objects=4)
    assert drawn.coords.shape == (30, 4, 3)
    assert set(drawn.count.tolist()) == {1, 2, 3, 4}
    assert len(sample_scenes(0, generator=generator()).count) == 0


@pytest.mark.parametrize("limits", [(0, 4), (5, 4), (3, 11)])
def test_impossible_numbers_of_objects(limits: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"min_objects={limits[0]}, max_objects={limits[1]}"):
        sample_scenes(2, generator=generator(), min_objects=limits[0], max_objects=limits[1])


def test_pixel_coords_by_hand(scenes: Scenes) -> None:
    small = to_official(scenes, "val", width=320, height=240)
    large = to_official(scenes, "val")
    for scene, wide, position in zip(small, large, scenes.camera.double().numpy(), strict=True):
        back = position / np.linalg.norm(position)
        right = np.array([-back[1], back[0], 0]) / np.hypot(back[0], back[1])
        for item, same in zip(scene["objects"], wide["objects"], strict=True):
            offset = np.array(item["3d_coords"]) - position
            depth = -offset @ back
            u = 160 + 350 * (offset @ right) / depth
            v = 120 - 350 * (offset @ np.cross(back, right)) / depth
            assert item["pixel_coords"][:2] == [round(u), round(v)]
            assert item["pixel_coords"][2] == pytest.approx(depth, abs=1e-9)
            assert abs(same["pixel_coords"][0] - 1.5 * u) <= 0.5
            assert abs(same["pixel_coords"][1] - (1.5 * v - 20)) <= 0.5


def test_scene_files_are_as_in_the_release(scenes: Scenes) -> None:
    described = to_official(scenes, "train", 7)
    assert json.loads(json.dumps(described)) == described
    first = described[0]
    assert first["image_filename"] == "CLEVR_train_000007.png" and first["image_index"] == 7
    assert list(first["directions"]) == ["left", "right", "front", "behind", "above", "below"]
    assert first["directions"]["right"] == pytest.approx([0.6563112736, 0.7544902563, 0], abs=1e-6)
    arrays = read_scenes(described)
    assert torch.equal(torch.from_numpy(arrays.mask.sum(1)).long(), scenes.count)
    np.testing.assert_allclose(arrays.coords, scenes.coords.numpy(), rtol=1e-6)


def test_relationships_follow_the_directions() -> None:
    drawn = sample_scenes(20, generator=generator(), min_visible_pixels=0)
    for scene in to_official(drawn, "val"):
        coords = np.array([item["3d_coords"] for item in scene["objects"]])
        related = scene["relationships"]
        for i in range(len(coords)):
            others = [j for j in range(len(coords)) if j != i]
            for first, second in OPPOSITES:
                assert sorted(related[first][i] + related[second][i]) == others
            for name, lists in related.items():
                along = (coords - coords[i]) @ np.array(scene["directions"][name])
                assert lists[i] == np.flatnonzero(along > 0.2).tolist()


def test_camera_explains_the_real_sample() -> None:
    from scipy.optimize import least_squares

    if not SAMPLE.exists():
        pytest.skip(f"no CLEVR sample at {SAMPLE}")
    described = json.loads((SAMPLE / "scenes/CLEVR_val_scenes.json").read_text())["scenes"]
    for scene in described:
        coords = torch.tensor([item["3d_coords"] for item in scene["objects"]]).double()
        stored = np.array([item["pixel_coords"] for item in scene["objects"]])

        def misfit(position: np.ndarray, coords: torch.Tensor = coords) -> np.ndarray:
            seen = view.project(coords, torch.from_numpy(position), height=240, width=320)
            return seen.numpy()

        fitted = least_squares(
            lambda p, stored=stored: (misfit(p)[:, 2] - stored[:, 2]) * 1e4, view.POSITION
        ).x
        assert np.abs(fitted - view.POSITION).max() <= 0.51
        np.testing.assert_array_equal(np.round(misfit(fitted)[:, :2]), stored[:, :2])
        right = view.directions(torch.from_numpy(fitted))["right"]
        np.testing.assert_allclose(right, scene["directions"]["right"], atol=2e-3)
