"""Questions about procedural scenes, complementary images, and what ten people would answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from setexp.datasets.array_store import Array
from setexp.datasets.vqa.scenes import COLOURS, DIGITS, NOUNS, Scenes
from setexp.ops.votes import PEOPLE

# Sentence, what it asks for, and whether it names a colour. "{one}" and "{many}" are the noun.
TEMPLATES = (
    ("How many {many} are there?", "count", False),
    ("How many {many} do you see?", "count", False),
    ("How many {colour} {many} are in the picture?", "count", True),
    ("Is there a {one} in the picture?", "any", False),
    ("Do you see any {colour} {many}?", "any", True),
    ("Are all of the {many} {colour}?", "all", True),
    ("What color is the {one}?", "colour", False),
    ("What number is on the {one}?", "digit", False),
)
_WEIGHTS = np.array([0.15, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.15])
_TYPES = {"count": "number", "digit": "number", "colour": "other", "any": "yes/no", "all": "yes/no"}
_ASKS = np.array([asks for _, asks, _ in TEMPLATES])
_COLOURED = np.array([coloured for *_, coloured in TEMPLATES])
_TRIES = 6  # things that are looked at for one that a question fits
_CANDIDATES = 24  # images that are looked at for a complementary one
# How often a person is wrong: always, and for each thing that is counted.
_WRONG = {"count": 0.05, "digit": 0.08, "colour": 0.12, "any": 0.06, "all": 0.06}
_WRONG_EACH = 0.03


class Asked(NamedTuple):
    """Q questions: image, template, noun, colour and truth (Q,); pair (P, 2) of their places.

    The truth is a count, a digit, a place in `COLOURS`, or 0 and 1 for no and yes.
    """

    image: Array
    template: Array
    noun: Array
    colour: Array
    truth: Array
    pair: Array


def ask(rng: np.random.Generator, scenes: Scenes, per_image: int) -> Asked:
    """Some questions about each scene, and each again about a scene where the answer is another."""
    count, things = scenes.noun.shape
    image = np.repeat(np.arange(count), per_image)
    template = rng.choice(len(TEMPLATES), len(image), p=_WEIGHTS)
    tries = (len(image), _TRIES)
    thing = rng.integers(0, things, tries)  # mostly, it is about what is there
    row = image[:, None]
    there = (scenes.noun[row, thing] >= 0) & (rng.random(tries) < 0.9)
    noun = np.where(there, scenes.noun[row, thing], rng.integers(0, len(NOUNS), tries))
    same = there & (rng.random(tries) < 0.6)
    colour = np.where(same, scenes.colour[row, thing], rng.integers(0, len(COLOURS), tries))
    truth = answer(scenes, row, template[:, None], noun, colour)
    first, fits = (truth >= 0).argmax(1), (truth >= 0).any(1)
    noun, colour, truth = (part[np.arange(len(image)), first] for part in (noun, colour, truth))
    image, template, noun, colour, truth = (
        part[fits] for part in (image, template, noun, colour, truth)
    )

    others = rng.integers(0, count, (len(image), _CANDIDATES))
    theirs = answer(scenes, others, *(part[:, None] for part in (template, noun, colour)))
    distance = np.abs(theirs - truth[:, None]).astype(float)
    distance[(theirs < 0) | (distance == 0)] = np.inf
    best = distance.argmin(1)  # as similar as complementary images are
    paired = np.flatnonzero(np.isfinite(distance.min(1)))
    other, their = others[paired, best[paired]], theirs[paired, best[paired]]
    pair = np.stack([paired, len(image) + np.arange(len(paired))], 1)
    template, noun, colour = (np.append(part, part[paired]) for part in (template, noun, colour))
    image, truth = np.append(image, other), np.append(truth, their)
    return Asked(image, template, noun, colour, truth, pair)


def answer(scenes: Scenes, image: Array, template: Array, noun: Array, colour: Array) -> Array:
    """The truth; -1 where a question does not fit. Arguments are broadcast against each other."""
    is_noun = scenes.noun[image] == noun[..., None]
    is_both = is_noun & (scenes.colour[image] == colour[..., None])
    nouns, both = is_noun.sum(-1), is_both.sum(-1)
    found = np.where(_COLOURED[template], both, nouns)
    asks = _ASKS[template]
    only = nouns == 1  # "the" thing
    its_colour, its_digit = ((is_noun * f[image]).sum(-1) for f in (scenes.colour, scenes.digit))
    kinds: dict[str, Array] = {
        "count": found,
        "any": (found > 0).astype(int),
        "all": np.where(nouns > 1, (both == nouns).astype(int), -1),
        "colour": np.where(only, its_colour, -1),
        "digit": np.where(only, its_digit, -1),
    }
    asks = np.broadcast_to(asks, found.shape)
    return np.select([asks == name for name in kinds], list(kinds.values()), -1)


def people(rng: np.random.Generator, asked: Asked) -> Array:
    """What ten people say, coded as the truth is: (Q, 10)."""
    shape = (len(asked.truth), PEOPLE)
    truth, asks = asked.truth[:, None], _ASKS[asked.template][:, None]
    wrong = np.select([asks == name for name in _WRONG], list(_WRONG.values()))
    wrong = np.minimum(wrong + _WRONG_EACH * truth * (asks == "count"), 0.35)
    near = np.abs(truth + rng.choice([-1, 1], shape))  # 0 becomes 1
    instead = np.select(
        [asks == "count", asks == "digit", asks == "colour"],
        [near, rng.integers(0, DIGITS, shape), rng.integers(0, len(COLOURS), shape)],
        1 - truth,
    )
    return np.where(rng.random(shape) < wrong, instead, truth)


def texts(asked: Asked, codes: Array, hyphen: Array) -> list[dict[str, Any]]:
    """Question, type and ten answers of each, in words; some people write hyphens (Q, 10)."""
    found = []
    for template, noun, colour, said, written in zip(
        asked.template, asked.noun, asked.colour, codes, hyphen, strict=True
    ):
        sentence, asks, _ = TEMPLATES[template]
        one, many = NOUNS[noun]
        spoken = COLOURS[colour].replace("-", " ")
        answers = [
            _word(asks, int(code), bool(how)) for code, how in zip(said, written, strict=True)
        ]
        found.append(
            {
                "question": sentence.format(one=one, many=many, colour=spoken),
                "type": _TYPES[asks],
                "answers": answers,
            }
        )
    return found


def _word(asks: str, code: int, hyphen: bool) -> str:
    if asks == "colour":
        return COLOURS[code] if hyphen else COLOURS[code].replace("-", " ")
    return ("no", "yes")[code] if asks in ("any", "all") else str(code)
