"""Named arrays in one HDF5 file: whole or absent, checked against their sums, mapped.

One process at a time prepares a store. A long preparation makes parts, stores themselves, that
survive if it is killed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setexp.errors import ConfigError
from setexp.files import whole

# Part of every store and key: raise it when the meaning of a stored array changes.
LAYOUT = 1
_READ_BYTES = 1 << 26  # at a time
_TEXT_BYTES = 1 << 14  # a long text: a scene of ten objects
_SPARE_BYTES = 1 << 24  # of a disk: what closing a file may still write

Array = NDArray[Any]
Rows = Array | list[str]


class DamagedError(ConfigError):
    """A file is there, but it is no store of this version, or it was changed."""


class Store:
    """A finished store, read only.

    Args:
        path: a file that `write_store` made.

    Attributes:
        about: what the writer said about it.
        digest: short hash of the content.

    Raises:
        ConfigError: the file is missing or may not be read.
        DamagedError: it is not a store, or has another layout.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            with h5py.File(path, "r") as file:
                layout = int(file.attrs["layout"])
                self.about: dict[str, Any] = json.loads(file.attrs["about"])
                self._sums: dict[str, int] = json.loads(file.attrs["sums"])
        except FileNotFoundError:
            raise ConfigError(f"{path} is missing; prepare it") from None
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:  # the system's word, not HDF5's
                raise ConfigError(f"{path} cannot be read: {os.strerror(error.errno)}") from error
            reason = str(error).splitlines()[0]
            raise DamagedError(
                f"{path} is not a store ({reason}); delete it and prepare it again"
            ) from error
        if layout != LAYOUT:
            raise DamagedError(
                f"{path} has layout {layout}, this version reads {LAYOUT}; delete it and prepare it"
                " again"
            )
        self.digest = hashlib.sha256(json.dumps(self._sums).encode()).hexdigest()[:12]

    def array(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows start:stop of one array, in memory."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return np.asarray(file[name][start:stop])

    def strings(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Rows start:stop of a list of texts that was written as such."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return list(file[name].asstr()[start:stop])

    def texts(self, name: str) -> list[str]:
        """A list of texts that was written by `as_text`."""
        return json.loads(self.array(name).tobytes())

    def mapped(self, name: str) -> Array:
        """One array, read from the file where it is indexed.

        Raises:
            DamagedError: it is not there, or the file is shorter.
        """
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                rows = file[name]
                at, shape, dtype = rows.id.get_offset(), rows.shape, rows.dtype
            return np.memmap(self.path, dtype, mode="r", offset=at, shape=shape)
        except (KeyError, ValueError) as error:
            raise DamagedError(
                f"{self.path} is damaged in {name} ({error}); delete it and prepare it again"
            ) from None

    def verify(self) -> Store:
        """Read everything once and compare with the checksums taken on writing.

        Raises:
            DamagedError: the file was changed after it was written.
        """
        wrong = [name for name in self._sums if not self._is_whole(name)]
        if wrong:
            raise DamagedError(
                f"{self.path} is damaged in {', '.join(wrong)}; delete it and prepare it again"
            )
        return self

    def _is_whole(self, name: str) -> bool:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                (count, *width), dtype = file[name].shape, file[name].dtype
            read = self.strings if dtype.hasobject else self.array
            size = _TEXT_BYTES if dtype.hasobject else dtype.itemsize * int(np.prod(width))
            step, found = max(1, _READ_BYTES // max(1, size)), 0
            for start in range(0, count, step):
                found = _sum(read(name, start, start + step), found)
        except (OSError, KeyError, ValueError):  # no longer HDF5, or a text no longer UTF-8
            return False
        return found == self._sums[name]


def kept(path: Path, key: str) -> Store | None:
    """The store that is there, if it is one and its writer said this key; to be made if not.

    What is in it is not read: `verify` does that.
    """
    if not path.exists():
        return None
    try:
        store = Store(path)
    except DamagedError:
        return None
    return store if store.about.get("key") == key else None


def is_sound(path: Path) -> bool:
    """Whether a part is there and undamaged; a damaged one is deleted, to be made again."""
    if not path.exists():
        return False
    try:
        Store(path).verify()
    except DamagedError:
        path.unlink()
        return False
    return True


def parts_folder(path: Path, key: str) -> Path:
    """Where parts of a store lie until they are joined."""
    return path.with_name(f".{path.name}.{key}.parts")


def remove_parts(path: Path) -> None:
    """Delete all parts ever made for a store."""
    for folder in path.parent.glob(f".{path.name}.*.parts"):
        shutil.rmtree(folder, ignore_errors=True)


def part_spans(count: int, part_size: int) -> list[tuple[int, int]]:
    """Consecutive (start, stop) of at most `part_size` that cover 0..count."""
    return [(start, min(start + part_size, count)) for start in range(0, count, part_size)]


def write_store(
    path: Path,
    blocks: Iterable[Mapping[str, Rows]],
    counts: Mapping[str, int],
    about: Mapping[str, Any],
) -> Store:
    """Write arrays under a temporary name, read them back, rename: whole or absent.

    Args:
        path: of the new file; its folder is made, an older file is replaced.
        blocks: rows of each array, to be joined in this order.
        counts: rows of each array altogether.
        about: JSON values to keep with the store.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    with whole(path) as unfinished:
        _fill(unfinished, blocks, counts, about)
        Store(unfinished).verify()
    return Store(path)


def as_text(texts: list[str]) -> Array:
    """Texts as an array that `Store.texts` reads."""
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _fill(
    path: Path,
    blocks: Iterable[Mapping[str, Rows]],
    counts: Mapping[str, int],
    about: Mapping[str, Any],
) -> None:
    import h5py

    sums, ends = dict.fromkeys(counts, 0), dict.fromkeys(counts, 0)
    with h5py.File(path, "w") as file:
        for block in blocks:
            _check_room(path, sum(map(_size, block.values())))
            for name, rows in block.items():
                if name not in file:
                    kind = h5py.string_dtype() if isinstance(rows, list) else rows.dtype
                    file.create_dataset(name, (counts[name], *np.shape(rows)[1:]), kind)
                start, ends[name] = ends[name], ends[name] + len(rows)
                file[name][start : ends[name]] = rows
                sums[name] = _sum(rows, sums[name])
        if ends != counts:
            raise ValueError(f"{path}: blocks hold {ends} rows, expected {dict(counts)}")
        file.attrs.update(
            {"layout": LAYOUT, "about": json.dumps(dict(about)), "sums": json.dumps(sums)}
        )


def _sum(rows: Rows, before: int) -> int:
    """Checksum of some rows and all that came before them."""
    if isinstance(rows, list):
        return zlib.crc32("".join(rows).encode(), before)
    return zlib.crc32(np.ascontiguousarray(rows).data, before)


def _size(rows: Rows) -> int:
    return sum(map(len, rows)) if isinstance(rows, list) else rows.nbytes


def _check_room(path: Path, size: int) -> None:
    """Raise what a full disk would, before HDF5 meets it: that fails again with all it closes."""
    if shutil.disk_usage(path.parent).free < size + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
