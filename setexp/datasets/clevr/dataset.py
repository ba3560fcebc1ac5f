"""CLEVR pictures with sets of their objects (Thesis, 6.4.2 and 6.4.3; iDSPN, Tables 3 and 7)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.clevr.foreground import load_masks, mask_path, procedural_masks, unpack
from setexp.datasets.clevr.objects import BOX_DIM, STATE_DIM
from setexp.datasets.clevr.official import real_store_path
from setexp.datasets.clevr.procedural import procedural_store, recipe_here
from setexp.datasets.clevr.scenes import check_objects
from setexp.datasets.clevr.store import Store
from setexp.datasets.clevr.vocabulary import SCENES, SPLITS, sample_mark
from setexp.datasets.image_rows import Pictures, fits
from setexp.datasets.passes import batch_rows
from setexp.datasets.sources import SOURCES
from setexp.errors import ConfigError, one_of
from setexp.sets import Batch, SetBatch

_RESIDENT = ("auto", "always", "never")
_ELEMENT_DIMS = {"state": STATE_DIM, "boxes": BOX_DIM}
_STORED_AS = {"train": "train", "val": "val", "test": "val"}
_log = logging.getLogger(__name__)


class ClevrSets:
    """Images with the state vectors or boxes of their objects, official or procedural.

    Splits: "train" is the official training split, "test" the official validation split, and
    "val", which is used during training, the first tenth of "test", as in the released DSPN code.

    Args:
        root: data folder; holds prepared CLEVR and receives procedural stores.
        source: "real" = what `scripts/prepare_clevr.py` made; "procedural" = own renderer, once
            per setting; "auto" = real where both of its splits are prepared, else procedural.
        target: "state" (coordinates / 3 and one-hots) or "boxes" (shares of width and height).
        image_size: height and width in pixels.
        set_size: rows of a padded set.
        element_dim: 18 for states, 4 for boxes; anything else is refused.
        min_objects, max_objects: of procedural scenes.
        train_size, test_size: images used of the two splits, from the first on; None = all of a
            real release, or 70,000 and 15,000 procedural ones. Of these, other sizes have other
            scenes in the last, incomplete thousand.
        data_seed: of procedural scenes.
        resident: "always" or "never" keep all images of a split in the device's memory; "auto" =
            where they take less than 1 GB of a CPU's or a quarter of a GPU's free memory.
        foreground: deliver the pictures without their background as well.

    Batches: input (B, 3, H, W) in [0, 1], target `SetBatch` x (B, set_size, element_dim), float32;
    with `foreground`, aux "picture": the input, black where no object is seen.

    Raises:
        ConfigError: a wrong setting, or real data that is missing or too small.
    """

    def __init__(
        self,
        *,
        root: str,
        source: str,
        target: str,
        image_size: int,
        set_size: int,
        element_dim: int,
        min_objects: int,
        max_objects: int,
        train_size: int | None,
        test_size: int | None,
        data_seed: int,
        resident: str,
        foreground: bool = False,
    ) -> None:
        one_of("dataset.source", source, SOURCES)
        one_of("dataset.target", target, _ELEMENT_DIMS)
        one_of("dataset.resident", resident, _RESIDENT)
        if element_dim != _ELEMENT_DIMS[target]:
            raise ConfigError(
                f"dataset.element_dim={element_dim} does not fit dataset.target={target},"
                f" whose elements have {_ELEMENT_DIMS[target]} numbers"
            )
        sizes = {"image_size": image_size, "train_size": train_size, "test_size": test_size}
        for key, size in sizes.items():
            if size is not None and size < 1:
                raise ConfigError(f"dataset.{key}={size}; must be at least 1")
        self.target, self.set_size, self.resident = target, set_size, resident
        self.foreground = foreground
        self.device = torch.device("cpu")
        self._root = Path(root).expanduser()
        self._image_size = image_size
        self._stores: dict[str, Store] = {}
        self._loaded: dict[str, _Split] = {}
        self.source = self._choose(source)
        wanted = {"train": train_size, "val": test_size}
        if self.source == "real":
            self._counts = {split: self._open_real(split, wanted[split]) for split in SPLITS}
        else:
            check_objects(min_objects, max_objects, set_size)
            self._counts = {split: wanted[split] or SCENES[split] for split in SPLITS}
            looks = (image_size, min_objects, max_objects, data_seed)
            self._recipe = recipe_here(self._root, self._counts, looks)

    @property
    def fingerprint(self) -> str:
        """Short hash of what determines images and targets; needs no rendering."""
        kind = f"clevr-{self.source}-"
        if self.source == "real":
            content = [self._stores[split].digest for split in SPLITS]
            if mark := sample_mark({s: len(self._stores[s]) for s in SPLITS}):
                kind = f"clevr-real {mark} "
            if self.foreground:
                masks = [mask_path(self._stores[split].path) for split in SPLITS]
                content += [hashlib.sha256(path.read_bytes()).hexdigest() for path in masks]
        else:
            content = [self._recipe.key]
        text = " ".join(map(str, (self.target, self.set_size, *self._counts.values(), *content)))
        return kind + hashlib.sha256(text.encode()).hexdigest()[:10]

    def to(self, device: torch.device) -> ClevrSets:
        """Deliver batches on this device from now on; what is resident is loaded anew when used."""
        if torch.device(device) != self.device:
            self.device = torch.device(device)
            self._loaded.clear()
        return self

    def prepare(self, split: str) -> None:
        """Render a procedural split and its masks where they are missing: an hour at most."""
        name = _stored_as(split)
        if name not in self._stores:
            path = procedural_store(self._root, name, self._counts[name], self._recipe)
            self._stores[name] = Store(path)
        if self.foreground and self.source == "procedural":
            procedural_masks(self._stores[name], name, self._recipe)

    def sizes(self, split: str) -> int:
        """Images in one pass over "train", "val" or "test"."""
        count = self._counts[_stored_as(split)]
        return max(1, count // 10) if split == "val" else count

    def batches(
        self,
        split: str,
        batch_size: int,
        generator: torch.Generator,
        *,
        start: int = 0,
        shuffle: bool,
        drop_last: bool,
    ) -> Iterator[Batch]:
        """One pass in an order drawn from `generator` at the call. See `setexp.datasets`."""
        rows = batch_rows(self.sizes(split), batch_size, generator, start, shuffle, drop_last)
        return self._split(split).batches([some.to(self.device) for some in rows])

    def _choose(self, source: str) -> str:
        paths = [real_store_path(self._root, self._image_size, split) for split in SPLITS]
        masks = [mask_path(path) for path in paths if self.foreground]
        missing = [path for path in [*paths, *masks] if not path.exists()]
        if source == "real" and missing and missing[0] in masks:
            raise ConfigError(
                f"dataset.source=real, but {missing[0]} is missing: the official release has no "
                "masks of its objects; see docs/data.md, or use dataset.source=procedural"
            )
        if source == "real" and missing:
            raise ConfigError(
                f"dataset.source=real, but {missing[0]} is missing; make it with: python"
                " scripts/prepare_clevr.py --source PATH/TO/CLEVR_v1.0"
                f" --root {self._root} --image-size {self._image_size}"
            )
        if source != "auto":
            return source
        others = sorted((self._root / "clevr").glob("real-*/*.h5"))
        if missing and others:
            _log.warning("CLEVR is procedural: %s exists, but not %s", others[0], missing[0])
        return "procedural" if missing else "real"

    def _open_real(self, split: str, wanted: int | None) -> int:
        """Number of images to use of a prepared split."""
        store = Store(real_store_path(self._root, self._image_size, split))
        key = "train_size" if split == "train" else "test_size"
        if wanted is not None and wanted > len(store):
            raise ConfigError(
                f"dataset.{key}={wanted}, but {store.path} has {len(store)} images; give null for"
                " all of them, or dataset.source=procedural"
            )
        most = int(store.array("mask", 0, wanted).sum(1).max())
        if most > self.set_size:
            raise ConfigError(
                f"dataset.set_size={self.set_size}, but {store.path} has scenes of {most} objects; "
                f"set it to {most}, or choose dataset.source=procedural"
            )
        self._stores[split] = store
        return wanted or len(store)

    def _split(self, split: str) -> _Split:
        name = _stored_as(split)
        if name not in self._loaded:
            self.prepare(split)
            store, count = self._stores[name], self._counts[name]
            resident = self.resident == "always" or (
                self.resident == "auto" and fits(store.images[:count].nbytes, self.device)
            )
            self._loaded[name] = _Split(
                Pictures(store.images[:count], self.device, resident=resident),
                _labels(store.array(self.target, 0, count), self.set_size, self.device),
                _labels(store.array("mask", 0, count), self.set_size, self.device),
                self._masks(name) if self.foreground else None,
            )
        return self._loaded[name]

    def _masks(self, name: str) -> Tensor:
        store, count = self._stores[name], self._counts[name]
        path = mask_path(store.path)
        if self.source == "procedural":
            path = procedural_masks(store, name, self._recipe)
        packed = load_masks(path, (count, *store.images.shape[1:]))
        return torch.from_numpy(packed).to(self.device)


class _Split:
    """One stored split on a device."""

    def __init__(self, pictures: Pictures, x: Tensor, mask: Tensor, shown: Tensor | None) -> None:
        self.pictures, self.x, self.mask, self.shown = pictures, x, mask, shown

    def batches(self, rows: list[Tensor]) -> Iterator[Batch]:
        for some, images in zip(rows, self.pictures.batches(rows), strict=True):
            target = SetBatch(self.x.index_select(0, some), self.mask.index_select(0, some))
            images, aux = images.float().div_(255), {}
            if self.shown is not None:
                shown = unpack(self.shown.index_select(0, some), images.shape[-1])
                aux["picture"] = images * shown
            yield Batch(input=images, target=target, aux=aux)


def _stored_as(split: str) -> str:
    if split not in _STORED_AS:
        raise ConfigError(f"split {split!r}: CLEVR has {', '.join(_STORED_AS)}")
    return _STORED_AS[split]


def _labels(rows: np.ndarray, set_size: int, device: torch.device) -> Tensor:
    """Padded rows (S, 10, ...) on the device, cut or padded with zeros to (S, set_size, ...)."""
    padded = np.zeros((len(rows), set_size, *rows.shape[2:]), dtype=np.float32)
    kept = min(set_size, rows.shape[1])
    padded[:, :kept] = rows[:, :kept]
    return torch.from_numpy(padded).to(device)
