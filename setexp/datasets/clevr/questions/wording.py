"""Sentences of generated questions: our own, with the words of CLEVR's objects and relations."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from setexp.datasets.clevr.questions.families import CHOICES, Family
from setexp.datasets.clevr.questions.program import ATTRIBUTES, RELATIONS, VALUES
from setexp.datasets.clevr.questions.view import PHRASES

_PHRASES = PHRASES.tolist()

_WORDS = {
    "large": ("large", "big"),
    "small": ("small", "tiny"),
    "rubber": ("rubber", "matte"),
    "metal": ("metal", "metallic", "shiny"),
    "cube": ("cube", "block"),
    "sphere": ("sphere", "ball"),
    "": ("thing", "object"),
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "behind": ("behind",),
    "front": ("in front of",),
}
_LINKS = ("", "", "that {is} ")

# {0} and {1} are what a question is about; {a} is an attribute, {n} a noun.
_QUESTIONS = {
    "count": (
        "how many {0} can be seen",
        "how many {0} do you see here",
        "how many {0} does the scene show",
    ),
    "exist": (
        "can any {0} be seen",
        "do you see any {0} here",
        "does the scene show any {0}",
    ),
    "query": (
        "which {a} does {0} have",
        "take {0} ; which {a} does it have",
        "{0} has which {a}",
        "take {0} ; which is its {a}",
    ),
    "equal": (
        "do {0} and {1} agree in {a}",
        "take {0} ; does it agree in {a} with {1}",
        "does {0} have the same {a} as {1}",
    ),
    "equal_integer": (
        "do you see as many {0} as {1}",
        "can as many {0} as {1} be seen",
    ),
    "less_than": (
        "do you see fewer {0} than {1}",
        "can fewer {0} than {1} be seen",
    ),
    "greater_than": (
        "do you see more {0} than {1}",
        "can more {0} than {1} be seen",
    ),
}
_UNION = ("{n} that are {0} or {1}", "{n} that are either {0} or {1}")
_BOTH = ("{n} {0} and {1}", "{n} that {is} {0} and {1}", "{n} that {is} both {0} and {1}")
_LIKE = (
    "other {n} with the same {a} as {0}",
    "other {n} that {have} the same {a} as {0}",
    "other {n} that {agree} in {a} with {0}",
)
_FORMS = {True: {"is": "are", "have": "have", "agree": "agree"},
          False: {"is": "is", "have": "has", "agree": "agrees"}}  # fmt: skip


class Writer:
    """Words questions.

    Args:
        source: of the choices among synonyms and sentences.
    """

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def sentence(self, family: Family, codes: Sequence[int]) -> str:
        """A question's text; see `Found` for its codes."""
        stack: list[str] = []
        remaining = iter(codes)
        for step in family.steps[:-1]:
            kind, _, what = step.partition(" ")
            if kind not in CHOICES:
                self._join(kind, what, stack)
                continue
            relation, phrase = divmod(next(remaining), len(_PHRASES))
            many = not step.endswith("one")
            noun = self._noun(_PHRASES[phrase], many)
            if kind in ("to", "beside"):
                where = f"{self._word(RELATIONS[relation])} {stack.pop()}"
                noun = where if kind == "beside" else f"{noun} {self._link(many)}{where}"
            elif kind == "both":
                second, first = stack.pop(), stack.pop()
                noun = self._one_of(_BOTH).format(first, second, n=noun, **_FORMS[many])
            elif kind in ("with", "only"):
                noun = stack.pop().format(n=noun, **_FORMS[many])
            stack.append(noun if many or kind == "beside" else f"the {noun}")
        kind, _, attribute = family.steps[-1].partition(" ")
        sides = [side.format(n=self._noun([0] * 4, True), **_FORMS[True]) for side in stack]
        text = self._one_of(_QUESTIONS[kind]).format(*sides, a=attribute)
        return (text[0].upper() + text[1:]).replace(" ;", ";") + "?"

    def _join(self, kind: str, what: str, stack: list[str]) -> None:
        """Steps without a phrase leave room for one, or for a noun: {n}."""
        second = stack.pop()
        if kind == "same":
            open_forms = {key: f"{{{key}}}" for key in ("n", *_FORMS[True])}
            stack.append(self._one_of(_LIKE).format(second, a=what, **open_forms))
        else:
            stack.append(self._one_of(_UNION).format(stack.pop(), second, n="{n}"))

    def _noun(self, values: Sequence[int], many: bool) -> str:
        """A phrase with or without a plural, and without an article."""
        words = [VALUES[a][v - 1] if v else "" for a, v in zip(ATTRIBUTES, values, strict=True)]
        shape = self._word(words.pop())
        said = [self._word(word) for word in words if word]
        return " ".join([*said, f"{shape}s" if many else shape])

    def _link(self, many: bool) -> str:
        return self._one_of(_LINKS).format(**_FORMS[many])

    def _word(self, word: str) -> str:
        return self._one_of(_WORDS.get(word, (word,)))

    def _one_of(self, options: Sequence[str]) -> str:
        return options[int(self.random.random() * len(options))]


def words_of(text: str) -> list[str]:
    """A question's tokens: lower case, ";" and "?" by themselves."""
    return re.findall(r"[^\s;?]+|[;?]", text.lower())


def vocabulary() -> list[str]:
    """All words that generated questions can have, sorted."""
    return sorted(set(_all_words()))


def _all_words() -> Iterator[str]:
    frames = [*_LINKS, *_UNION, *_BOTH, *_LIKE, "the ?"]
    frames += [text for texts in _QUESTIONS.values() for text in texts]
    for text in frames:
        yield from words_of(re.sub(r"\{\w+\}", " ", text))
    yield from (word for forms in _FORMS.values() for word in forms.values())
    yield from ATTRIBUTES
    for word in [*_WORDS, *(w for values in VALUES.values() for w in values)]:
        for spoken in _WORDS.get(word, (word,)):
            yield from spoken.split()
            if word == "" or word in VALUES["shape"]:
                yield f"{spoken}s"
