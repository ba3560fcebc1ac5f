"""Answers as BAN counts them: those that the majority gave, fully normalised (Thesis, 4.4.4)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from setexp.datasets.array_store import Store, as_text, kept, write_store
from setexp.datasets.vqa.questions import annotated, read_official, texts_and_places
from setexp.datasets.vqa.text import MARKS, STOP
from setexp.files import sole_writer

_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_ARTICLES = ("a", "an", "the")
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll
    you're you've
"""
# Each of them by how it is written with one apostrophe forgotten.
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word
    for word in _CONTRACTED.split()
    for i, letter in enumerate(word)
    if letter == "'"
}


def canonical_answer(answer: str) -> str:
    """An answer by all official rules: marks, lower case, numbers, articles, contractions."""
    joined = re.search(r"\d,\d", answer) is not None
    text = answer
    for mark in MARKS:
        beside = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if joined or beside else " ")
    words = [_NUMBERS.get(word, word) for word in STOP.sub("", text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def prepare_answers(path: Path, file: Path, questions: Store) -> Store:
    """Make the store of a split's answers as they were written, unless it is there already.

    Arrays: answer (Q, 10), places in `answers`; majority (Q, 1), places in `majorities`, which are
    canonical. Texts: answers, majorities.

    Args:
        file: the official annotations that `questions` were prepared from.
    """
    key = questions.about["key"]
    with sole_writer(path):
        if there := kept(path, key):
            return there
        given = annotated(file, read_official(file), questions.array("question_id"))
        answers, answer = texts_and_places(
            [[a["answer"] for a in item["answers"]] for item in given]
        )
        majorities, majority = texts_and_places(
            [[canonical_answer(item["multiple_choice_answer"])] for item in given]
        )
        arrays = {
            "answer": answer,
            "answers": as_text(answers),
            "majority": majority,
            "majorities": as_text(majorities),
        }
        counts = {name: len(rows) for name, rows in arrays.items()}
        return write_store(path, [arrays], counts, {"key": key})


def majority_answers(stores: Sequence[Store], least: int) -> list[str]:
    """What the majority answers to so many questions, most frequent first, ties backwards."""
    total: Counter[str] = Counter()
    for store in stores:
        counts = np.bincount(store.array("majority").flatten())
        total.update(dict(zip(store.texts("majorities"), counts.tolist(), strict=True)))
    often = [text for text, count in total.items() if count >= least]
    return sorted(often, key=lambda text: (total[text], text), reverse=True)
