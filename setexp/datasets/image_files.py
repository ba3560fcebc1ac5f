"""Stores of labelled images: one HDF5 file per data set, its images mapped into memory.

`scripts/prepare_images.py` makes them; nothing that reads one knows what it was made from.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.array_store import Array, Store, write_store
from setexp.errors import ConfigError

SPLITS = ("train", "test")
SIDES = {"cifar10": 32, "imagenet64": 64}  # pixels, of the data sets that have stores
_BLOCK = 1000  # images read and written at a time
_IMAGENET_CLASSES = 1000

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
    """Write a store, whole or not at all; that others may write it, too, is the caller's concern.

    Args:
        origin: what the images were made from, in a few words.
        sources: see `Items`.

    Raises:
        OSError: it cannot be written.
    """
    counts = {f"{s}/{name}": n for s, (n, _) in sources.items() for name in Split._fields}
    write_store(path, _blocks(sources), counts, {"origin": origin})


def _blocks(sources: Items) -> Iterator[dict[str, Array]]:
    from tqdm import tqdm

    total = sum(count for count, _ in sources.values())
    with tqdm(total=total, desc="images", unit="image", disable=None) as bar:
        for split, (_, items) in sources.items():
            while block := list(islice(items, _BLOCK)):
                images, labels = zip(*block, strict=True)
                yield {
                    f"{split}/images": np.ascontiguousarray(images),
                    f"{split}/labels": np.array(labels, np.int64),
                }
                bar.update(len(block))


def cifar10(source: Path, side: int) -> Items:
    """The official archive's folder `cifar-10-batches-py`, checked by torchvision.

    Raises:
        ConfigError: it is incomplete or damaged.
    """
    from torchvision.datasets import CIFAR10

    _must_be(side, SIDES["cifar10"])
    sources: Items = {}
    for split in SPLITS:
        try:
            data = CIFAR10(str(source.resolve().parent), train=split == "train", download=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split()).partition(". You can")[0]
            raise ConfigError(
                f"--source {source}: {reason}; name the unpacked folder cifar-10-batches-py"
            ) from None
        items = zip(data.data.transpose(0, 3, 1, 2), data.targets, strict=True)
        sources[split] = (len(data.targets), items)
    return sources


def imagenet64(source: Path, side: int) -> Items:
    """The official 64 x 64 archives' files: train_data_batch_1 to 10 and val_data.

    Labels are read first, images file by file as they are needed: all together take 16 GB.

    Raises:
        ConfigError: one is missing, damaged, or of images of another size.
    """
    _must_be(side, SIDES["imagenet64"])
    names = {"train": [f"train_data_batch_{i}" for i in range(1, 11)], "test": ["val_data"]}
    labels = {
        split: {path: _labels(path) for path in [_archive(source, name) for name in names[split]]}
        for split in SPLITS
    }

    def items(split: str) -> Iterator[tuple[Array, int]]:
        for path, classes in labels[split].items():
            for row, label in zip(_rows(path, len(classes), side), classes, strict=True):
                # a view would keep the whole file in memory while the next one is read
                yield row.reshape(3, side, side).copy(), int(label) - 1  # they count from 1
            del row

    return {split: (sum(map(len, labels[split].values())), items(split)) for split in SPLITS}


def folder(source: Path, side: int) -> Items:
    """Folders train/CLASS/ and test/CLASS/ of pictures, cut square and resized.

    Where test/ has not the classes of train/, as that of ImageNet, which has none, val/ is tested.
    Images are stored in a random order, always the same, so that the first few are of all classes.

    Raises:
        ConfigError: a folder is missing or empty, the classes differ, or a picture is damaged.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Resize

    train, tests = source / "train", (source / "test", source / "val")
    test = next((place for place in tests if _classes(place) == _classes(train)), None)
    if test is None:
        raise ConfigError(
            f"--source {source}: neither test/ nor val/ has the classes of train/, a folder each"
        )
    shape = Compose([Resize(side), CenterCrop(side)])
    try:
        data = {
            split: ImageFolder(str(place), shape)
            for split, place in zip(SPLITS, (train, test), strict=True)
        }
    except FileNotFoundError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"--source {source}: {reason}") from None

    def items(images: Any) -> Iterator[tuple[Array, int]]:
        def read(index: np.int64) -> tuple[Array, int]:
            try:
                image, label = images[int(index)]
            except (OSError, SyntaxError) as error:  # Pillow's own, of files that are no pictures
                path = images.samples[int(index)][0]
                raise ConfigError(f"{path}: cannot be read ({error}); replace it") from error
            return np.asarray(image).transpose(2, 0, 1), label

        order = np.random.default_rng(0).permutation(len(images))
        with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
            for start in range(0, len(order), _BLOCK):
                yield from pool.map(read, order[start : start + _BLOCK])

    return {split: (len(images), items(images)) for split, images in data.items()}


READERS: dict[str, Callable[[Path, int], Items]] = {
    "cifar10": cifar10,
    "imagenet64": imagenet64,
    "folder": folder,
}


def _must_be(side: int, expected: int) -> None:
    if side != expected:
        raise ConfigError(
            f"--format: images of that format are {expected} pixels wide, not {side}; name another"
        )


def _classes(place: Path) -> list[str]:
    return (
        sorted(entry.name for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []
    )


def _archive(source: Path, name: str) -> Path:
    for suffix in (".npz", ""):
        path = source / f"{name}{suffix}"
        if path.is_file():
            return path
    raise ConfigError(f"--source {source}: {name} is missing; unpack the archives there")


def _labels(path: Path) -> Array:
    """Labels of the images of an archive's file, from 1, (S,)."""
    labels = _array(path, "labels")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise _damage(
            path, f"labels are {labels.dtype} {labels.shape}, expected a list of integers"
        )
    if labels.min() < 1 or labels.max() > _IMAGENET_CLASSES:
        found = f"{labels.min()} to {labels.max()}, expected 1 to {_IMAGENET_CLASSES}"
        raise _damage(path, f"labels are {found}")
    return labels


def _rows(path: Path, count: int, side: int) -> Array:
    """Images of an archive's file, uint8 (S, 3 * side * side)."""
    data, expected = _array(path, "data"), (count, 3 * side**2)
    if data.shape != expected or data.dtype != np.uint8:
        found = f"{data.dtype} {data.shape}, expected uint8 {expected}"
        raise _damage(path, f"holds {found} of {count} images of {side} pixels")
    return data


def _array(path: Path, name: str) -> Array:
    """One of the arrays of an archive's file; of an `.npz` file, nothing else is read."""
    try:
        with path.open("rb") as stream:
            packed = path.suffix == ".npz"
            content = np.load(stream, allow_pickle=False) if packed else pickle.load(stream)
            return np.asarray(content[name])
    except Exception as error:  # unpickling damaged files raises anything
        raise _damage(path, f"cannot be read ({type(error).__name__}: {error})") from error


def _damage(path: Path, what: str) -> ConfigError:
    line = " ".join(what.split())
    return ConfigError(f"{path}: {line}; unpack the archive again")
