"""The 90 families of CLEVR questions: which phrases they have, and what may not be said.

Source: the public CLEVR generator (Johnson et al., 2017), whose families are restated as steps on
a stack of objects and sets. Steps that have a phrase, a choice of values for the four attributes,
each of which may be left open:

| step | takes | the phrase | leaves |
|---|---|---|---|
| one | | fits exactly one object of the scene | that object |
| some | | | the objects it fits |
| to one, to some | object | with a relation, of what stands in it to the object | object, set |
| with one, with some | set | of the set | object, set |
| both one, both some | two sets | of what is in both | object, set |
| only ATTRIBUTE | set | has this attribute alone | set |

Others: `beside` takes an object and leaves all that stand in a relation to it; `same ATTRIBUTE`
takes an object and leaves all others that are like it; `or` takes two sets. The last step is the
question.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from setexp.datasets.clevr.questions.program import ATTRIBUTES, NUMBERS, VALUES

# Steps that choose something, so that a family has a phrase for each.
CHOICES = ("one", "some", "to", "with", "both", "only", "beside")


class Family(NamedTuple):
    """One family.

    Args:
        group: one of the nine, as in "three hop".
        steps: see the module; the last is the question.
        empty: of each phrase, the attributes that it may not name.
        differ: what the two sides are that must not be the same: "counts", "sets" or nothing.
            Objects that are compared always differ.
    """

    group: str
    steps: tuple[str, ...]
    empty: tuple[frozenset[str], ...]
    differ: str = ""

    @property
    def answers(self) -> tuple[str, ...]:
        """All possible answers, in the order of the search's values."""
        return answers(self.steps[-1])


def answers(question: str) -> tuple[str, ...]:
    """Possible answers of a last step."""
    kind, _, attribute = question.partition(" ")
    if kind == "query":
        return VALUES[attribute]
    return NUMBERS if kind == "count" else ("no", "yes")


def _family(group: str, steps: str, *empty: str, differ: str = "") -> Family:
    """A family from comma-separated steps; `empty` is of its last phrases, none of the others."""
    parts = tuple(steps.split(", "))
    count = sum(step.split()[0] in CHOICES for step in parts)
    padded = ("",) * (count - len(empty)) + empty
    return Family(group, parts, tuple(frozenset(e.split()) for e in padded), differ)


def _chain(hops: int, last: str) -> str:
    """Steps of a phrase that is reached over some relations: "one, to one, to some"."""
    return ", ".join(["one", *["to one"] * (hops - 1), f"to {last}"] if hops else [last])


def _compare_integer() -> Iterator[Family]:
    for hops in ((0, 0), (1, 0), (1, 1)):
        for how in ("equal_integer", "less_than", "greater_than"):
            sides = ", ".join(_chain(h, "some") for h in hops)
            differ = "counts" if hops == (0, 0) else ""
            yield _family("compare integer", f"{sides}, {how}", differ=differ)


def _comparison() -> Iterator[Family]:
    for a in ATTRIBUTES:
        yield _family("comparison", f"one, one, equal {a}", a, a)
    for a, hops in product(ATTRIBUTES, ((1, 0), (0, 1), (1, 1))):
        steps = f"{_chain(hops[0], 'one')}, {_chain(hops[1], 'one')}, equal {a}"
        empty = {(1, 0): (a, a), (0, 1): (a, "", a), (1, 1): (a, "", a)}[hops]
        if (a, hops) == ("size", (1, 0)):  # the authors look at the anchor instead of the last
            empty = (a, a, "")
        yield _family("comparison", steps, *empty)


def _hops(group: str, hops: int, order: tuple[str, ...]) -> Iterator[Family]:
    yield _family(group, f"{_chain(hops, 'some')}, count")
    yield _family(group, f"{_chain(hops, 'some')}, exist")
    for a in order:
        yield _family(group, f"{_chain(hops, 'one')}, query {a}", a)


def _single_and() -> Iterator[Family]:
    sides = "one, beside, one, beside"
    yield _family("single and", f"{sides}, both some, count")
    for a in ("size", "color", "material", "shape"):
        yield _family("single and", f"{sides}, both one, query {a}", a, differ="sets")


def _same_relate() -> Iterator[Family]:
    for middle, question in product(("", "with some, "), ("exist", "count")):
        for a in ATTRIBUTES:
            empty = (a, a) if middle else (a,)
            yield _family("same relate", f"one, same {a}, {middle}{question}", *empty)
    for a, b in product(ATTRIBUTES, ATTRIBUTES):
        if a != b:
            steps = f"one, same {a}, with one, query {b}"
            yield _family("same relate", steps, a, f"{a} {b}")


def _single_or() -> Iterator[Family]:
    group, plain = "single or", "some, some, or"
    related = {h: f"{_chain(h[0], 'some')}, {_chain(h[1], 'some')}, or, count"
               for h in ((1, 1), (1, 0), (0, 1))}  # fmt: skip
    shared = {
        a: _family(group, f"{plain}, only {a}, count", a, a, "", differ="sets") for a in ATTRIBUTES
    }
    yield _family(group, f"{plain}, count", differ="sets")
    yield shared["size"]
    yield shared["color"]
    yield _family(group, related[1, 1])
    yield shared["material"]
    yield shared["shape"]
    yield _family(group, related[1, 0])
    yield _family(group, related[0, 1])


FAMILIES: tuple[Family, ...] = (
    *_compare_integer(),
    *_comparison(),
    *_hops("three hop", 3, ("size", "shape", "color", "material")),
    *_single_and(),
    *_same_relate(),
    *_single_or(),
    *_hops("one hop", 1, ("size", "color", "material", "shape")),
    *_hops("two hop", 2, ("size", "color", "material", "shape")),
    *_hops("zero hop", 0, ("shape", "material", "color", "size")),
)
