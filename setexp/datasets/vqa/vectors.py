"""First rows of an embedding: vectors of words, beside those of the words they are asked with.

BAN learns both (Kim et al., 2018; the baseline of Thesis, 4.4.4).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from setexp.datasets.array_store import Array, Store
from setexp.datasets.vqa.vocabulary import Vocabulary, numbers_in
from setexp.errors import ConfigError
from setexp.files import write_bytes

_TOGETHER = 4096  # questions


def prepare_vectors(path: Path, file: Path, numbers: Vocabulary, stores: Sequence[Store]) -> Array:
    """Write the rows of a vocabulary's numbers, (words + 1, 2 V); row 0 is zero.

    Args:
        path: of the new file, .npy. file: vectors in GloVe's text format, see `read_vectors`.
        stores: the questions that say which words are asked together.
    """
    vectors = np.pad(read_vectors(file, numbers.words), ((1, 0), (0, 0)))
    mixed = np.zeros((len(vectors), vectors.shape[1] + 1))
    count = np.zeros(len(vectors))
    asked = [
        np.append(numbers_in(store.texts("words"), numbers.words, 1), 0).clip(0)[
            store.array("word")
        ]
        for store in stores
    ]
    for word in asked:
        count += np.bincount(word.flatten(), minlength=len(vectors))
    count[0] = np.inf  # padding and unknown words tell nothing
    # as in tf-idf, a word that is in many questions says little of each
    told = np.pad(vectors, ((0, 0), (0, 1)), constant_values=1) / count[:, None]
    for word in asked:
        for start in range(0, len(word), _TOGETHER):
            some = word[start : start + _TOGETHER]
            others = told[some].sum(1, keepdims=True) - told[some]
            np.add.at(mixed, some, others)
    mean = mixed[:, :-1] / mixed[:, -1:].clip(1e-12)
    rows = np.concatenate([vectors, mean], axis=1, dtype=np.float32)
    rows[0] = 0
    buffer = io.BytesIO()
    np.save(buffer, rows)
    write_bytes(path, buffer.getvalue())
    return rows


def read_vectors(file: Path, words: Sequence[str]) -> Array:
    """Vectors (words, V) of a text file, a word and its V numbers a line; zero where it has none.

    Raises:
        ConfigError: the file cannot be read, or a line is not so.
    """
    place = {word: i for i, word in enumerate(words)}
    found: Array | None = None
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if found is None:
                    found = np.zeros((len(words), line.rstrip().count(" ")), np.float32)
                word, *vector = line.rstrip().rsplit(" ", found.shape[1])
                if len(vector) != found.shape[1]:
                    raise ValueError(f"{word} has {len(vector)} numbers, others {found.shape[1]}")
                if word in place:
                    found[place[word]] = [float(number) for number in vector]
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{file}: a line is no word and its vector ({error})") from None
    if found is None or not found.any():
        raise ConfigError(f"{file} has vectors of none of the {len(words)} words")
    return found
