"""State vectors as objects in words, and predicted objects beside the true ones."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from setexp.datasets.clevr.vocabulary import COLORS, MATERIALS, SHAPES, SIZES
from setexp.figures.examples import match
from setexp.sets import SetBatch

_GROUPS = {"material": MATERIALS, "color": COLORS, "shape": SHAPES, "size": SIZES}
_PRESENT = 0.5  # masks from here on are an object; average precision has no such threshold


class Thing(NamedTuple):
    """One object of a scene.

    Args:
        position: x, y, z in world units.
        material, color, shape, size: words of `setexp.datasets.clevr.vocabulary`.
        present: its mask.
    """

    position: tuple[float, float, float]
    material: str
    color: str
    shape: str
    size: str
    present: float


class Pair(NamedTuple):
    """A predicted row and the true object it is matched to, None where that is padding."""

    predicted: Thing
    true: Thing | None

    @property
    def found(self) -> bool:
        """Whether the predicted row counts as an object: its mask is at least a half."""
        return self.predicted.present >= _PRESENT

    @property
    def wrong(self) -> set[str]:
        """Names of the attributes that differ."""
        if self.true is None:
            return set()
        return {n for n in _GROUPS if getattr(self.predicted, n) != getattr(self.true, n)}

    @property
    def distance(self) -> float | None:
        """From the true object, in world units."""
        return None if self.true is None else math.dist(self.predicted.position, self.true.position)

    @property
    def right(self) -> bool:
        """Whether a true object is found with all of its attributes, wherever it is."""
        return self.found and self.true is not None and not self.wrong


def read_thing(vector: Tensor, present: float) -> Thing:
    """A state vector (18,): coordinates / 3, then one-hot material, colour, shape and size."""
    x, y, z = (3 * vector[:3]).tolist()
    lengths = [len(words) for words in _GROUPS.values()]
    material, color, shape, size = (
        words[int(part.argmax())]
        for words, part in zip(_GROUPS.values(), vector[3:].split(lengths), strict=True)
    )
    return Thing((x, y, z), material, color, shape, size, present)


def read_scene(prediction: SetBatch, target: SetBatch) -> list[Pair]:
    """Pairs of one scene: true objects by x coordinate, then what is matched to padding.

    Rows are matched with their masks at least Huber cost, as in training.

    Args:
        prediction: x (N, 18), mask (N,). target: likewise.
    """
    one = SetBatch(prediction.x.unsqueeze(0), prediction.mask.unsqueeze(0))
    rows = match(one, SetBatch(target.x.unsqueeze(0), target.mask.unsqueeze(0)))[0].tolist()
    pairs = []
    for vector, present, row in zip(prediction.x, prediction.mask.tolist(), rows, strict=True):
        true = read_thing(target.x[row], 1.0) if target.mask[row] > 0 else None
        pairs.append(Pair(read_thing(vector, present), true))
    return sorted(pairs, key=lambda p: (p.true is None, (p.true or p.predicted).position))


def score(pairs: list[Pair]) -> str:
    """How much of a scene is right, in a few words."""
    true = sum(pair.true is not None for pair in pairs)
    excess = sum(pair.found and pair.true is None for pair in pairs)
    text = f"{sum(pair.right for pair in pairs)} of {true} right"
    return text + (f", {excess} too many" if excess else "")
