"""Named arrays in one HDF5 file: whole or absent, checked against their sums, mapped.

One process at a time prepares a store. A long preparation makes parts, stores themselves, that
survive if it is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setexp.errors import ConfigError

# Part of every store and key: raise it when the meaning of a stored array changes.
LAYOUT = 1
_READ_BYTES = 1 << 26  # at a time
_TEXT_BYTES = 1 << 14  # a long text: a scene of ten objects

Array = NDArray[Any]
Rows = Array | list[str]


class Store:
    """A finished store, read only.

    Args:
        path: a file that `write_store` made.

    Attributes:
        about: what the writer said about it.
        digest: short hash of the content.

    Raises:
        ConfigError: the file is missing, not a store, or has another layout.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            with h5py.File(path, "r") as file:
                layout = int(file.attrs["layout"])
                self.about: dict[str, Any] = json.loads(file.attrs["about"])
                self._sums: dict[str, int] = json.loads(file.attrs["sums"])
        except (OSError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{path} is not a store ({reason}); delete it and prepare it again"
            ) from error
        if layout != LAYOUT:
            raise ConfigError(
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
        """One array, read from the file where it is indexed."""
        import h5py

        with h5py.File(self.path, "r") as file:
            rows = file[name]
            return np.memmap(
                self.path, rows.dtype, mode="r", offset=rows.id.get_offset(), shape=rows.shape
            )

    def verify(self) -> Store:
        """Read everything once and compare with the checksums taken on writing.

        Raises:
            ConfigError: the file was damaged after it was written.
        """
        wrong = [name for name in self._sums if not self._is_whole(name)]
        if wrong:
            raise ConfigError(
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
    """The store that is there, if it can be read and its writer said this key; to be made if not.

    What is in it is not read: `verify` does that.
    """
    try:
        store = Store(path)
    except ConfigError:
        return None
    return store if store.about.get("key") == key else None


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


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Let one process at a time prepare `path`; others wait, then find it finished.

    The lock is the operating system's, so it ends with a killed process. On a file system without
    locks a second writer may repeat work or stop with an error; files stay whole all the same.

    Raises:
        ConfigError: nothing can be written there.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".{path.name}.lock").touch()
    except OSError as error:
        raise ConfigError(
            f"cannot write {path.parent}: {error.strerror}; name another folder, paths.data=..."
        ) from None
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield
        else:
            for stale in path.parent.glob(f".{path.name}.*.unfinished"):
                stale.unlink()
            yield


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        _fill(unfinished, blocks, counts, about)
        Store(unfinished).verify()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
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
