"""Where CLEVR's questions come from: the official files, or our generator; both kept as arrays."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.array_store import part_spans
from setexp.datasets.clevr.questions.arrays import QuestionArrays, join, read_questions
from setexp.datasets.clevr.questions.generator import BLOCK, generate
from setexp.datasets.clevr.questions.wording import vocabulary, words_of
from setexp.datasets.clevr.scenes import sample_labelled, to_official
from setexp.datasets.clevr.vocabulary import SPLITS
from setexp.errors import ConfigError
from setexp.files import made_once, whole, write_bytes

# Part of every name of kept arrays: raise it when the same seed or files give others.
VERSION = 3
# Scenes made together and kept in one file, of which scenes are a function; whole blocks of
# the generator.
PART = 4 * BLOCK


class Recipe(NamedTuple):
    """What determines generated scenes and questions but their number."""

    min_objects: int
    max_objects: int
    data_seed: int

    @property
    def key(self) -> str:
        """Short hash, the same on every machine."""
        return _hash(f"{VERSION} {tuple(self)}".encode())


def official_paths(root: Path) -> dict[str, tuple[Path, Path]]:
    """Scene and question file of each split of the release in a data folder."""
    return paths_in(root / "CLEVR_v1.0")


def paths_in(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Scene and question file of each split of an unpacked release."""
    return {
        split: (
            folder / "scenes" / f"CLEVR_{split}_scenes.json",
            folder / "questions" / f"CLEVR_{split}_questions.json",
        )
        for split in SPLITS
    }


def official(root: Path) -> tuple[dict[str, QuestionArrays], list[str], str]:
    """Arrays of both splits, the vocabulary of the training questions, and a hash of the files.

    Arrays are kept beside the procedural ones, so that the files are parsed once.

    Raises:
        ConfigError: a file is missing or does not fit the others; see `read_questions`.
    """
    paths = official_paths(root)
    files = [path for pair in paths.values() for path in pair]
    key = _hash(f"{VERSION} {[_hash_of(path) for path in files]}".encode())
    folder = root / "clevr" / f"questions-real-{key}"
    known = folder / "vocabulary.json"
    needed = [known, *(folder / f"{split}.npz" for split in SPLITS)]
    # all are made together, `known` last
    missing = next((path for path in needed if not path.exists()), known)
    made_once(missing, lambda: _keep_official(paths, folder, known))
    arrays_of = {split: _load(folder / f"{split}.npz") for split in SPLITS}
    try:
        return arrays_of, json.loads(known.read_text()), key
    except (OSError, ValueError) as error:
        raise ConfigError(f"{known} is damaged ({error}); delete it") from None


def _keep_official(paths: dict[str, tuple[Path, Path]], folder: Path, known: Path) -> None:
    words: list[str] = []
    for split in SPLITS:  # one after the other: 700,000 questions take gigabytes
        scenes, questions = paths[split]
        asked = parse_official(questions, programs=False)
        if split == "train":
            try:
                words = sorted({word for q in asked for word in words_of(q["question"])})
            except (KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{questions}: a question has no text ({type(error).__name__}: {error});"
                    " unpack it again"
                ) from None
        arrays = read_questions(parse_official(scenes), asked, words, where=str(questions))
        _save(folder / f"{split}.npz", arrays)
    write_bytes(known, json.dumps(words).encode())


def procedural(root: Path, split: str, count: int, recipe: Recipe) -> QuestionArrays:
    """Arrays of `count` generated scenes of a split, made where they are missing.

    A part that is done is kept, so a killed generation goes on where it was. Scenes are a function
    of their whole part: another count has others in the last part.
    """
    from tqdm import tqdm

    folder = root / "clevr" / f"questions-procedural-{recipe.key}"
    parts = []
    with tqdm(
        total=count, desc=f"CLEVR questions {split}", unit="scene", disable=None, leave=False
    ) as bar:
        for start, stop in part_spans(count, PART):
            parts.append(_part(folder, split, start, stop, recipe))
            bar.update(stop - start)
    return join(parts)


def _part(folder: Path, split: str, start: int, stop: int, recipe: Recipe) -> QuestionArrays:
    """Arrays of generated scenes start:stop of a split, made where they are missing."""
    path = folder / f"{split}-{start:06d}-{stop:06d}.npz"

    def make() -> None:
        scenes, questions = draw(split, start, stop, recipe)
        _save(path, read_questions(scenes, questions, vocabulary()))

    return _load(made_once(path, make))


def draw(
    split: str, start: int, stop: int, recipe: Recipe
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Generated scenes start:stop of a split and their questions, in the official words."""
    drawn = sample_labelled(
        f"questions {recipe.data_seed} {split} {start}",
        stop - start,
        min_objects=recipe.min_objects,
        max_objects=recipe.max_objects,
    )
    scenes = to_official(drawn, split, start)
    return scenes, list(generate(scenes, recipe.data_seed))


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); unpack the release there or link to it, or"
            " set dataset.source=procedural"
        ) from None


def parse_official(path: Path, programs: bool = True) -> list[dict[str, Any]]:
    """The entries of a scene or question file; steps of programs are None if they are not wanted.

    Raises:
        ConfigError: it cannot be read or is none.
    """
    name = "scenes" if "scenes" in path.stem else "questions"
    with _opened(path) as file:
        try:
            entries = json.load(file, object_hook=None if programs else _no_step)[name]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"{path} is no CLEVR file of {name} ({reason}); unpack it again"
            ) from None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} lists no {name}; unpack it again")
    return entries


def _no_step(entry: dict[str, Any]) -> dict[str, Any] | None:
    return None if "function" in entry else entry


def _save(path: Path, arrays: QuestionArrays) -> None:
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays._asdict())


def _load(path: Path) -> QuestionArrays:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            return QuestionArrays(*(kept[name] for name in QuestionArrays._fields))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path} is damaged ({error}); delete it") from None


def _hash_of(path: Path) -> str:
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]
