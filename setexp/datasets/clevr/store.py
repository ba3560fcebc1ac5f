"""CLEVR stores: one file per split, with images that can be memory-mapped.

Official and procedural scenes share this layout, so nothing that reads a store knows its origin.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets import array_store
from setexp.datasets.clevr.objects import Array, SceneArrays

PART_SIZE = 1000
_READ_ROWS = 1024


class Block(NamedTuple):
    """Some scenes of a split.

    Args:
        images: uint8 (S, 3, H, W).
        arrays: padded labels of the same scenes, leading S.
        scenes: the scene dictionaries as JSON text, S strings.
    """

    images: Array
    arrays: SceneArrays
    scenes: list[str]

    def rows(self) -> dict[str, array_store.Rows]:
        """As a store holds them."""
        return {"images": self.images, **self.arrays._asdict(), "scenes": self.scenes}


class Store(array_store.Store):
    """A finished store, read only.

    Args:
        path: an HDF5 file that `write_store` or `merge_parts` made.

    Attributes:
        images: uint8 (S, 3, H, W), mapped from the file and read when indexed.

    Raises:
        ConfigError: the file is missing, not a store, or has another layout.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.images: Array = self.mapped("images")

    def __len__(self) -> int:
        """Number of scenes."""
        return int(self.images.shape[0])

    def scenes(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]:
        """Scene dictionaries start:stop, with relationships, as the official release words them."""
        return [json.loads(text) for text in self.strings("scenes", start, stop)]

    def blocks(self) -> Iterator[Block]:
        """The content in order."""
        for start, stop in array_store.part_spans(len(self), _READ_ROWS):
            arrays = SceneArrays(*(self.array(name, start, stop) for name in SceneArrays._fields))
            scenes = self.strings("scenes", start, stop)
            yield Block(np.asarray(self.images[start:stop]), arrays, scenes)


def write_store(path: Path, blocks: Iterable[Block], count: int, about: dict[str, Any]) -> None:
    """Write `count` scenes, whole or not at all; see `setexp.datasets.array_store.write_store`.

    Args:
        blocks: the scenes in order; their sizes must add up to `count`.
        count: S, at least 1.
        about: JSON values to keep with the store.
    """
    counts = dict.fromkeys(("images", *SceneArrays._fields, "scenes"), count)
    array_store.write_store(path, (block.rows() for block in blocks), counts, about)


def part_path(path: Path, key: str, start: int) -> Path:
    """Where the part of store `path` that begins at scene `start` lies until it is merged."""
    return array_store.parts_folder(path, key) / f"{start:06d}.h5"


def merge_parts(path: Path, parts: list[Path], about: dict[str, Any]) -> None:
    """Join sound parts into the store `path` and delete all parts ever made for it."""
    stores = [Store(part) for part in parts]
    blocks = (block for store in stores for block in store.blocks())
    write_store(path, blocks, sum(map(len, stores)), about)
    array_store.remove_parts(path)
