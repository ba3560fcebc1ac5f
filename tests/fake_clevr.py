"""CLEVR for tests: scenes and pictures that take no time, and stores of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from setexp.datasets.clevr import procedural, scenes
from setexp.datasets.clevr.dataset import ClevrSets
from setexp.datasets.clevr.objects import read_scenes
from setexp.datasets.clevr.official import SPLITS, real_store_path
from setexp.datasets.clevr.store import Block, write_store
from setexp.sets import Batch

HERE = "cuda" if torch.cuda.is_available() else "cpu"


class FakeScenes(NamedTuple):
    """S scenes of nothing but a number of objects and a random number."""

    objects: Tensor
    tag: Tensor

    def rows(self, index: slice) -> FakeScenes:
        return FakeScenes(self.objects[index], self.tag[index])


def fake_sample(
    count: int, *, generator: torch.Generator, min_objects: int, max_objects: int
) -> FakeScenes:
    options: dict[str, Any] = {"generator": generator, "device": generator.device}
    counts = torch.randint(min_objects, max_objects + 1, (count,), **options)
    return FakeScenes(counts, torch.randint(2**24, (count,), **options))


def fake_official(scenes: FakeScenes, split: str, first_index: int = 0) -> list[dict[str, Any]]:
    item = {"shape": "sphere", "size": "small", "material": "metal", "color": "red"}
    described = []
    for number, (count, tag) in enumerate(zip(*map(Tensor.tolist, scenes), strict=True)):
        objects = [
            {**item, "3d_coords": [tag / 2**24, n, 0.35], "pixel_coords": [tag % 480, 10 * n, 9.0]}
            for n in range(count)
        ]
        directions = {"right": [1.0, 0.0, 0.0]}
        index = first_index + number
        described.append({"image_index": index, "objects": objects, "directions": directions})
    return described


def fake_render(scenes: FakeScenes, *, height: int, width: int) -> Tensor:
    """Images whose bytes repeat the scene's random number."""
    bytes_of_tag = (scenes.tag[:, None] >> torch.tensor([0, 8, 16], device=scenes.tag.device)) & 255
    return bytes_of_tag[:, :, None, None].expand(-1, -1, height, width).to(torch.uint8)


def fake_renderer(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a renderer that takes no time in place; the list grows by the images it draws."""
    drawn: list[int] = []

    def counted(scenes: FakeScenes, **size: int) -> Tensor:
        drawn.append(len(scenes.tag))
        return fake_render(scenes, **size)

    monkeypatch.setattr(scenes, "sample_scenes", fake_sample)
    monkeypatch.setattr(procedural, "to_official", fake_official)
    monkeypatch.setattr(procedural, "render", counted)
    return drawn


def settings(root: Path, **changes: Any) -> dict[str, Any]:
    usual = {
        "root": str(root),
        "source": "procedural",
        "target": "state",
        "image_size": 4,
        "set_size": 10,
        "element_dim": 18,
        "min_objects": 3,
        "max_objects": 10,
        "train_size": 23,
        "test_size": 40,
        "data_seed": 0,
        "resident": "auto",
    }
    return {**usual, **changes}


def write_real(root: Path, count: int = 12, size: int = 4, objects: int = 6) -> None:
    """Prepared stores as from an official release, with recognisable contents."""
    for number, split in enumerate(SPLITS):
        tags = torch.arange(count) + 1000 * (number + 1)
        scenes = FakeScenes(torch.full((count,), objects), tags)
        described = fake_official(scenes, split)
        images = fake_render(scenes, height=size, width=size).contiguous().numpy()
        block = Block(images, read_scenes(described), ["{}"] * count)
        write_store(real_store_path(root, size, split), [block], count, {"key": split})


def one_pass(
    data: ClevrSets, split: str, size: int, source: torch.Generator, **how: Any
) -> Iterator[Batch]:
    """Batches of a split, shuffled and with the incomplete one unless `how` says otherwise."""
    return data.batches(split, size, source, **{"shuffle": True, "drop_last": False, **how})


def generator(device: str = "cpu", seed: int = 7) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def tags(batch: Batch) -> list[int]:
    """The scenes' random numbers, read from the images."""
    channels = (batch.input[:, :, 0, 0] * 255).round().long().tolist()
    return [red + 256 * green + 65536 * blue for red, green, blue in channels]


def assert_equal(a: Batch, b: Batch) -> None:
    assert torch.equal(a.input, b.input)
    assert torch.equal(a.target.x, b.target.x) and torch.equal(a.target.mask, b.target.mask)
