"""Predicted beside true objects in words, as Markdown (Thesis, Table 6.6; iDSPN, 9 and 10)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from setexp.figures.objects import Pair, Thing, score

_HEAD = """\
# Predicted and true objects

Position (x, y, z), distance d from the true one, then size, colour, material and shape. Each row is
a true object, in the order of x, with the predicted object that was matched to it. **Bold** is a
mistake: a wrong attribute, a distance above 0.25, an object that is missing (its mask is below
0.5), or one too many.
"""
_FAR = 0.25  # iDSPN's tables


def state_table(scenes: Sequence[Sequence[tuple[str, list[Pair]]]]) -> str:
    """Markdown of scenes, each a list of (name of a column, pairs in `read_scene`'s order)."""
    parts = [_HEAD]
    for number, columns in enumerate(scenes, start=1):
        names = [f"{name} ({score(pairs)})" for name, pairs in columns]
        lines = [_row([*names, "true"]), _row(["---"] * (len(names) + 1))]
        listed = ([p for p in pairs if p.found or p.true is not None] for _, pairs in columns)
        for pairs in zip_longest(*listed):
            true = next((p.true for p in pairs if p is not None and p.true is not None), None)
            cells = ["" if pair is None else _predicted(pair) for pair in pairs]
            lines.append(_row([*cells, "" if true is None else _words(true, set())]))
        parts.append(f"## Scene {number}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _predicted(pair: Pair) -> str:
    if not pair.found:
        return "**missing**"
    if pair.distance is None:
        return f"**too many:** {_words(pair.predicted, set())}"
    far = "**" if pair.distance > _FAR else ""
    return _words(pair.predicted, pair.wrong, f"{far}d={pair.distance:.2f}{far}")


def _words(thing: Thing, wrong: set[str], distance: str = "") -> str:
    """`(x, y, z) d=0.12<br>large purple rubber sphere`, wrong words bold."""
    position = ", ".join(f"{number:.2f}" for number in thing.position)
    where = f"({position}) {distance}" if distance else f"({position})"
    words = ((name, getattr(thing, name)) for name in ("size", "color", "material", "shape"))
    return f"{where}<br>" + " ".join(f"**{w}**" if n in wrong else w for n, w in words)
