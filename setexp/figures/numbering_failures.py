"""The test sets that are numbered worst, element by element (iDSPN, Table 8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from setexp.figures import canvas
from setexp.figures.examples import drawn_from
from setexp.files import write_text
from setexp.ops.costs import Cost
from setexp.ops.numbering import matched_numbers

_WIDTH, _LINE = 0.95, 0.14  # inches of a column, and of an element in it
_HEAD = """\
# Worst sets of the test split

Each column is a set, each line an element: its class, which is the input's, and the number it was
given. **Bold** numbers are not those they are matched to. Elements are in the order of class and
number.
"""


class Element(NamedTuple):
    """A numbered element: class and number from 0 on, and whether the number is wrong."""

    kind: int
    number: int
    wrong: bool

    def __str__(self) -> str:
        # beyond z, classes are numbers
        name = chr(ord("a") + self.kind) if self.kind < 26 else str(self.kind)
        return f"({name}, {self.number})"


class NumberingFailures:
    """One column per set: those with the most wrong numbers of the whole test split.

    Writes `numbering_failures.md` and, with Matplotlib, the same as `numbering_failures.png`.

    Args:
        sets: to show.
        batch_size: of the prediction.
        cost: of the matching, the loss's.
    """

    def __init__(self, *, sets: int, batch_size: int, cost: Cost) -> None:
        self.sets, self.batch_size, self.cost = sets, batch_size, cost

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        worst = self._worst(task, dataset, generator)
        write_text(folder / "numbering_failures.md", markdown(worst))
        return [_draw(worst, folder / "numbering_failures.png")]

    @torch.no_grad()
    def _worst(
        self, task: nn.Module, dataset: Any, generator: torch.Generator
    ) -> list[list[Element]]:
        """The sets with the most mistakes, most first; the earlier of two alike."""
        task.eval()
        worst: Tensor | None = None
        passes = dataset.batches("test", self.batch_size, generator, shuffle=False, drop_last=False)
        for batch in passes:
            with drawn_from(generator):
                x = task(batch).prediction.x[-1]
            right = matched_numbers(x, batch.target.x, self.cost).argmax(-1)
            number, kind = x.argmax(-1), batch.input.x.argmax(-1)
            new = torch.stack([kind, number, number != right], dim=-1).cpu()
            known = new if worst is None else torch.cat([worst, new])
            order = known[..., 2].sum(-1).argsort(stable=True, descending=True)
            worst = known[order[: self.sets]]
        assert worst is not None
        return [sorted(Element(k, n, bool(w)) for k, n, w in each) for each in worst.tolist()]


def headings(sets: list[list[Element]]) -> list[str]:
    """How many elements of each set are wrong."""
    return [f"{sum(e.wrong for e in elements)} wrong" for elements in sets]


def markdown(sets: list[list[Element]]) -> str:
    """Sets side by side, one element a line."""
    lines = [headings(sets), ["---"] * len(sets)]
    for elements in zip(*sets, strict=True):
        lines.append([f"**{e}**" if e.wrong else str(e) for e in elements])
    return _HEAD + "\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _draw(sets: list[list[Element]], path: Path) -> Path:
    size = len(sets[0])
    figure, [panels] = canvas.grid(1, [_WIDTH] * len(sets), _LINE * size)
    for panel, elements in zip(panels, sets, strict=True):
        panel.set(xlim=(0, 1), ylim=(size - 0.5, -0.5))
        for line, element in enumerate(elements):
            color = canvas.MISTAKE if element.wrong else canvas.INK
            panel.text(0, line, str(element), fontsize=8, color=color, va="center")
    canvas.name_columns([panels], headings(sets))
    canvas.caption(
        figure,
        "The sets that are numbered worst",
        f"Of the whole test split; each has {size} elements.\nWrong numbers in red.",
    )
    return canvas.save(figure, path)
