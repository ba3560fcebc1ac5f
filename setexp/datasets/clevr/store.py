"""CLEVR stores: one HDF5 file per split, whole or absent, with images that can be memory-mapped.

Official and procedural scenes share this layout, so nothing that reads a store knows its origin.
A store is made of parts (stores themselves) that survive a killed preparation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.clevr.objects import Array, SceneArrays
from setexp.errors import ConfigError

# Part of every store and key: raise it when the meaning of a stored array changes.
LAYOUT = 1
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


class Store:
    """A finished store, read only.

    Args:
        path: an HDF5 file that `write_store` or `merge_parts` made.

    Attributes:
        images: uint8 (S, 3, H, W), mapped from the file and read when indexed.
        attrs: what the writer said about the store ("key", "source", ...).
        digest: short hash of the content.

    Raises:
        ConfigError: the file is missing, not a store, or has another layout.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            with h5py.File(path, "r") as file:
                self.attrs: dict[str, Any] = json.loads(file.attrs["about"])
                self._sums: dict[str, int] = json.loads(file.attrs["sums"])
                layout = int(file.attrs["layout"])
                images = file["images"]
                shape, offset = images.shape, images.id.get_offset()
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(f"{path} is not a CLEVR store ({error}); delete it") from error
        if layout != LAYOUT:
            raise ConfigError(f"{path} has layout {layout}, this version reads {LAYOUT}; delete it")
        self.images: Array = np.memmap(path, np.uint8, mode="r", offset=offset, shape=shape)
        self.digest = hashlib.sha256(json.dumps(self._sums).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        """Number of scenes."""
        return int(self.images.shape[0])

    def array(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows start:stop of one field of `SceneArrays`."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return np.asarray(file[name][start:stop])

    def scenes(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]]:
        """Scene dictionaries start:stop, with relationships, as the official release words them."""
        return [json.loads(text) for text in self._texts(start, stop)]

    def blocks(self) -> Iterator[Block]:
        """The content in order, checked against its checksums.

        Raises:
            ConfigError: the file was damaged after it was written.
        """
        sums: dict[str, int] = {}
        for start in range(0, len(self), _READ_ROWS):
            stop = min(start + _READ_ROWS, len(self))
            arrays = SceneArrays(*(self.array(name, start, stop) for name in SceneArrays._fields))
            block = Block(np.asarray(self.images[start:stop]), arrays, self._texts(start, stop))
            _add_to_sums(sums, block)
            yield block
        wrong = [name for name in sums if sums[name] != self._sums[name]]
        if wrong:
            raise ConfigError(f"{self.path} is damaged in {', '.join(wrong)}; delete it")

    def verify(self) -> None:
        """Read everything once and compare with the checksums taken on writing.

        Raises:
            ConfigError: the file was damaged after it was written.
        """
        for _ in self.blocks():
            pass

    def _texts(self, start: int, stop: int | None) -> list[str]:
        import h5py

        with h5py.File(self.path, "r") as file:
            return list(file["scenes"].asstr()[start:stop])


def write_store(path: Path, blocks: Iterable[Block], count: int, about: dict[str, Any]) -> None:
    """Write `count` scenes under a temporary name, read them back, rename: whole or absent.

    Args:
        path: of the new file; its folder is made, an older file is replaced.
        blocks: the scenes in order; their sizes must add up to `count`.
        count: S, at least 1.
        about: JSON values to keep with the store.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        _fill(unfinished, blocks, count, about)
        Store(unfinished).verify()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _fill(path: Path, blocks: Iterable[Block], count: int, about: dict[str, Any]) -> None:
    import h5py

    sums: dict[str, int] = {}
    end = 0
    with h5py.File(path, "w") as file:
        for block in blocks:
            fields = {"images": block.images, **block.arrays._asdict()}
            if end == 0:
                for name, rows in fields.items():
                    file.create_dataset(name, (count, *rows.shape[1:]), rows.dtype)
                file.create_dataset("scenes", (count,), h5py.string_dtype())
            start, end = end, end + len(block.images)
            for name, rows in fields.items():
                file[name][start:end] = rows
            file["scenes"][start:end] = block.scenes
            _add_to_sums(sums, block)
        if end != count:
            raise ValueError(f"{path}: blocks hold {end} scenes, expected {count}")
        file.attrs["layout"] = LAYOUT
        file.attrs["about"] = json.dumps(about)
        file.attrs["sums"] = json.dumps(sums)


def _add_to_sums(sums: dict[str, int], block: Block) -> None:
    for name, rows in {"images": block.images, **block.arrays._asdict()}.items():
        sums[name] = zlib.crc32(np.ascontiguousarray(rows).data, sums.get(name, 0))
    for text in block.scenes:
        sums["scenes"] = zlib.crc32(text.encode(), sums.get("scenes", 0))


def part_spans(count: int, part_size: int) -> list[tuple[int, int]]:
    """Consecutive (start, stop) of at most `part_size` that cover 0..count."""
    return [(start, min(start + part_size, count)) for start in range(0, count, part_size)]


def part_path(path: Path, key: str, start: int) -> Path:
    """Where the part of store `path` that begins at scene `start` lies until it is merged."""
    return path.parent / f".{path.name}.{key}.parts" / f"{start:06d}.h5"


def is_sound(path: Path) -> bool:
    """Whether a part is there and undamaged; a damaged one is deleted, to be made again."""
    if not path.exists():
        return False
    try:
        Store(path).verify()
    except ConfigError:
        path.unlink()
        return False
    return True


def merge_parts(path: Path, parts: list[Path], about: dict[str, Any]) -> None:
    """Join parts into the store `path` and delete all parts ever made for it."""
    stores = [Store(part) for part in parts]
    blocks = (block for store in stores for block in store.blocks())
    write_store(path, blocks, sum(map(len, stores)), about)
    for folder in path.parent.glob(f".{path.name}.*.parts"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Let one process at a time prepare `path`; others wait, then find it finished.

    The lock is the operating system's, so it ends with a killed process. On a file system without
    locks a second writer may repeat work or stop with an error; files stay whole all the same.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield
        else:
            for stale in path.parent.glob(f".{path.name}.*.unfinished"):
                stale.unlink()
            yield
