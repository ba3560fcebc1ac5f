"""Procedural CLEVR scenes, rendered once and kept in the same stores as the official release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from setexp.datasets.array_store import LAYOUT, is_sound, part_spans
from setexp.datasets.clevr.objects import HEIGHT, WIDTH, read_scenes
from setexp.datasets.clevr.render import render
from setexp.datasets.clevr.scenes import Scenes, sample_labelled, to_official
from setexp.datasets.clevr.store import PART_SIZE, Block, merge_parts, part_path, write_store
from setexp.files import made_once

# Part of every key: raise it when scenes or pictures come out differently for the same seed.
CONTENT_VERSION = 1
_RENDER_CHUNK = 250


class Recipe(NamedTuple):
    """Everything that determines procedural scenes and pictures but their number.

    Args:
        image_size: height and width in pixels; the 480x320 view, aspect ratio not kept.
        min_objects: fewest objects of a scene.
        max_objects: most objects of a scene.
        data_seed: of all scenes; train and val are disjoint streams of it.
        drawn_on: "cpu" or "cuda", whose random numbers differ.
        part_size: scenes drawn together, the unit of resuming.
    """

    image_size: int
    min_objects: int
    max_objects: int
    data_seed: int
    drawn_on: str
    part_size: int = PART_SIZE

    @property
    def key(self) -> str:
        """Short hash, the same in every process and on every machine.

        What it stands for is the same on processors that round, and GPUs that draw, alike; others
        have other scenes of the same distribution under it.
        """
        text = " ".join(map(str, (LAYOUT, CONTENT_VERSION, *self)))
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def recipe_here(root: Path, counts: dict[str, int], settings: tuple[int, int, int, int]) -> Recipe:
    """The recipe to use on this machine: its own, unless only the other kind is rendered already.

    Once rendering has begun here, the other kind does not matter any more, even if it is complete
    by the time that a run resumes: the run would be of other data.

    Args:
        root: the data folder that `ClevrSets` is given.
        counts: scenes of every split in use.
        settings: image_size, min_objects, max_objects and data_seed.
    """
    kinds = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu", "cuda")
    own, other = (Recipe(*settings, kind) for kind in kinds)

    def stores(recipe: Recipe) -> list[Path]:
        return [procedural_path(root, split, n, recipe) for split, n in counts.items()]

    # a store, its parts or its lock
    begun = any(any(path.parent.glob(f"*{path.name}*")) for path in stores(own))
    rendered = all(path.exists() for path in stores(other))
    return other if rendered and not begun else own


def procedural_path(root: Path, split: str, count: int, recipe: Recipe) -> Path:
    """Where `procedural_store` puts a split ("train" or "val") of `count` scenes under `root`."""
    return root / "clevr" / f"procedural-{recipe.key}" / f"{split}-{count}.h5"


def procedural_store(root: Path, split: str, count: int, recipe: Recipe) -> Path:
    """Path of the store of `count` scenes of a split, rendered first where it is missing.

    Scenes are a function of their whole part: another count has others in the last part. Rendering
    shows its progress on a terminal, and goes on from the finished parts if it was interrupted.

    Args:
        root: the data folder that `ClevrSets` is given.
        split: "train" or "val".
        count: scenes, at least 1.
        recipe: what they look like.
    """
    path = procedural_path(root, split, count, recipe)
    return made_once(path, lambda: _render_store(path, split, count, recipe))


def _render_store(path: Path, split: str, count: int, recipe: Recipe) -> None:
    from tqdm import tqdm

    parts = []
    with tqdm(total=count, desc=f"rendering CLEVR {split}", unit="image", disable=None) as bar:
        for start, stop in part_spans(count, recipe.part_size):
            parts.append(part_path(path, recipe.key, start))
            if is_sound(parts[-1]):
                bar.update(stop - start)
            else:
                blocks = _draw_part(split, start, stop, recipe, bar.update)
                write_store(parts[-1], blocks, stop - start, {})
    about = {"key": recipe.key, "source": "procedural", "split": split}
    merge_parts(path, parts, {**about, "width": WIDTH, "height": HEIGHT})


def draw_scenes(split: str, start: int, stop: int, recipe: Recipe) -> Scenes:
    """Scenes start:stop of a split, which are a part, from a seed of their own."""
    return sample_labelled(
        f"{recipe.data_seed} {split} {start}",
        stop - start,
        min_objects=recipe.min_objects,
        max_objects=recipe.max_objects,
        device=recipe.drawn_on,
    )


def _draw_part(
    split: str, start: int, stop: int, recipe: Recipe, report: Callable[[int], object]
) -> Iterator[Block]:
    """Scenes start:stop of a split, described and rendered."""
    drawn = draw_scenes(split, start, stop, recipe)
    described = to_official(drawn, split, start)
    for first in range(0, stop - start, _RENDER_CHUNK):
        rows = slice(first, first + _RENDER_CHUNK)
        images = render(drawn.rows(rows), height=recipe.image_size, width=recipe.image_size)
        words = described[rows]
        yield Block(images.cpu().numpy(), read_scenes(words), [json.dumps(word) for word in words])
        report(len(words))
