"""Which pixels show objects: silhouettes, masks on first use, and masks of real pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_clevr import HERE, generator, one_pass, settings, write_real

from setexp.datasets.clevr import foreground
from setexp.datasets.clevr.dataset import ClevrSets
from setexp.datasets.clevr.official import SPLITS, real_store_path
from setexp.datasets.clevr.procedural import Recipe, procedural_store
from setexp.datasets.clevr.raster import visible_pixels
from setexp.datasets.clevr.scenes import sample_scenes, to_official
from setexp.datasets.clevr.store import Store
from setexp.errors import ConfigError


def real_scenes(count: int) -> Any:
    return sample_scenes(count, generator=torch.Generator().manual_seed(0), max_objects=4)


def test_silhouettes_are_the_visible_pixels_of_all_objects() -> None:
    scenes = real_scenes(3)
    seen = foreground.silhouettes(scenes, height=40, width=60)
    counted = visible_pixels(scenes, height=40, width=60).sum(1)
    assert torch.equal(seen.sum((1, 2)), counted)
    for shown, scene in zip(seen, to_official(scenes, "val"), strict=True):
        for item in scene["objects"]:
            x, y = item["pixel_coords"][:2]
            assert shown[round(y / 8), round(x / 8)]


def test_foregrounds_are_pictures_without_background(tmp_path: Path) -> None:
    wanted = settings(tmp_path, target="boxes", element_dim=4, image_size=48, foreground=True)
    wanted |= {"set_size": 4, "max_objects": 4, "train_size": 5, "test_size": 4}
    data = ClevrSets(**wanted)
    (batch,) = one_pass(data, "train", 5, generator())
    picture, shown = batch.aux["picture"], (batch.aux["picture"] != 0).any(1, keepdim=True)
    assert torch.equal(picture, batch.input * shown)
    assert 0.02 < shown.float().mean() < 0.6
    fills = [
        mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1].float().mean()
        for boxes, present, mask in zip(*batch.target, shown[:, 0], strict=True)
        for x0, y0, x1, y1 in (boxes[present > 0] * 48).round().int().tolist()
    ]
    assert torch.stack(fills).mean() > 0.5
    data.prepare("val")
    assert len(list(tmp_path.glob("clevr/*/*-foreground-*.npy"))) == 2
    again = next(one_pass(ClevrSets(**wanted), "train", 5, generator()))
    assert torch.equal(again.aux["picture"], picture)


def test_masks_are_those_of_the_stores_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(16, 3, 3, 0, HERE)
    store = Store(procedural_store(tmp_path, "train", 2, recipe))
    drawn = foreground.procedural_masks(store, "train", recipe)
    assert store.digest in drawn.name
    with monkeypatch.context() as patch:
        patch.delattr(foreground, "draw_scenes")  # nothing is drawn twice
        assert foreground.procedural_masks(store, "train", recipe) == drawn
    other = Store(procedural_store(tmp_path / "other", "train", 2, recipe._replace(data_seed=1)))
    shutil.copy(other.path, store.path)  # the same name, rendered anew
    changed = Store(store.path)
    with pytest.raises(ConfigError, match="train-2.h5 was drawn on another machine"):
        foreground.procedural_masks(changed, "train", recipe)
    path = foreground.procedural_masks(changed, "train", recipe._replace(data_seed=1))
    assert path.exists() and not drawn.exists()
    same = foreground.procedural_masks(other, "train", recipe._replace(data_seed=1))
    assert path.read_bytes() == same.read_bytes()


def test_masks_of_real_pictures_are_who_rendered_them(tmp_path: Path) -> None:
    write_real(tmp_path)
    wanted = settings(tmp_path, foreground=True, train_size=None, test_size=None)
    with pytest.raises(ConfigError, match=r"train-foreground.npy is missing: the official release"):
        ClevrSets(**wanted | {"source": "real"})
    assert ClevrSets(**wanted | {"source": "auto"}).source == "procedural"
    mask = np.arange(16).reshape(4, 4) % 3 == 0
    for split in SPLITS:
        path = foreground.mask_path(real_store_path(tmp_path, 4, split))
        np.save(path, np.packbits(np.tile(mask, (12, 1, 1)), axis=-1))
    data = ClevrSets(**wanted | {"source": "auto"})
    assert data.source == "real"
    batch = next(one_pass(data, "test", 12, generator()))
    assert torch.equal(batch.aux["picture"], batch.input * torch.from_numpy(mask))
    before = data.fingerprint
    np.save(path, np.packbits(np.tile(~mask, (12, 1, 1)), axis=-1))
    assert ClevrSets(**wanted | {"source": "auto"}).fingerprint != before


def test_masks_of_other_pictures_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((4, 16, 2), np.uint8))
    assert foreground.load_masks(tmp_path / "m.npy", (3, 3, 16, 16)).shape == (3, 16, 2)
    for shape in ((5, 3, 16, 16), (4, 3, 16, 32)):
        with pytest.raises(ConfigError, match=r"m.npy holds uint8 \(4, 16, 2\)"):
            foreground.load_masks(tmp_path / "m.npy", shape)
    for size in (150, 0):
        (tmp_path / "m.npy").write_bytes((tmp_path / "m.npy").read_bytes()[:size])
        with pytest.raises(ConfigError, match="m.npy cannot be read"):
            foreground.load_masks(tmp_path / "m.npy", (3, 3, 16, 16))


def test_masks_of_scenes_from_a_gpu_need_one(tmp_path: Path) -> None:
    recipe = Recipe(24, 3, 4, 0, "cuda")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    write_real(tmp_path)
    store = Store(real_store_path(tmp_path, 4, "train"))
    with pytest.raises(ConfigError, match="was drawn on a GPU"):
        foreground.procedural_masks(store, "train", recipe)


@pytest.mark.parametrize("width", [16, 21])
def test_packed_masks(width: int) -> None:
    masks = torch.rand(3, 5, width) < 0.5
    packed = torch.from_numpy(np.packbits(masks.numpy(), axis=-1))
    assert torch.equal(foreground.unpack(packed, width)[:, 0] > 0, masks)
