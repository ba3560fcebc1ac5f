"""Where the 28 x 28 digits come from: MNIST's files, a download, or procedural digits.

The files are the four IDX files of LeCun et al.'s MNIST in `<root>/MNIST/raw`, as torchvision
leaves them there, uncompressed or as the original `.gz`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.digits import SIDE, draw_digits
from setexp.datasets.sources import SOURCES, image_count
from setexp.errors import ConfigError, one_of

TRAIN_SIZE, TEST_SIZE = 60_000, 10_000

_BLOCK = 1_000  # procedural digits drawn together, so that the first few do not depend on the count
_MD5 = {  # of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def load_mnist(
    root: str, source: str, *, train: bool, count: int | None, seed: int
) -> tuple[Tensor, Tensor, str]:
    """Images and labels of one split, and the source actually used.

    Args:
        root: the folder that holds `MNIST/raw`.
        source: `real` reads the four files and downloads them through torchvision where they are
            missing; `procedural` draws digits; `auto` is `real` where the files are present and
            `procedural` where there are none, and never touches the network.
        train: the training split (60000) or the test split (10000).
        count: images, from the first; None for all.
        seed: of the procedural digits; the two splits differ under any seed.

    Returns:
        Images (N, 28, 28) uint8, labels (N,) int64, and `real` or `procedural`.

    Raises:
        ConfigError: unknown source, too large a count, incomplete or corrupt files, no download.
    """
    one_of("dataset.source", source, SOURCES)
    total = TRAIN_SIZE if train else TEST_SIZE
    count = image_count("train" if train else "test", count, total)
    folder = Path(root).expanduser() / "MNIST" / "raw"
    if source == "procedural":
        return *_procedural(train, count, seed), "procedural"
    missing = [name for name in _MD5 if not _variants(folder, name)]
    if missing and source == "real":
        _download(folder)
    elif len(missing) == len(_MD5):
        return *_procedural(train, count, seed), "procedural"
    elif missing:
        raise ConfigError(
            f"dataset.source=auto: {folder} lacks {', '.join(missing)}; add the missing files, "
            "or set dataset.source=procedural"
        )
    prefix = "train" if train else "t10k"
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", (total, SIDE, SIDE))
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", (total,))
    return images[:count].clone(), labels[:count].long(), "real"


@lru_cache(maxsize=2)
def _procedural(train: bool, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The first `count` procedural digits of a split; kept, since all of them take seconds."""
    generator = torch.Generator().manual_seed(2 * seed + int(train))
    images, labels = [], []
    for _ in range(0, count, _BLOCK):
        labels.append(torch.randint(10, (_BLOCK,), generator=generator))
        images.append(draw_digits(labels[-1], generator=generator))
    return torch.cat(images)[:count], torch.cat(labels)[:count]


def _variants(folder: Path, name: str) -> list[Path]:
    """The existing forms of a file, the uncompressed one first."""
    return [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read an IDX file of bytes: magic 0x08 and the number of dimensions, the sizes, the data."""
    path = _variants(folder, name)[0]
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {_remedy(folder)}") from error
    header = np.array([0x800 + len(shape), *shape], dtype=">u4").tobytes()
    length = len(header) + int(np.prod(shape))
    if not content.startswith(header) or len(content) != length:
        raise ConfigError(
            f"{path}: is truncated or not MNIST's (expected {length} bytes of sizes {shape}, found "
            f"{len(content)} bytes); {_remedy(folder)}"
        )
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != _MD5[name]:
        raise ConfigError(
            f"{path}: is damaged, the MD5 of its content is {found}, not {_MD5[name]}; "
            f"{_remedy(folder)}"
        )
    data = np.frombuffer(content, dtype=np.uint8, offset=len(header))
    return torch.from_numpy(data.reshape(shape).copy())


def _download(folder: Path) -> None:
    """Fetch the four files through torchvision, which checks them, and move them into place."""
    try:
        from torchvision.datasets import MNIST

        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            MNIST(scratch, download=True)
            for name in _MD5:
                os.replace(Path(scratch) / "MNIST" / "raw" / name, folder / name)
    except (ImportError, OSError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(
            f"dataset.source=real: MNIST is not in {folder} and could not be downloaded ({cause}); "
            f"{_remedy(folder)}"
        ) from error


def _remedy(folder: Path) -> str:
    return f"put {', '.join(_MD5)} (or .gz) in {folder}, or set dataset.source=procedural"
