"""Predicted beside true objects in words, as Markdown (Thesis, Table 6.6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from setexp.figures.objects import Pair, Thing, score

_HEAD = """\
# Predicted and true objects

Position (x, y, z), then size, colour, material and shape. Each row is a true object, in the order
of x, with the predicted object that was matched to it. **Bold** is a mistake: a wrong attribute, an
object that is missing (its mask is below 0.5), or one too many.
"""


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
    text = _words(pair.predicted, pair.wrong)
    return text if pair.true is not None else f"**too many:** {text}"


def _words(thing: Thing, wrong: set[str]) -> str:
    """`(x, y, z)<br>large purple rubber sphere`, wrong words bold."""
    position = ", ".join(f"{number:.2f}" for number in thing.position)
    words = ((name, getattr(thing, name)) for name in ("size", "color", "material", "shape"))
    return f"({position})<br>" + " ".join(f"**{w}**" if n in wrong else w for n, w in words)
