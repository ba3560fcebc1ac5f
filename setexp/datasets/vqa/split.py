"""Numbered questions of a split, as tensors, beside the proposals of their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.array_store import Array, Store
from setexp.datasets.vqa.padded_proposals import Proposals
from setexp.datasets.vqa.vocabulary import Vocabulary, numbers_in
from setexp.errors import ConfigError
from setexp.ops.votes import PEOPLE
from setexp.sets import Batch

Arrays = dict[str, Array]
_PADDING = {"word": 0, "partner": -1}  # arrays whose width depends on the split


def numbered(
    questions: Store,
    images: Store,
    numbers: Vocabulary,
    classes: int,
    *,
    answers: Store | None = None,
    most_words: int | None = None,
) -> Arrays:
    """Arrays of a store of questions, words and answers as a vocabulary numbers them.

    Args:
        answers: of the same questions, instead of their own.
        most_words: L, however many words there are; None for those of the longest question.

    Returns:
        word (Q, L), length (Q,), answer (Q, 10) with `classes` for every other answer, image (Q,)
        as a place in the store of proposals, question_id, kind, counting (Q,), partner (Q, K).

    Raises:
        ConfigError: the questions were prepared for other proposals, or the answers for other
            questions.
    """
    if questions.about["images"] != images.digest:
        raise ConfigError(
            f"{questions.path} was prepared for other proposals than {images.path}; prepare again"
        )
    if answers is not None and answers.about["key"] != questions.about["key"]:
        raise ConfigError(
            f"{answers.path} was prepared for other questions than {questions.path}; prepare again"
        )
    word, given = questions.array("word"), questions if answers is None else answers
    if most_words is not None:
        short = ((0, 0), (0, max(0, most_words - word.shape[1])))
        word = np.pad(word, short, constant_values=-1)[:, :most_words]
    # one entry more, for -1
    of_word = np.append(numbers_in(questions.texts("words"), numbers.words, 1), -1).clip(0)
    known = numbers_in(given.texts("answers"), numbers.answers[:classes], 0)
    of_answer = np.append(np.where(known < 0, classes, known), classes)
    ids, order = images.array("image_id"), images.array("image_id").argsort()
    question_id = questions.array("question_id")
    return {
        "word": of_word[word],
        "length": (word >= 0).sum(1),
        "answer": of_answer[given.array("answer")],
        "image": order[np.searchsorted(ids, questions.array("image_id"), sorter=order)],
        "question_id": question_id,
        "kind": questions.array("kind").astype(np.int64),
        "counting": questions.array("counting").astype(np.int64),
        "partner": partners(question_id, questions.array("pair")),
    }


def partners(question_id: Array, pair: Array) -> Array:
    """The other questions of each one's pairs, (Q, K), padded with -1."""
    both = np.concatenate([pair, pair[:, ::-1]])
    place = np.argsort(question_id)
    row = place[np.searchsorted(question_id, both[:, 0], sorter=place)]
    order = np.argsort(row, kind="stable")
    row, other = row[order], both[order, 1]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    found = np.full((len(question_id), max(1, rank.max(initial=0) + 1)), -1, np.int64)
    found[row, rank] = other
    return found


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Several stores' arrays one after the other, padded to the same width."""
    found = {}
    for name in parts[0]:
        rows = [part[name] for part in parts]
        if name in _PADDING:
            wide = max(r.shape[1] for r in rows)
            value = _PADDING[name]
            rows = [
                np.pad(r, ((0, 0), (0, wide - r.shape[1])), constant_values=value) for r in rows
            ]
        found[name] = np.concatenate(rows)
    return found


class Split:
    """Questions of one split on a device.

    Args:
        arrays: see `numbered`. proposals: of their images. classes: C. device: of batches.
    """

    def __init__(
        self, arrays: Arrays, proposals: Proposals, classes: int, device: torch.device
    ) -> None:
        self._proposals, self._classes = proposals, classes
        self._tensors = {name: torch.from_numpy(rows).to(device) for name, rows in arrays.items()}
        self._image = self._tensors.pop("image")

    def __len__(self) -> int:
        return len(self._image)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Batch]:
        """A batch of each list of questions, int64 (B,) on the device."""
        images = [self._image.index_select(0, some) for some in rows]
        for some, given in zip(rows, self._proposals.batches(images), strict=True):
            aux = {name: rows.index_select(0, some) for name, rows in self._tensors.items()}
            answer = aux.pop("answer")
            # one class more, for answers that have none
            votes = given.x.new_zeros(len(some), self._classes + 1)
            votes.scatter_add_(1, answer, torch.ones_like(answer, dtype=votes.dtype))
            yield Batch(given, votes[:, :-1] / PEOPLE, aux)
