"""Bottom-up features: the official TSV files to one store of all images' object proposals.

A line of a file is an image: image_id, image_w, image_h, num_boxes, and boxes (n, 4) and features
(n, D) as float32 in base64. A store holds the rows of all images one after the other, without
padding. It is made of parts that survive a killed preparation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from setexp.datasets.array_store import (
    LAYOUT,
    Array,
    Store,
    is_sound,
    kept,
    parts_folder,
    remove_parts,
    write_store,
)
from setexp.errors import ConfigError
from setexp.files import sole_writer

MOST_BOXES = 100
PART_IMAGES = 500
_SAMPLE = 1 << 20  # bytes at a file's both ends that tell it from others
_FIELDS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
_PER_IMAGE = ("image_id", "size", "count")


class Image(NamedTuple):
    """One line: boxes (n, 4) as x1, y1, x2, y2 in pixels, features (n, D), both float32."""

    image_id: int
    size: tuple[int, int]
    boxes: Array
    features: Array


def prepare_proposals(
    path: Path, files: Sequence[Path], *, dtype: str | None = None, part_images: int = PART_IMAGES
) -> Store:
    """Make a store of TSV files, unless it is there already and the files are the same.

    Arrays: image_id (I,), size (I, 2) as width and height, count (I,) of boxes; boxes (R, 4)
    float32 and features (R, D), R being the sum of counts.

    Args:
        dtype: of stored features, float32 or float16; None for that of a store that is there, or
            else float32.
        part_images: images a part, the unit of resuming.

    Raises:
        ConfigError: a file is cut off, or its lines are not as they should be.
    """
    with sole_writer(path):
        dtype = dtype or _dtype_of(path) or "float32"
        key = _key(files, dtype)
        if store := kept(path, key):
            remove_parts(path)  # of a process that was killed between its last two lines
            return store
        folder = parts_folder(path, key)
        parts = [
            part
            for number, file in enumerate(files)
            for part in _parts(file, folder / f"{number:02d}", dtype, part_images)
        ]
        _merge(path, parts, {"key": key, "files": [file.name for file in files], "dtype": dtype})
        remove_parts(path)
    return Store(path)


def _dtype_of(path: Path) -> str | None:
    """What a store's features are kept as; None where there is none that can be read."""
    try:
        return Store(path).about.get("dtype")
    except ConfigError:
        return None


def read_line(line: bytes, where: str) -> Image:
    """One line of a TSV file.

    Raises:
        ConfigError: it is cut off, or numbers of boxes differ.
    """
    cut = f"{where} is cut off; download or copy the file again"
    fields = line.rstrip(b"\r\n").split(b"\t")
    if len(fields) != len(_FIELDS):
        raise ConfigError(f"{cut} ({len(fields)} of {len(_FIELDS)} fields)")
    try:
        image_id, width, height, count = (int(field) for field in fields[:4])
        boxes, features = (
            np.frombuffer(base64.b64decode(field, validate=True), "<f4") for field in fields[4:]
        )
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"{cut} ({str(error).splitlines()[0]})") from None
    where = f"{where}, image {image_id}"
    if not 1 <= count <= MOST_BOXES:
        raise ConfigError(f"{where}: num_boxes={count}; there must be 1 to {MOST_BOXES}")
    if min(width, height) < 1:
        raise ConfigError(f"{where}: a size of {width} x {height} pixels")
    if boxes.size != 4 * count:
        raise ConfigError(f"{where}: num_boxes={count}, but boxes hold {boxes.size / 4:g}")
    if features.size == 0 or features.size % count:
        raise ConfigError(
            f"{where}: num_boxes={count}, but its {features.size} features are not so many rows"
        )
    rows = features.reshape(count, -1)
    return Image(image_id, (width, height), boxes.reshape(count, 4), rows)


def line_of(image: Image) -> bytes:
    """The line that `read_line` reads."""
    numbers = (image.image_id, *image.size, len(image.boxes))
    arrays = (np.ascontiguousarray(a, "<f4").tobytes() for a in (image.boxes, image.features))
    fields = [*(str(n).encode() for n in numbers), *(base64.b64encode(a) for a in arrays)]
    return b"\t".join(fields) + b"\n"


def _parts(file: Path, folder: Path, dtype: str, size: int) -> Iterator[Store]:
    """The parts of a file in order; those that are there and undamaged are not made again."""
    from tqdm import tqdm

    total, offset, number, line = file.stat().st_size, 0, 0, 0
    with (
        file.open("rb") as stream,
        tqdm(total=total, desc=file.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while offset < total:
            path = folder / f"{number:05d}.h5"
            if is_sound(path):
                part = Store(path)
            else:
                stream.seek(offset)
                part = _write_part(path, stream, file, line, dtype, size)
            end, line = part.about["end"], part.about["lines"]
            bar.update(end - offset)
            offset, number = end, number + 1
            yield part


def _write_part(
    path: Path, stream: BinaryIO, file: Path, line: int, dtype: str, size: int
) -> Store:
    images: list[Image] = []
    while len(images) < size and (text := stream.readline()):
        line += 1
        images.append(read_line(text, f"{file}: line {line}"))
        if images[-1].features.shape[1] != images[0].features.shape[1]:
            raise ConfigError(
                f"{file}: line {line} has {images[-1].features.shape[1]} features a box, earlier"
                f" ones {images[0].features.shape[1]}; they are of different models"
            )
    block: dict[str, Array] = {
        "image_id": np.array([image.image_id for image in images], np.int64),
        "size": np.array([image.size for image in images], np.int32),
        "count": np.array([len(image.boxes) for image in images], np.int64),
        "boxes": np.concatenate([image.boxes for image in images]),
        "features": np.concatenate([image.features for image in images]).astype(dtype),
    }
    about = {"end": stream.tell(), "lines": line}
    return write_store(path, [block], {name: len(rows) for name, rows in block.items()}, about)


def _merge(path: Path, parts: list[Store], about: dict[str, object]) -> None:
    names = (*_PER_IMAGE, "boxes", "features")
    widths = {part.mapped("features").shape[1] for part in parts}
    if len(widths) > 1:
        raise ConfigError(
            f"{path.name}: files with {sorted(widths)} features a box; use one model's"
        )
    images = np.concatenate([part.array("image_id") for part in parts])
    if len(np.unique(images)) < len(images):
        values, times = np.unique(images, return_counts=True)
        raise ConfigError(
            f"{path.name}: image {values[times > 1][0]} is in the TSV files {times.max()} times;"
            " name each file once"
        )
    rows = sum(int(part.array("count").sum()) for part in parts)
    counts = dict.fromkeys(_PER_IMAGE, len(images)) | {"boxes": rows, "features": rows}
    blocks = ({name: part.array(name) for name in names} for part in parts)
    write_store(path, blocks, counts, about)


def _key(files: Sequence[Path], dtype: str) -> str:
    """Short hash of what a store would be made from, without reading all of it."""
    digest = hashlib.sha256(f"{LAYOUT} {dtype}".encode())
    for file in files:
        size = file.stat().st_size
        if not size:
            raise ConfigError(f"{file} is empty; download or copy it again")
        digest.update(f" {file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            stream.seek(max(0, size - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:12]
