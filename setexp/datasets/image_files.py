"""Stores of labelled images: one HDF5 file per data set, its images mapped into memory.

`scripts/prepare_images.py` makes them; nothing that reads one knows what it was made from.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.array_store import Array, Store, write_store
from setexp.errors import ConfigError

SPLITS = ("train", "test")
_BLOCK = 1000  # images written at a time
# What a damaged archive makes NumPy, zipfile or pickle raise.
_DAMAGE = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)

Items = dict[str, tuple[int, Iterator[tuple[Array, int]]]]
"""By split, the number of images and (image (3, side, side), label) of each."""


class Split(NamedTuple):
    """Images uint8 (S, 3, H, W), mapped from the file, and labels int64 (S,)."""

    images: Array
    labels: Array


class Images(NamedTuple):
    """A store's two splits, and a short text that tells its content."""

    splits: dict[str, Split]
    content: str


def store_path(root: str | Path, name: str) -> Path:
    """Where a data set's store lies in the data folder."""
    return Path(root).expanduser() / "images" / f"{name}.h5"


def read_images(path: Path) -> Images:
    """Open a store.

    Raises:
        ConfigError: it is not a store, or one of another version.
    """
    store = Store(path)
    splits = {
        split: Split(store.mapped(f"{split}/images"), store.array(f"{split}/labels"))
        for split in SPLITS
    }
    return Images(splits, f"{store.about['origin']} {store.digest}")


def write_images(path: Path, origin: str, sources: Items) -> None:
    """Write a store, whole or not at all.

    Args:
        origin: what the images were made from, in a few words.
        sources: see `Items`.
    """
    counts = {f"{s}/{name}": n for s, (n, _) in sources.items() for name in Split._fields}
    write_store(path, _blocks(sources), counts, {"origin": origin})


def _blocks(sources: Items) -> Iterator[dict[str, Array]]:
    for split, (_, items) in sources.items():
        while block := list(islice(items, _BLOCK)):
            images, labels = zip(*block, strict=True)
            yield {
                f"{split}/images": np.ascontiguousarray(images),
                f"{split}/labels": np.array(labels, np.int64),
            }


def cifar10(source: Path, side: int) -> Items:
    """The official archive's folder `cifar-10-batches-py`, checked by torchvision.

    Raises:
        ConfigError: it is incomplete or damaged.
    """
    from torchvision.datasets import CIFAR10

    _must_be(side, 32)
    sources: Items = {}
    for split in SPLITS:
        try:
            data = CIFAR10(str(source.resolve().parent), train=split == "train", download=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"--source {source}: {reason}; unpack the archive again") from None
        items = zip(data.data.transpose(0, 3, 1, 2), data.targets, strict=True)
        sources[split] = (len(data.targets), items)
    return sources


def imagenet64(source: Path, side: int) -> Items:
    """The official 64 x 64 archives' files: train_data_batch_1 to 10 and val_data.

    Raises:
        ConfigError: one is missing, damaged, or of images of another size.
    """
    _must_be(side, 64)
    names = {"train": [f"train_data_batch_{i}" for i in range(1, 11)], "test": ["val_data"]}
    found = {split: [_archive(source, name) for name in names[split]] for split in SPLITS}

    def items(split: str) -> Iterator[tuple[Array, int]]:
        for path in found[split]:
            data, labels = _batch(path, side)
            for row, label in zip(data, labels, strict=True):
                yield row.reshape(3, side, side), int(label) - 1  # the archives count from 1

    counts = {split: sum(len(_batch(path, side)[1]) for path in found[split]) for split in SPLITS}
    return {split: (counts[split], items(split)) for split in SPLITS}


def folder(source: Path, side: int) -> Items:
    """Folders train/CLASS/ and test/CLASS/ (or val/) of pictures, cut square and resized.

    Images are stored in a random order, always the same, so that the first few are of all classes.

    Raises:
        ConfigError: a folder is missing or empty, the classes differ, or a picture is damaged.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Resize

    places = {
        "train": source / "train",
        "test": next((p for p in (source / "test", source / "val") if p.is_dir()), source / "test"),
    }
    shape = Compose([Resize(side), CenterCrop(side)])
    try:
        data = {split: ImageFolder(str(place), shape) for split, place in places.items()}
    except FileNotFoundError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"--source {source}: {reason}") from None
    if data["train"].classes != data["test"].classes:
        raise ConfigError(f"--source {source}: train and test have different classes")

    def items(images: Any) -> Iterator[tuple[Array, int]]:
        for index in np.random.default_rng(0).permutation(len(images)):
            try:
                image, label = images[int(index)]
            except (OSError, SyntaxError) as error:  # Pillow's own, of files that are no pictures
                path = images.samples[int(index)][0]
                raise ConfigError(f"{path}: cannot be read ({error}); replace it") from error
            yield np.asarray(image).transpose(2, 0, 1), label

    return {split: (len(images), items(images)) for split, images in data.items()}


READERS: dict[str, Callable[[Path, int], Items]] = {
    "cifar10": cifar10,
    "imagenet64": imagenet64,
    "folder": folder,
}


def _must_be(side: int, expected: int) -> None:
    if side != expected:
        raise ConfigError(f"--image-size {side}: these images are {expected} pixels wide")


def _archive(source: Path, name: str) -> Path:
    for suffix in (".npz", ""):
        path = source / f"{name}{suffix}"
        if path.is_file():
            return path
    raise ConfigError(f"--source {source}: {name} is missing; unpack the archives there")


def _batch(path: Path, side: int) -> tuple[Array, Array]:
    try:
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                data, labels = file["data"], file["labels"]
        else:
            with path.open("rb") as stream:
                content = pickle.load(stream)
            data, labels = content["data"], np.asarray(content["labels"])
    except _DAMAGE as error:
        raise ConfigError(f"{path}: cannot be read ({error}); unpack the archive again") from error
    expected = (len(labels), 3 * side**2)
    if data.shape != expected or data.dtype != np.uint8:
        raise ConfigError(
            f"{path}: holds {data.dtype} {data.shape}, expected uint8 {expected} of {len(labels)} "
            f"images of {side} pixels; unpack that archive"
        )
    return data, labels
