"""Questions, ten human answers and complementary pairs: official JSON files to a store a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.array_store import LAYOUT, Array, Store, as_text, kept, write_store
from setexp.datasets.vqa.text import is_counting, normalise_answer, words_of
from setexp.errors import ConfigError
from setexp.files import sole_writer
from setexp.ops.votes import KINDS, PEOPLE

_QUESTION = {"question_id": int, "image_id": int, "question": str}
_ANNOTATION = {
    "question_id": int,
    "answers": list,
    "answer_type": str,
    "multiple_choice_answer": str,
}


class QuestionFiles(NamedTuple):
    """Official files of a split; a split that a server judges has questions alone."""

    questions: Path
    annotations: Path | None
    pairs: Path | None


def prepare_questions(path: Path, files: QuestionFiles, images: Store) -> Store:
    """Make the store of a split, unless it is there already and the files are the same.

    Arrays: question_id, image_id (Q,); word (Q, L), places in `words`, padded with -1; answer
    (Q, 10), places in `answers`, or -1 where nobody answered; kind (Q,), a place in `KINDS`, or -1;
    counting (Q,) of 0 and 1; pair (P, 2) of question_ids. Texts: words, answers.

    Args:
        images: the store of their proposals.

    Raises:
        ConfigError: a file cannot be read, does not belong to the others, or names an image without
            proposals.
    """
    contents = [None if file is None else read_official(file) for file in files]
    text = hashlib.sha256(f"{LAYOUT} {images.digest}".encode())
    for content in contents:
        text.update(b"-" if content is None else hashlib.sha256(content).digest())
    key = text.hexdigest()[:12]
    with sole_writer(path):
        if store := kept(path, key):
            return store
        arrays = _questions(files, contents, images)
        counts = {name: len(rows) for name, rows in arrays.items()}
        return write_store(path, [arrays], counts, {"key": key, "images": images.digest})


def read_official(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None


def _questions(
    files: QuestionFiles, contents: list[bytes | None], images: Store
) -> dict[str, Array]:
    asked = _items(files.questions, contents[0], "questions", _QUESTION)
    ids = np.array([item["question_id"] for item in asked], np.int64)
    shown = np.array([item["image_id"] for item in asked], np.int64)
    if len(np.unique(ids)) < len(ids):
        raise ConfigError(f"{files.questions} has a question_id twice; download it again")
    unknown = ~np.isin(shown, images.array("image_id"))
    if unknown.any():
        raise ConfigError(
            f"{files.questions}: {unknown.sum()} of {len(ids)} questions are about images without"
            f" proposals in {images.path}, question {ids[unknown][0]} about image"
            f" {shown[unknown][0]} first; are all TSV files there?"
        )
    words, word = texts_and_places([words_of(item["question"]) for item in asked])
    answers: list[str] = []
    answer, kind = np.full((len(ids), PEOPLE), -1, np.int32), np.full(len(ids), -1)
    if files.annotations is not None:
        given = annotated(files.annotations, contents[1], ids)
        answers, answer = texts_and_places(
            [[normalise_answer(a["answer"]) for a in item["answers"]] for item in given]
        )
        kind = np.array([KINDS.index(item["answer_type"]) for item in given])
    pair = np.zeros((0, 2), np.int64)
    if files.pairs is not None:
        pair = _pairs(files.pairs, contents[2], ids)
    return {
        "question_id": ids,
        "image_id": shown,
        "word": word,
        "words": as_text(words),
        "answer": answer,
        "answers": as_text(answers),
        "kind": kind.astype(np.int8),
        "counting": np.array([is_counting(item["question"]) for item in asked], np.int8),
        "pair": pair,
    }


def _items(
    path: Path, content: bytes | None, section: str, fields: Mapping[str, type]
) -> list[dict[str, Any]]:
    try:
        items = json.loads(content or b"")[section]
        if not items or not all(_is(item, fields) for item in items):
            raise ValueError(f"no {section}, or one without {' or '.join(fields)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no official file of {section} ({str(error)[:100]}); download it again"
        ) from None
    return items


def _is(item: Any, fields: Mapping[str, type]) -> bool:
    """Whether it is a mapping that has these fields."""
    return isinstance(item, dict) and all(isinstance(item.get(k), t) for k, t in fields.items())


def annotated(path: Path, content: bytes | None, ids: Array) -> list[dict[str, Any]]:
    """Annotations in the order of the questions.

    Raises:
        ConfigError: they are of other questions, or not as they should be.
    """
    items = _items(path, content, "annotations", _ANNOTATION)
    by_id = {item["question_id"]: item for item in items}
    missing = [i for i in ids.tolist() if i not in by_id]
    if missing or len(by_id) != len(ids):
        raise ConfigError(
            f"{path} has {len(by_id)} annotations of {len(ids)} questions"
            + (f", none of question {missing[0]}" if missing else "")
            + "; both files must be of one split and release"
        )
    for item in items:
        said = [answer for answer in item["answers"] if _is(answer, {"answer": str})]
        if len(said) != PEOPLE or item["answer_type"] not in KINDS:
            raise ConfigError(
                f"{path}: question {item['question_id']} has {len(said)} answers of type"
                f" {item['answer_type']}; there must be {PEOPLE}, of {', '.join(KINDS)}"
            )
    return [by_id[i] for i in ids.tolist()]


def _pairs(path: Path, content: bytes | None, ids: Array) -> Array:
    try:
        pair = np.array(json.loads(content or b""), np.int64).reshape(-1, 2)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no official list of pairs ({str(error)[:100]})") from None
    if not np.isin(pair, ids).all():
        raise ConfigError(f"{path} names questions that are not in its split; use one release")
    return np.unique(np.sort(pair, axis=1), axis=0)  # each once, whichever comes first


def texts_and_places(rows: list[list[str]]) -> tuple[list[str], Array]:
    """Distinct texts, sorted, and the places of each row's texts there, padded with -1."""
    texts = sorted({text for row in rows for text in row})
    place = {text: i for i, text in enumerate(texts)}
    numbers = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for row, of in zip(rows, numbers, strict=True):
        of[: len(row)] = [place[text] for text in row]
    return texts, numbers
