"""Questions about sets of objects (Thesis, 5.6.4): CLEVR's scene descriptions instead of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from setexp.datasets.clevr.questions.arrays import OBJECT_DIM, QuestionArrays, first_scenes
from setexp.datasets.clevr.questions.program import ANSWERS
from setexp.datasets.clevr.questions.source import (
    Recipe,
    official,
    official_paths,
    procedural,
)
from setexp.datasets.clevr.questions.wording import vocabulary
from setexp.datasets.clevr.scenes import check_objects
from setexp.datasets.clevr.vocabulary import SCENES, sample_mark
from setexp.datasets.passes import batch_rows, draws_by_batch
from setexp.datasets.sources import SOURCES
from setexp.errors import ConfigError, one_of
from setexp.ops.rows import take_rows
from setexp.sets import Batch, SetBatch

_STORED_AS = {"train": "train", "test": "val"}


class ClevrQuestions:
    """Objects of a scene, a question about them and its answer.

    An element has 7 numbers: x, y, z in world units, and positions of colour, material, shape and
    size counted from 1. Split "test" is the official validation split, as in the released code.

    Args:
        root: data folder; holds the unpacked `CLEVR_v1.0` and receives generated questions.
        source: "real" = the release's scene and question files; "procedural" = our generator;
            "auto" = real where all four files are, procedural where there are none.
        set_size: rows of a padded set; the released code has 12, though scenes have at most 10.
        element_dim: 7; anything else is refused.
        words: size of the vocabulary, padding included; the release has 80 words, ";" and "?".
        classes: 28 answers; anything else is refused.
        pad: "batch" pads questions to the longest of each batch, so that shapes change from batch
            to batch (`ragged`), as the released code does; "full" to the longest of all.
        min_objects, max_objects: of generated scenes.
        train_size, test_size: scenes of the two splits whose questions are used, from the first
            on; None = all of the release, or 70,000 and 15,000 generated ones. Of these, other
            sizes have other scenes in the last, incomplete thousand.
        data_seed: of generated scenes and questions.

    Batches: input and target are the same `SetBatch`, x (B, set_size, 7), objects in a new random
    order in every pass, padding last; `aux["question"]` (B, L) int64 in reverse, padding (0)
    first; `aux["label"]` (B,) int64, the answer's position in `ANSWERS`.

    Raises:
        ConfigError: a bad argument; files that are missing or do not fit together.
    """

    def __init__(
        self,
        *,
        root: str,
        source: str,
        set_size: int,
        element_dim: int,
        words: int,
        classes: int,
        pad: str,
        min_objects: int,
        max_objects: int,
        train_size: int | None,
        test_size: int | None,
        data_seed: int,
    ) -> None:
        for key, value, only in (
            ("element_dim", element_dim, OBJECT_DIM),
            ("classes", classes, len(ANSWERS)),
        ):
            if value != only:
                raise ConfigError(f"dataset.{key}={value}: CLEVR questions have {only}")
        one_of("dataset.source", source, SOURCES)
        one_of("dataset.pad", pad, ("batch", "full"))
        check_objects(min_objects, max_objects)
        sizes = {"train": train_size, "test": test_size}
        for split, size in sizes.items():
            if size is not None and size < 1:
                raise ConfigError(f"dataset.{split}_size={size}: at least 1")
        self.set_size, self.ragged, self.device = set_size, pad == "batch", torch.device("cpu")
        folder = Path(root).expanduser()
        self.source = _choose(folder, source)
        if self.source == "real":
            whole, known, key = official(folder)
            mark = sample_mark({split: len(rows.size) for split, rows in whole.items()})
            arrays = {split: whole[_STORED_AS[split]] for split in sizes}
            for split, size in sizes.items():
                there = len(arrays[split].size)
                if size is not None and size > there:
                    raise ConfigError(
                        f"dataset.{split}_size={size}: the release in {root} has {there} scenes;"
                        " give null for all of them"
                    )
        else:
            recipe = Recipe(min_objects, max_objects, data_seed)
            known, key, mark = vocabulary(), recipe.key, ""
            arrays = {
                split: procedural(
                    folder, _STORED_AS[split], size or SCENES[_STORED_AS[split]], recipe
                )
                for split, size in sizes.items()
            }
        if len(known) >= words:
            raise ConfigError(
                f"dataset.words={words}: there are {len(known)} words and padding; give at least"
                f" {len(known) + 1}"
            )
        self.vocabulary = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:10]
        arrays = {split: first_scenes(arrays[split], size) for split, size in sizes.items()}
        self._splits = {split: _Split(rows, set_size) for split, rows in arrays.items()}
        counts = "+".join(str(len(rows.size)) for rows in arrays.values())
        self.fingerprint = f"clevr-questions-1 {self.source} {key} {counts} pad {set_size} {pad}"
        self.fingerprint += f" {mark} {key}" if mark else ""

    def to(self, device: torch.device) -> ClevrQuestions:
        """Move everything; batches appear on this device from now on."""
        self.device = device
        for split in self._splits.values():
            split.to(device)
        return self

    def sizes(self, split: str) -> int:
        """Questions in one pass over `train` or `test`."""
        return len(self._split(split).answer)

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
        """One pass; `shuffle` is the order of questions, that of objects is always random."""
        count, draws = self.sizes(split), draws_by_batch(generator, start)
        parts = batch_rows(count, batch_size, generator, start, shuffle, drop_last)
        return self._produce(self._split(split), parts, draws)

    def _produce(
        self, split: _Split, parts: list[Tensor], draws: Callable[[int], torch.Generator]
    ) -> Iterator[Batch]:
        """Batches of the given questions; see `draws_by_batch`."""
        lengths = [split.words.shape[1]] * len(parts)
        if self.ragged and parts:  # read from the device at once
            longest = torch.stack([split.length.index_select(0, rows).amax() for rows in parts])
            lengths = longest.tolist()
        for at, (rows, length) in enumerate(zip(parts, lengths, strict=True)):
            objects = _shuffled(split, split.scene.index_select(0, rows), draws(at))
            question = split.words.index_select(0, rows)[:, :length].flip(1).long()
            label = split.answer.index_select(0, rows)
            yield Batch(objects, objects, {"question": question, "label": label})

    def _split(self, split: str) -> _Split:
        if split not in self._splits:
            raise ConfigError(f"split {split}: CLEVR questions have {', '.join(self._splits)}")
        return self._splits[split]


class _Split:
    """One split's tensors; see `QuestionArrays`."""

    def __init__(self, arrays: QuestionArrays, set_size: int) -> None:
        most = int(arrays.size.max())
        if most > set_size:
            raise ConfigError(
                f"dataset.set_size={set_size}: there are scenes of {most} objects; set it to "
                f"{most}, or choose dataset.source=procedural"
            )
        objects = torch.from_numpy(arrays.objects[:, :set_size])
        room = max(0, set_size - objects.shape[1])
        self.objects = torch.nn.functional.pad(objects, (0, 0, 0, room))
        self.count = torch.from_numpy(arrays.size)
        self.words = torch.from_numpy(arrays.words)
        self.length = torch.from_numpy(arrays.length)
        self.answer = torch.from_numpy(arrays.answer)
        self.scene = torch.from_numpy(arrays.scene)

    def to(self, device: torch.device) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor.to(device))


def _choose(root: Path, source: str) -> str:
    """The source to use where it is to be found out."""
    if source != "auto":
        return source
    paths = [path for pair in official_paths(root).values() for path in pair]
    missing = [path for path in paths if not path.exists()]
    if missing and len(missing) < len(paths):
        raise ConfigError(
            f"dataset.source=auto: {missing[0]} is missing, though others of the release are there;"
            " add it, or set dataset.source=procedural"
        )
    return "procedural" if missing else "real"


def _shuffled(split: _Split, scenes: Tensor, generator: torch.Generator) -> SetBatch:
    """Objects of some scenes in random order, padding last."""
    x, count = split.objects.index_select(0, scenes), split.count.index_select(0, scenes)
    slots = torch.arange(x.shape[1], device=x.device)
    mask = (slots < count.unsqueeze(1)).to(x.dtype)
    keys = torch.rand(mask.shape, generator=generator, device=x.device)
    order = torch.where(mask > 0, keys, 2.0).argsort(dim=1)
    return SetBatch(take_rows(x, order), mask)
