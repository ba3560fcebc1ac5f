"""Where labelled images come from: MNIST, CIFAR-10 or 64 x 64 ImageNet, or procedural pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from setexp.datasets.array_store import Array
from setexp.datasets.image_files import SIDES, SPLITS, read_images, store_path, write_images
from setexp.datasets.mnist_images import load_mnist
from setexp.datasets.procedural_pictures import draw_pictures
from setexp.datasets.sources import SOURCES, image_count
from setexp.errors import ConfigError, one_of
from setexp.files import made_once

_SIZES = {  # procedural pictures of a split, as many as there are real ones
    "cifar10": {"train": 50_000, "test": 10_000},
    "imagenet64": {"train": 1_281_167, "test": 50_000},
}
_CLASSES = {"cifar10": 10, "imagenet64": 1000}
_VERSION = 1  # of the procedural pictures
_BLOCK = 1_000  # pictures drawn together, so that the first few do not depend on the count

Counts = dict[str, int | None]
Loaded = dict[str, tuple[NDArray[np.uint8], Tensor]]


def image_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width of the images of a name.

    Raises:
        ConfigError: an unknown name.
    """
    if name == "mnist":
        return (1, 28, 28)
    one_of("dataset.images", name, ("mnist", *SIDES))
    return (3, SIDES[name], SIDES[name])


def load_images(
    name: str, root: str, source: str, counts: Counts, seed: int
) -> tuple[Loaded, str, str]:
    """Images and labels of the splits "train" and "test".

    Args:
        name: mnist, cifar10 or imagenet64.
        root: the data folder, where procedural images are kept as well once they are drawn.
        source: `real`, `procedural`, or `auto`: real where the files are. See `load_mnist`.
        counts: images of each split, from the first; None for all.
        seed: of procedural images.

    Returns:
        By split, images uint8 (S, C, H, W), perhaps mapped from a file, and labels int64 (S,); the
        source used; and a text that tells real files from others.

    Raises:
        ConfigError: an unknown source, missing or damaged files, too large a count, or more classes
            than the name has.
    """
    if name == "mnist":
        loaded: Loaded = {}
        for split, count in counts.items():
            digits, label, source = load_mnist(
                root, source, train=split == "train", count=count, seed=seed
            )
            loaded[split] = (digits.unsqueeze(1).numpy(), label)
        return loaded, source, ""
    one_of("dataset.source", source, SOURCES)
    path = store_path(root, name)
    drawn = source == "procedural" or (source == "auto" and not path.exists())
    if drawn:
        sizes = {
            split: image_count(split, counts[split], most) for split, most in _SIZES[name].items()
        }
        path = _procedural(root, name, sizes, seed)
    elif not path.exists():
        raise ConfigError(
            f"dataset.source=real, but {path} is missing; make it with: python "
            f"scripts/prepare_images.py {name} --source FOLDER --root {root}"
        )
    store = read_images(path)
    loaded = {}
    for split, (images, labels) in store.splits.items():
        n = image_count(split, counts[split], len(labels))
        if labels.min() < 0 or labels.max() >= _CLASSES[name]:
            raise ConfigError(
                f"dataset.images={name}: {path} has classes {labels.min()} to {labels.max()}, "
                f"{name} has 0 to {_CLASSES[name] - 1}; prepare it from other images"
            )
        loaded[split] = (images[:n], torch.from_numpy(labels[:n]))
    return (loaded, "procedural", "") if drawn else (loaded, "real", store.content)


def _procedural(root: str, name: str, sizes: dict[str, int], seed: int) -> Path:
    """Store of the first procedural pictures of each split, drawn where it is missing."""
    about = "+".join(str(sizes[split]) for split in SPLITS)
    path = store_path(root, f"procedural-{name}-{about}-seed{seed}-{_VERSION}")
    drawn = {split: (n, _drawn(name, split, n, seed)) for split, n in sizes.items()}
    return made_once(path, lambda: write_images(path, "drawn", drawn))


def _drawn(name: str, split: str, count: int, seed: int) -> Iterator[tuple[Array, int]]:
    generator = torch.Generator().manual_seed(2 * seed + int(split == "train"))
    for start in range(0, count, _BLOCK):
        drawn = torch.randint(_CLASSES[name], (_BLOCK,), generator=generator)
        pictures = draw_pictures(drawn, _CLASSES[name], SIDES[name], generator=generator)
        yield from islice(zip(pictures.numpy(), drawn.tolist(), strict=True), count - start)
