"""Which number a word or an answer has, by how often it was used in training (Thesis, 3.5.2)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.array_store import LAYOUT, Array, Store
from setexp.errors import ConfigError
from setexp.files import read_json, write_text


class Vocabulary(NamedTuple):
    """Words and answers of some questions, most frequent first, ties backwards in the alphabet.

    A word's number is its place plus 1; 0 is every other word, and padding. An answer's number is
    its place; those beyond a model's classes have none.
    """

    words: list[str]
    answers: list[str]

    def digest(self, classes: int) -> str:
        """Short hash of what the weights of a model with so many classes depend on."""
        text = json.dumps([self.words, self.answers[:classes]])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def prepare_vocabulary(path: Path, stores: Sequence[Store]) -> Vocabulary:
    """Count the words and answers of stores of questions and write them, unless that was done."""
    try:
        return read_vocabulary(path, stores)
    except ConfigError:  # it is to be made
        words = _ordered([(store.texts("words"), store.array("word")) for store in stores])
        answers = _ordered([(store.texts("answers"), store.array("answer")) for store in stores])
    about = {"layout": LAYOUT, "from": [store.digest for store in stores]}
    write_text(path, json.dumps({**about, "words": words, "answers": answers}, indent=0) + "\n")
    return Vocabulary(words, answers)


def read_vocabulary(path: Path, stores: Sequence[Store]) -> Vocabulary:
    """The vocabulary of stores of questions.

    Raises:
        ConfigError: it is missing, damaged, or of other questions.
    """
    try:
        content: dict[str, Any] = read_json(path) or {}
        same = (content["layout"], content["from"]) == (LAYOUT, [s.digest for s in stores])
        vocabulary = Vocabulary(content["words"], content["answers"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is missing or no vocabulary ({error}); prepare again") from None
    if not same:
        raise ConfigError(f"{path} is of other questions, or another version; prepare again")
    return vocabulary


def numbers_in(texts: Sequence[str], order: Sequence[str], first: int) -> Array:
    """The number of each text in an order that begins with `first`; -1 where it has none."""
    number = {text: i for i, text in enumerate(order, start=first)}
    return np.array([number.get(text, -1) for text in texts], np.int64)


def _ordered(parts: Sequence[tuple[list[str], Array]]) -> list[str]:
    total: Counter[str] = Counter()
    for texts, places in parts:
        counts = np.bincount(places[places >= 0], minlength=len(texts))
        total.update(dict(zip(texts, counts.tolist(), strict=True)))
    return sorted(total, key=lambda text: (total[text], text), reverse=True)
