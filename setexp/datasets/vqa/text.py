"""Words of questions and answers, as the released counting code reads them (Thesis, 3.5.2)."""

from __future__ import annotations

import re

MARKS = ';/[]"{}()=+\\_-><@`,?!'
STOP = re.compile(r"\.(?!\d)")
_MARK = "[" + re.escape(MARKS) + "]"
_ANY_MARK = re.compile(_MARK)
_MARK_BESIDE_SPACE = re.compile(f"(?<= ){_MARK}|{_MARK}(?= )")
_GROUPED_DIGITS = re.compile(r"\d,\d")
_NO_WORD = re.compile("[^a-z0-9 ]")


def normalise_answer(answer: str) -> str:
    """An answer as it is counted: of the official rules, that of punctuation alone.

    An answer without any of the marks stays as it is; full stops are none of them.
    """
    if not _ANY_MARK.search(answer):
        return answer
    text = _MARK_BESIDE_SPACE.sub("", answer)
    if _GROUPED_DIGITS.search(text):
        text = text.replace(",", "")
    return STOP.sub("", _ANY_MARK.sub(" ", text)).strip()


def words_of(question: str) -> list[str]:
    """Words of a question: lower case, without its last character, letters and digits only.

    Two spaces enclose an empty word, as in the released code.
    """
    return _NO_WORD.sub("", question.lower()[:-1]).split(" ")


def is_counting(question: str) -> bool:
    """Whether it counts as a counting question (Thesis, 3.5.2)."""
    return question.lower().startswith("how many")
