"""Named arrays in one HDF5 file: whole or absent, checked against their sums, mapped."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setexp.errors import ConfigError

# Part of every store and key: raise it when the meaning of a stored array changes.
LAYOUT = 1
_READ_BYTES = 1 << 26

Array = NDArray[Any]


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
            raise ConfigError(f"{path} is not a store ({reason}); prepare it again") from error
        if layout != LAYOUT:
            raise ConfigError(
                f"{path} has layout {layout}, this version reads {LAYOUT}; prepare it again"
            )
        self.digest = hashlib.sha256(json.dumps(self._sums).encode()).hexdigest()[:12]

    def array(self, name: str) -> Array:
        """One array, in memory."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return np.asarray(file[name][...])

    def texts(self, name: str) -> list[str]:
        """One array of texts."""
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
        import h5py

        with h5py.File(self.path, "r") as file:
            for name, expected in self._sums.items():
                rows, found = file[name], 0
                step = max(
                    1, _READ_BYTES // max(1, rows.dtype.itemsize * int(np.prod(rows.shape[1:])))
                )
                for start in range(0, len(rows), step):
                    found = zlib.crc32(np.ascontiguousarray(rows[start : start + step]).data, found)
                if found != expected:
                    raise ConfigError(f"{self.path} is damaged in {name}; delete it, prepare again")
        return self


def kept(path: Path, key: str) -> Store | None:
    """The store that is there, if it can be read and its writer said this key; to be made if not.

    What is in it is not read: `verify` does that.
    """
    try:
        store = Store(path)
    except ConfigError:
        return None
    return store if store.about.get("key") == key else None


def write_store(
    path: Path,
    blocks: Iterable[Mapping[str, Array]],
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
    blocks: Iterable[Mapping[str, Array]],
    counts: Mapping[str, int],
    about: Mapping[str, Any],
) -> None:
    import h5py

    sums, ends = dict.fromkeys(counts, 0), dict.fromkeys(counts, 0)
    with h5py.File(path, "w") as file:
        for block in blocks:
            for name, rows in block.items():
                if name not in file:
                    file.create_dataset(name, (counts[name], *rows.shape[1:]), rows.dtype)
                start, ends[name] = ends[name], ends[name] + len(rows)
                file[name][start : ends[name]] = rows
                sums[name] = zlib.crc32(np.ascontiguousarray(rows).data, sums[name])
        if ends != counts:
            raise ValueError(f"{path}: blocks hold {ends} rows, expected {dict(counts)}")
        file.attrs.update(
            {"layout": LAYOUT, "about": json.dumps(dict(about)), "sums": json.dumps(sums)}
        )
