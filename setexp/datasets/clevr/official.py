"""The official CLEVR v1.0 release, unpacked, to stores of square pictures (`store.py`).

Pictures are resized with Pillow's bilinear filter (antialiased), aspect ratio not kept, as the
released DSPN code does (Thesis, 6.4.2). Work is split into parts over processes; a killed run goes
on from the parts it finished.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from setexp.datasets.array_store import LAYOUT, is_sound, kept, part_spans
from setexp.datasets.clevr.objects import Array, read_scenes, view_box
from setexp.datasets.clevr.store import PART_SIZE, Block, merge_parts, part_path, write_store
from setexp.datasets.clevr.vocabulary import SPLITS
from setexp.errors import ConfigError
from setexp.files import sole_writer


def real_store_path(root: Path, image_size: int, split: str) -> Path:
    """Where `prepare_official` puts a split ("train" or "val") under `root`."""
    return root / "clevr" / f"real-{image_size}" / f"{split}.h5"


def prepare_official(
    source: Path,
    root: Path,
    *,
    image_size: int,
    splits: tuple[str, ...] = SPLITS,
    workers: int | None = None,
    part_size: int = PART_SIZE,
) -> list[Path]:
    """Make the store of each split, unless it is there already and the scene file is the same.

    Args:
        source: the unpacked folder CLEVR_v1.0, which holds images/SPLIT and scenes.
        root: the data folder that `ClevrSets` is given.
        image_size: height and width of the stored pictures, in pixels.
        splits: which of "train" and "val" to prepare.
        workers: processes; None = one per core, 1 = this process alone.
        part_size: scenes per part, the unit of work and of resuming.

    Returns:
        One path per split.

    Raises:
        ConfigError: the release is incomplete, inconsistent or unreadable, or a process was killed.
    """
    source, root = source.expanduser(), root.expanduser()
    if image_size < 1:
        raise ConfigError(f"image_size={image_size}; must be at least 1")
    return [
        _prepare_split(source, root, split, image_size, workers or os.cpu_count() or 1, part_size)
        for split in splits
    ]


def _prepare_split(
    source: Path, root: Path, split: str, image_size: int, workers: int, part_size: int
) -> Path:
    from tqdm import tqdm

    scenes, content = _load_scenes(source, split)
    folder = source / "images" / split
    _check_names(scenes, folder)
    size = _picture_size(folder / scenes[0]["image_filename"])
    view_box(*size)
    text = f"{LAYOUT} {split} {image_size} {size} {content}"
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    about = {"key": key, "source": "real", "split": split, "width": size[0], "height": size[1]}
    path = real_store_path(root, image_size, split)
    with sole_writer(path):
        if kept(path, key):
            return path
        parts, tasks, unfinished = [], [], 0
        for start, stop in part_spans(len(scenes), part_size):
            parts.append(part_path(path, key, start))
            if not is_sound(parts[-1]):
                tasks.append((parts[-1], scenes[start:stop], folder, size, image_size))
                unfinished += stop - start
        with tqdm(total=len(scenes), desc=f"CLEVR {split}", unit="image", disable=None) as bar:
            bar.update(len(scenes) - unfinished)
            for finished in _write_parts(tasks, min(workers, len(tasks))):
                bar.update(finished)
        merge_parts(path, parts, about)
    return path


def _load_scenes(source: Path, split: str) -> tuple[list[dict[str, Any]], str]:
    """Scenes of a split and the hash of their file."""
    path = source / "scenes" / f"CLEVR_{split}_scenes.json"
    try:
        content = path.read_bytes()
        scenes = json.loads(content)["scenes"]
        names = [scene["image_filename"] for scene in scenes]
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); give the unpacked folder CLEVR_v1.0"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no CLEVR scene file ({type(error).__name__}: {error}); unpack it again"
        ) from error
    if not names:
        raise ConfigError(f"{path} lists no scenes; unpack it again")
    if len(set(names)) < len(names):
        raise ConfigError(f"{path} names a picture twice among {len(names)} scenes")
    return scenes, hashlib.sha256(content).hexdigest()


def _check_names(scenes: list[dict[str, Any]], folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is missing; give the unpacked folder CLEVR_v1.0")
    there = {entry.name for entry in os.scandir(folder) if entry.name.endswith(".png")}
    absent = [s["image_filename"] for s in scenes if s["image_filename"] not in there]
    if absent:
        raise ConfigError(
            f"{folder} lacks {len(absent)} of {len(scenes)} pictures that the scene file names,"
            f" {absent[0]} first; unpack the release again"
        )
    if len(there) != len(scenes):
        raise ConfigError(
            f"{folder} holds {len(there)} pictures, but the scene file lists {len(scenes)} scenes;"
            " both must come from one release"
        )


def _picture_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, SyntaxError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); unpack it again") from error


def read_picture(path: Path, size: tuple[int, int], image_size: int) -> Array:
    """An RGB or RGBA picture's 480x320 view, resized to a square: uint8 (3, H, W).

    Args:
        path: of a PNG file.
        size: (width, height) that it must have, in pixels.
        image_size: H and W.

    Raises:
        ConfigError: the file is missing, damaged or of another size.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); unpack it again") from error
    if rgb.size != size:
        raise ConfigError(f"{path} has {rgb.size} pixels, the first picture has {size}")
    square = (image_size, image_size)
    view = rgb.resize(square, Image.Resampling.BILINEAR, box=view_box(*size))
    return np.asarray(view).transpose(2, 0, 1)


def _write_part(
    part: Path, scenes: list[dict[str, Any]], folder: Path, size: tuple[int, int], image_size: int
) -> int:
    arrays = read_scenes(scenes, width=size[0], height=size[1])
    names = [scene["image_filename"] for scene in scenes]
    images = np.stack([read_picture(folder / name, size, image_size) for name in names])
    block = Block(images, arrays, [json.dumps(scene) for scene in scenes])
    write_store(part, [block], len(scenes), {})
    return len(scenes)


def _write_parts(tasks: list[tuple[Any, ...]], workers: int) -> Iterator[int]:
    """Number of scenes of each part, as it is finished; an error stops what has not begun."""
    if workers <= 1:
        for task in tasks:
            yield _write_part(*task)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        # a terminal's Ctrl-C reaches workers as well, which are to finish what they are at
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            jobs = [pool.submit(_write_part, *task) for task in tasks]
        finally:
            signal.signal(signal.SIGINT, handler)
        for job in as_completed(jobs):
            yield job.result()
    except BrokenProcessPool:
        raise ConfigError(
            "a worker was killed, perhaps for lack of memory; start again with fewer --workers,"
            " finished parts are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
