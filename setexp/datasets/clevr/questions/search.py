"""A question of a family about a scene: values for its phrases, drawn at random.

Source: the rules of the public CLEVR generator (Johnson et al., 2017). Phrases are chosen one after
the other, uniformly among what is possible; where the rest cannot be completed, the choice is
taken back. All options of a phrase are judged together, and what leads to the same stack as an
option that failed is not tried again.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from setexp.datasets.clevr.questions.families import CHOICES, Family
from setexp.datasets.clevr.questions.program import ATTRIBUTES, RELATIONS
from setexp.datasets.clevr.questions.view import (
    ONLY,
    PHRASES,
    SIZE,
    Array,
    View,
    leaves_open,
)

# Of the phrases after a relation, at most this share fit nothing that the relation leaves out.
_TRIVIAL = 0.1
_STRIDES = [int(np.prod([PHRASES[-1][j] + 1 for j in range(i + 1, 4)])) for i in range(4)]


class Found(NamedTuple):
    """A question: of each choice, 324 * relation + phrase; and the answer's position."""

    codes: tuple[int, ...]
    answer: int


class _Options(NamedTuple):
    """Codes to choose from and what each puts on the stack; `sides`: what it would put there if
    one of two relations were not asked for."""

    codes: Array
    values: Array
    sides: tuple[Array, ...] = ()


class Search:
    """Searches questions of families about one scene; a function of the random state alone.

    Args:
        view: the scene.
        seed: of all choices.
    """

    def __init__(self, view: View, seed: int) -> None:
        self.view = view
        self.random = random.Random(seed)
        self.arrays = np.random.default_rng(seed)

    def find(self, family: Family, accepted: NDArray[np.bool_]) -> Found | None:
        """A question whose answer, by its position in `family.answers`, is accepted; or None."""
        self.family, self.accepted = family, accepted
        self.dead: set[tuple[int, tuple[int, ...]]] = set()
        self.codes: list[int] = []
        answer = self._complete(0, 0, ())
        return None if answer is None else Found(tuple(self.codes), answer)

    def _complete(self, at: int, choice: int, stack: tuple[int, ...]) -> int | None:
        """Choose from step `at` on, its `choice`-th phrase; the answer, or None."""
        state = at, stack
        if state in self.dead:
            return None
        options, stack = self._options(at, choice, stack)
        options, stack, after = self._follow(at + 1, options, stack)
        last = after == len(self.family.steps)
        if last:
            options = _some(options, self.accepted[options.values])
        while len(options.codes):
            pick = int(self.random.random() * len(options.codes))
            value = int(options.values[pick])
            self.codes.append(int(options.codes[pick]))
            if last:
                return value
            answer = self._complete(after, choice + 1, (*stack, value))
            if answer is not None:
                return answer
            self.codes.pop()
            options = _some(options, options.values != value)
        self.dead.add(state)
        return None

    def _options(
        self, at: int, choice: int, stack: tuple[int, ...]
    ) -> tuple[_Options, tuple[int, ...]]:
        """What a step may choose, and the stack without what it takes."""
        step, view = self.family.steps[at], self.view
        kind, _, what = step.partition(" ")
        if kind == "beside":
            relations = np.arange(len(RELATIONS))
            return _Options(len(PHRASES) * relations, view.related[stack[-1]]), stack[:-1]
        if kind == "only":
            having = view.having[what]
            codes = _STRIDES[ATTRIBUTES.index(what)] * np.arange(1, len(having) + 1)
            return _Options(codes, having & stack[-1]), stack[:-1]
        one = step.endswith("one")
        sides: tuple[int, ...] = ()
        if kind == "to":
            options, stack = self._reached(stack[-1], at, one), stack[:-1]
        else:
            within = view.everything
            if kind == "both":
                sides, stack = stack[-2:], stack[:-2]
                within = sides[0] & sides[1]
                if self.family.differ == "sets" and sides[0] == sides[1]:
                    within = 0
            elif kind == "with":
                within, stack = stack[-1], stack[:-1]
            options = self._within(within, at, one)
        said = leaves_open(self.family.empty[choice], options.codes % len(PHRASES))
        if self._in_union(at) and kind == "some":  # a part of a union is never everything
            said &= options.codes > 0
        options = _some(options, said)
        if sides:
            fits = view.fits[options.codes]
            options = options._replace(sides=(fits & sides[0], fits & sides[1]))
        if one:
            options = options._replace(
                values=ONLY[options.values], sides=tuple(ONLY[s] for s in options.sides)
            )
        return options, stack

    def _within(self, within: int, at: int, one: bool) -> _Options:
        """Phrases about a set: all that fit something in the scene, and for sets some that may
        not."""
        codes = self.view.fitting
        sets = self.view.fits[codes] & within
        single = SIZE[sets] == 1
        if one:
            return _Options(codes[single], sets[single])
        more = len(codes) if self._asks(at) == "exist" else int(single.sum())
        codes = np.append(codes, self.arrays.integers(len(PHRASES), size=more))
        return _Options(codes, self.view.fits[codes] & within)

    def _reached(self, start: int, at: int, one: bool) -> _Options:
        """Relations with phrases, few of which say no more than the phrase alone."""
        codes, sets, trivial = self.view.reached(start)
        if one:
            fit = SIZE[sets] == 1
        else:
            fit = (sets > 0) | (not self._in_union(at))
        useful, idle = (fit & ~trivial).nonzero()[0], (fit & trivial).nonzero()[0]
        few = round(len(useful) * _TRIVIAL / (1 - _TRIVIAL))
        if few < len(idle):
            idle = self.arrays.choice(idle, few, replace=False)
        kept = np.append(useful, idle)
        return _Options(codes[kept], sets[kept])

    def _asks(self, at: int) -> str:
        """What is asked of a step's set."""
        return self.family.steps[at + 1]

    def _in_union(self, at: int) -> bool:
        return self.family.group == "single or" and self.family.steps[at].endswith("some")

    def _follow(
        self, at: int, options: _Options, stack: tuple[int, ...]
    ) -> tuple[_Options, tuple[int, ...], int]:
        """Carry options through the steps up to the next choice, and say which step makes it."""
        steps = self.family.steps
        while at < len(steps) and steps[at].split()[0] not in CHOICES:
            options, stack = self._apply(steps[at], options, stack)
            at += 1
        return options, stack, at

    def _apply(
        self, step: str, options: _Options, stack: tuple[int, ...]
    ) -> tuple[_Options, tuple[int, ...]]:
        kind, _, attribute = step.partition(" ")
        if kind == "same":
            return options._replace(values=self.view.same[attribute][options.values]), stack
        if kind in ("count", "exist", "query"):
            value = self._answers(kind, attribute, options.values)
            kept = np.ones(len(value), dtype=bool)
            for side in options.sides:  # a relation that changes nothing is not asked for
                kept &= self._answers(kind, attribute, side) != value
            return _some(_Options(options.codes, value), kept), stack
        other, stack = stack[-1], stack[:-1]
        values = options.values
        if kind == "or":
            kept = values != other if self.family.differ == "sets" else values >= 0
            return _some(options._replace(values=values | other), kept), stack
        if kind == "equal":
            kept = values != other
            of = self.view.values[attribute]
            answer = of[values] == of[other]
        else:
            before, after = SIZE[other], SIZE[values]
            kept = before != after if self.family.differ == "counts" else values >= 0
            answer = {
                "equal_integer": before == after,
                "less_than": before < after,
                "greater_than": before > after,
            }[kind]
        return _some(options._replace(values=answer.astype(np.intp)), kept), stack

    def _answers(self, kind: str, attribute: str, values: Array) -> Array:
        """Answers about sets, or about objects; -1 where there is no object."""
        if kind == "count":
            return SIZE[values]
        if kind == "exist":
            return (values > 0).astype(np.intp)
        return np.where(values >= 0, self.view.values[attribute][values], -1)


def _some(options: _Options, kept: NDArray[np.bool_]) -> _Options:
    return _Options(
        options.codes[kept], options.values[kept], tuple(s[kept] for s in options.sides)
    )
