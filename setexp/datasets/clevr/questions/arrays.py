"""Scenes and their questions, in the official words, to padded arrays.

One reader serves the official files and generated questions alike. Source of the encoding: the
released code of the thesis's CLEVR experiment (5.6.4); it is restated here, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from setexp.datasets.clevr.questions.program import ANSWERS
from setexp.datasets.clevr.questions.wording import words_of
from setexp.datasets.clevr.vocabulary import COLORS, MATERIALS, MAX_OBJECTS, SHAPES, SIZES
from setexp.errors import ConfigError

Array = NDArray[Any]

# Three coordinates, then four attributes as numbers from 1, in alphabetical order of their names.
OBJECT_DIM = 7
_ATTRIBUTES = {"color": COLORS, "material": MATERIALS, "shape": SHAPES, "size": SIZES}


class QuestionArrays(NamedTuple):
    """S scenes and Q questions about them.

    Args:
        objects: coordinates in world units and attributes from 1, padded with zeros, float32
            (S, 10, 7).
        size: objects of each scene, int64 (S,).
        words: positions in the vocabulary from 1, padded at the end with zeros, int16 (Q, L).
        length: words of each question, int64 (Q,).
        answer: position in `ANSWERS`, int64 (Q,).
        scene: row of the scene that is asked about, int64 (Q,).
    """

    objects: Array
    size: Array
    words: Array
    length: Array
    answer: Array
    scene: Array


def read_questions(
    scenes: Sequence[Mapping[str, Any]],
    questions: Sequence[Mapping[str, Any]],
    vocabulary: Sequence[str],
    where: str = "questions",
) -> QuestionArrays:
    """Arrays of scenes and their questions.

    Args:
        scenes: entries of an official scene file.
        questions: entries of an official question file.
        vocabulary: all words that may occur.
        where: the questions are from, for complaints.

    Raises:
        ConfigError: a question about an unknown scene, with an unknown word or answer; a scene or
            a question that lacks something.
    """
    try:
        rows = {scene["image_index"]: row for row, scene in enumerate(scenes)}
        objects, count = _objects(scenes)
    except ConfigError as error:
        raise ConfigError(f"{where}: in their scene file {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: their scene file has scenes that are not CLEVR's ({type(error).__name__}:"
            f" {error}); unpack it again"
        ) from None
    number = {word: i + 1 for i, word in enumerate(vocabulary)}
    answers = {answer: i for i, answer in enumerate(ANSWERS)}
    try:
        texts = [words_of(question["question"]) for question in questions]
        answer = [answers[question["answer"]] for question in questions]
        every = (number[word] for word in chain.from_iterable(texts))
        words = np.fromiter(every, dtype=np.int16)
        asked = [question["image_index"] for question in questions]
        unknown = next((i for i, index in enumerate(asked) if index not in rows), None)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: {_complaint(questions, number, answers, error)}") from None
    if unknown is not None:
        raise ConfigError(
            f"{where}: question {unknown} is about scene {asked[unknown]}, which the scene file"
            " does not describe; both must come from one release"
        )
    length = np.array([len(text) for text in texts], dtype=np.int64)
    padded = np.zeros((len(texts), length.max(initial=0)), dtype=np.int16)
    padded[np.arange(padded.shape[1]) < length[:, None]] = words
    scene = np.array([rows[index] for index in asked], dtype=np.int64)
    return QuestionArrays(objects, count, padded, length, np.array(answer, dtype=np.int64), scene)


def _complaint(
    questions: Sequence[Mapping[str, Any]],
    number: Mapping[str, int],
    answers: Mapping[str, int],
    error: Exception,
) -> str:
    """What is wrong with the first bad question."""
    for i, question in enumerate(questions):
        if not isinstance(question, dict):
            return f"question {i} is no mapping"
        lacking = [k for k in ("question", "answer", "image_index") if k not in question]
        if lacking:
            hint = (
                "the test split has none, use val" if lacking == ["answer"] else "unpack it again"
            )
            return f"question {i} has no {lacking[0]!r}; {hint}"
        if question["answer"] not in answers:
            return (
                f"question {i} has the answer {question['answer']!r}; CLEVR has none of that name"
            )
        for word in words_of(str(question["question"])):
            if word not in number:
                return f"question {i} has the word {word!r}, which no training question has"
    return f"{type(error).__name__}: {error}"


def _objects(scenes: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
    count = np.array([len(scene["objects"]) for scene in scenes], dtype=np.int64)
    if count.max(initial=0) > MAX_OBJECTS:
        raise ConfigError(f"a scene has {count.max()} objects; CLEVR has at most {MAX_OBJECTS}")
    rows = [
        [*item["3d_coords"], *(w.index(item[name]) + 1 for name, w in _ATTRIBUTES.items())]
        for scene in scenes
        for item in scene["objects"]
    ]
    objects = np.zeros((len(scenes), MAX_OBJECTS, OBJECT_DIM), dtype=np.float32)
    objects[np.arange(MAX_OBJECTS) < count[:, None]] = np.array(rows, dtype=np.float32).reshape(
        -1, OBJECT_DIM
    )
    return objects, count


def join(parts: Sequence[QuestionArrays]) -> QuestionArrays:
    """Arrays of consecutive scenes as one."""
    longest = max(part.words.shape[1] for part in parts)
    first = np.cumsum([0, *(len(part.size) for part in parts)])
    parts = [
        part._replace(
            words=np.pad(part.words, ((0, 0), (0, longest - part.words.shape[1]))),
            scene=part.scene + start,
        )
        for part, start in zip(parts, first[:-1], strict=True)
    ]
    return QuestionArrays(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def first_scenes(arrays: QuestionArrays, scenes: int | None) -> QuestionArrays:
    """The first so many scenes with their questions."""
    if scenes is None:
        return arrays
    kept = arrays.scene < scenes
    questions = (column[kept] for column in arrays[2:])
    return QuestionArrays(arrays.objects[:scenes], arrays.size[:scenes], *questions)
