"""Procedural scenes of coloured, numbered things, and proposals as a detector would make them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from setexp.datasets.array_store import Array
from setexp.datasets.vqa.proposals import Image

WIDTH, HEIGHT = 640, 480
NOUNS = (
    ("cat", "cats"), ("dog", "dogs"), ("horse", "horses"), ("sheep", "sheep"), ("bird", "birds"),
    ("car", "cars"), ("bus", "buses"), ("boat", "boats"), ("kite", "kites"), ("clock", "clocks"),
)  # fmt: skip
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "light-blue")
DIGITS = 10
_KINDS_IN_SCENE = 3  # nouns of one scene
_BACKGROUNDS = 6
_FEWEST_BOXES = 10
_NOISE, _JITTER, _PART = 0.5, 0.06, 0.4
_TOGETHER = 250  # scenes whose features are in memory at once


class Recipe(NamedTuple):
    """What scenes and proposals are like.

    Args:
        features: D. objects: at most so many in a scene. duplicates: at most so many proposals of
            each. distractors: at most so many proposals of parts and of nothing.
        data_seed: of everything.
    """

    features: int
    objects: int
    duplicates: int
    distractors: int
    data_seed: int

    @property
    def most_boxes(self) -> int:
        """Proposals of the fullest scene."""
        return max(_FEWEST_BOXES, self.objects * self.duplicates + self.distractors)


class Scenes(NamedTuple):
    """I scenes of up to M things: noun (-1 for none), colour and digit (I, M), box (I, M, 4)."""

    noun: Array
    colour: Array
    digit: Array
    box: Array


def draw_scenes(rng: np.random.Generator, count: int, recipe: Recipe) -> Scenes:
    """Scenes with 1 to `objects` things of a few kinds, wherever they happen to be."""
    shape = (count, recipe.objects)
    kinds = rng.random((count, len(NOUNS))).argsort(1)[:, :_KINDS_IN_SCENE]
    rare = np.minimum(
        rng.integers(0, _KINDS_IN_SCENE, shape), rng.integers(0, _KINDS_IN_SCENE, shape)
    )
    noun = np.take_along_axis(kinds, rare, 1)
    present = np.arange(recipe.objects) < rng.integers(1, recipe.objects + 1, (count, 1))
    side = rng.uniform(50, 130, (*shape, 2))
    corner = rng.random((*shape, 2)) * (np.array([WIDTH, HEIGHT]) - side)
    box = np.concatenate([corner, corner + side], -1)
    colour, digit = (rng.integers(0, n, shape) for n in (len(COLOURS), DIGITS))
    return Scenes(np.where(present, noun, -1), colour, digit, box)


def proposals(
    rng: np.random.Generator, scenes: Scenes, recipe: Recipe, first_id: int
) -> Iterator[Image]:
    """What a detector finds: each thing once or more, parts of things, and nothing at all."""
    for start in range(0, len(scenes.noun), _TOGETHER):
        rows = slice(start, start + _TOGETHER)
        some = Scenes(*(field[rows] for field in scenes))
        yield from _proposals(rng, some, recipe, first_id + start)


def _proposals(
    rng: np.random.Generator, scenes: Scenes, recipe: Recipe, first_id: int
) -> Iterator[Image]:
    count, objects = scenes.noun.shape
    repeated = [np.repeat(field, recipe.duplicates, axis=1) for field in scenes]
    noun, colour, digit, box = repeated
    copy = np.tile(np.arange(recipe.duplicates), objects)
    found = np.repeat(
        rng.integers(1, recipe.duplicates + 1, (count, objects)), recipe.duplicates, 1
    )
    shown = (noun >= 0) & (copy < found)

    # of a part, or of nothing where the thing it would be a part of is missing
    extra = max(recipe.distractors, _FEWEST_BOXES - 1)
    of = rng.integers(0, objects, (count, extra))
    noun_, colour_, digit_ = (np.take_along_axis(f, of, 1) for f in scenes[:3])
    whole = np.take_along_axis(scenes.box, of[..., None], 1)
    part = (noun_ >= 0) & (rng.random(of.shape) < 0.5)
    side = np.where(part[..., None], _PART * (whole[..., 2:] - whole[..., :2]), 60)
    room = np.where(part[..., None], whole[..., 2:] - whole[..., :2], [WIDTH, HEIGHT]) - side
    corner = np.where(part[..., None], whole[..., :2], 0) + rng.random((*of.shape, 2)) * room
    # at least the fewest boxes in all
    wanted = np.maximum(
        rng.integers(0, recipe.distractors + 1, count), _FEWEST_BOXES - shown.sum(1)
    )
    wanted = np.minimum(wanted, extra)

    noun, colour, digit = (
        np.concatenate(pair, 1) for pair in ((noun, noun_), (colour, colour_), (digit, digit_))
    )
    box = np.concatenate([box, np.concatenate([corner, corner + side], -1)], 1)
    shown = np.concatenate([shown, np.arange(extra) < wanted[:, None]], 1)
    strength = np.concatenate([np.ones((count, len(copy))), 0.5 * part], 1)

    size = np.tile(box[..., 2:] - box[..., :2], 2)
    box = box + rng.normal(0, _JITTER, box.shape) * size
    box = box.clip(0, np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])).astype(np.float32)
    codes = _codes(recipe)
    background = codes[-1][rng.integers(0, _BACKGROUNDS, shown.shape)]
    thing = codes[0][noun] + codes[1][colour] + codes[2][digit]
    strength = strength[..., None].astype(np.float32)
    features = strength * thing + (1 - strength) * background
    features += _NOISE * rng.standard_normal(features.shape, np.float32)
    np.maximum(features, 0, out=features)  # a detector's features are rectified
    order = rng.random(shown.shape).argsort(1)  # no order tells what belongs together
    for i in range(count):
        rows = order[i][shown[i, order[i]]]
        yield Image(first_id + i, (WIDTH, HEIGHT), box[i, rows], features[i, rows])


def _codes(recipe: Recipe) -> tuple[Array, ...]:
    """What a noun, a colour, a digit and a background add to a feature vector."""
    rng = np.random.default_rng([recipe.data_seed, 0])
    sizes = (len(NOUNS), len(COLOURS), DIGITS, _BACKGROUNDS)
    return tuple(rng.standard_normal((n, recipe.features), np.float32) for n in sizes)
