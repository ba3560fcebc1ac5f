"""Ten questions about each scene, in the official files' words, with balanced answers.

Source: the rules of the public CLEVR generator (Johnson et al., 2017): families that were used
least come first; an answer that a family gave much more often than others is refused for a while.
The sentences are our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setexp.datasets.clevr.questions.emit import program
from setexp.datasets.clevr.questions.families import FAMILIES
from setexp.datasets.clevr.questions.search import Search
from setexp.datasets.clevr.questions.view import View
from setexp.datasets.clevr.questions.wording import Writer
from setexp.datasets.clevr.scenes import seed_of

QUESTIONS_PER_SCENE = 10
# Scenes after which all counts begin anew, so each block of scenes stands for itself.
BLOCK = 250
# An answer is refused above these multiples of the second most frequent and the median answer.
_OF_SECOND, _OF_MEDIAN, _LEAST_MEDIAN = 1.1, 5, 5


class Balance:
    """How often each family was used and gave each answer."""

    def __init__(self) -> None:
        self.used = np.zeros(len(FAMILIES), dtype=int)
        self.answers = [np.zeros(len(family.answers), dtype=int) for family in FAMILIES]

    def accepted(self, family: int) -> NDArray[np.bool_]:
        """Which answers a family may still give."""
        counts = self.answers[family]
        ordered = np.sort(counts)
        median = max(ordered[len(counts) // 2], _LEAST_MEDIAN)
        return (counts <= _OF_SECOND * ordered[-2]) & (counts <= _OF_MEDIAN * median)

    def add(self, family: int, answer: int) -> None:
        """Count a question."""
        self.used[family] += 1
        self.answers[family][answer] += 1


def generate(scenes: Iterable[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """Questions about consecutive scenes; each block of 250 is a function of the seed alone.

    Args:
        scenes: entries of an official scene file, in its order.
        seed: of all draws.

    Yields:
        Entries of "questions" in an official question file, `question_index` from 0. A scene has
        ten, from ten families, unless too few families apply to it.
    """
    index = 0
    balance = Balance()
    for at, scene in enumerate(scenes):
        if at % BLOCK == 0:
            balance = Balance()
        for question in _about(scene, balance, _seed(seed, scene)):
            yield {**question, "question_index": index}
            index += 1


def _about(scene: dict[str, Any], balance: Balance, seed: int) -> Iterator[dict[str, Any]]:
    search = Search(View(scene), seed)
    writer = Writer(search.random)
    made = 0
    for number in np.lexsort((search.arrays.random(len(FAMILIES)), balance.used)).tolist():
        family = FAMILIES[number]
        accepted = balance.accepted(number)
        found = search.find(family, accepted) if accepted.any() else None
        if found is None:
            continue
        balance.add(number, found.answer)
        yield {
            "split": scene["split"],
            "image_filename": scene["image_filename"],
            "image_index": scene["image_index"],
            "question": writer.sentence(family, found.codes),
            "program": program(family, found.codes),
            "answer": family.answers[found.answer],
            "question_family_index": number,
        }
        made += 1
        if made == QUESTIONS_PER_SCENE:
            return


def _seed(seed: int, scene: dict[str, Any]) -> int:
    return seed_of(f"questions {seed} {scene['split']} {scene['image_index']}")
