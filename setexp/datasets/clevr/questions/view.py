"""One scene as bit masks: a set of its at most ten objects is an integer.

A phrase is one of 324 combinations: a value, or any, for size (2), colour (8), material (2) and
shape (3). What all of them fit is one array, so that a search looks at every phrase at once.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from setexp.datasets.clevr.questions.program import (
    ATTRIBUTES,
    RELATIONS,
    VALUES,
)
from setexp.datasets.clevr.vocabulary import MAX_OBJECTS

Array = NDArray[np.intp]

# Values of each phrase, 0 for any: (324, 4).
PHRASES: Array = np.array(list(product(*(range(len(VALUES[a]) + 1) for a in ATTRIBUTES))))
# Objects in a set, and the object of a set that has one; -1 otherwise.
SIZE: Array = np.array([mask.bit_count() for mask in range(2**MAX_OBJECTS)])
ONLY: Array = np.array(
    [m.bit_length() - 1 if m.bit_count() == 1 else -1 for m in range(2**MAX_OBJECTS)]
)

# Phrases that leave some attributes open.
_OPEN = {
    frozenset(names): (PHRASES[:, [ATTRIBUTES.index(a) for a in names]] == 0).all(1)
    for k in range(len(ATTRIBUTES) + 1)
    for names in combinations(ATTRIBUTES, k)
}


def leaves_open(attributes: frozenset[str], phrases: Array) -> NDArray[np.bool_]:
    """Whether phrases name none of the attributes."""
    return _OPEN[attributes][phrases]


class View:
    """What a search asks about a scene.

    Args:
        scene: an entry of an official scene file.

    Attributes:
        everything: the set of all objects.
        fits: what each phrase fits, (324,).
        values: of each attribute, positions in `VALUES` of each object, (n,).
        same: of each attribute, what else is like each object, (n,).
        related: what stands in each relation to each object, (n, 4).
    """

    def __init__(self, scene: dict[str, Any]) -> None:
        objects = scene["objects"]
        bits = 1 << np.arange(len(objects))
        self.everything = int(bits.sum())
        self.values = {a: np.array([VALUES[a].index(o[a]) for o in objects]) for a in ATTRIBUTES}
        self.having = {
            a: (self.values[a] == np.arange(len(VALUES[a]))[:, None]) @ bits for a in ATTRIBUTES
        }
        self.same = {a: self.having[a][self.values[a]] & ~bits for a in ATTRIBUTES}
        fits = np.array([self.everything])
        for a in ATTRIBUTES:
            fits = np.bitwise_and.outer(fits, np.append(self.everything, self.having[a])).ravel()
        self.fits: Array = fits
        relationships = scene["relationships"]
        self.related: Array = np.array(
            [
                [sum(1 << j for j in relationships[name][i]) for name in RELATIONS]
                for i in range(len(objects))
            ]
        )
        self._from: dict[int, tuple[Array, Array, NDArray[np.bool_]]] = {}

    @cached_property
    def fitting(self) -> Array:
        """Phrases that fit something."""
        return self.fits.nonzero()[0]

    def reached(self, start: int) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Relations to an object with phrases that fit something in the scene.

        Returns:
            324 * relation + phrase; the set that both leave; whether the relation leaves out
            nothing that the phrase fits.
        """
        if start not in self._from:
            fits = self.fits[self.fitting]
            sets = self.related[start][:, None] & fits
            codes = len(PHRASES) * np.arange(len(RELATIONS))[:, None] + self.fitting
            self._from[start] = codes.ravel(), sets.ravel(), (sets == fits).ravel()
        return self._from[start]
