"""What the counting module makes of weighted boxes, question by question (Thesis, Figure 3.11)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from setexp.figures import canvas
from setexp.figures.boxes_progression import draw_boxes
from setexp.ops.votes import PEOPLE

_SIDE, _TITLE = 1.5, 0.5  # inches of a panel and of the room above it
_LETTERS = 38  # in a line of a title
_FRAME = torch.full((3, 1, 1), 0.4)  # grey, as proposals come without their pictures


class Example(NamedTuple):
    """A question with what its proposals were turned into.

    Args:
        question, predicted, said: texts, the last of the answer that most people gave.
        votes: how many of ten.
        boxes, weight: of the proposals that count, (n, 4) as shares of the frame, and (n,).
        matrices: A, D and C, (3, n, n). c: the count.
    """

    question: str
    predicted: str
    said: str
    votes: int
    boxes: Tensor
    weight: Tensor
    matrices: Tensor
    c: float


class CountingExamples:
    """A row per question: proposals, as opaque as their weights, A, D, C and the count c.

    Of each of some answers, the first counting question of a split to which most people gave it,
    whatever the model says. The frame, blank, ends where the outermost proposals do. Writes
    `counting_examples.png`; nothing where there is no such question.

    Args:
        counting: where the `CountingModule` is within the task.
        split: of the questions. answers: texts.
        batch_size: of the batches in which questions are looked for.
    """

    def __init__(
        self, *, counting: str, split: str, answers: Sequence[str], batch_size: int
    ) -> None:
        self.counting, self.split, self.batch_size = counting, split, batch_size
        self.answers = list(answers)

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        examples = self.examples(task, dataset, generator)
        if not examples:
            return []
        widths = [_SIDE * 4 / 3, *[_SIDE] * 3]
        figure, panels = canvas.grid(len(examples), widths, _SIDE, above=_TITLE)
        for (frame, *squares), shown in zip(panels, examples, strict=True):
            draw_boxes(frame, _FRAME, shown.boxes, shown.weight, torch.arange(len(shown.boxes)))
            _title(frame, *titles(shown))
            names = ("A", "D", f"C, c = {shown.c:.2f}")
            for panel, name, matrix in zip(squares, names, shown.matrices, strict=True):
                panel.imshow(matrix.numpy(), cmap="gray", vmin=0, vmax=1)
                panel.spines[:].set(visible=True, color=canvas.QUIET, linewidth=0.6)
                _title(panel, name, canvas.INK)
        canvas.caption(
            figure,
            "How a model counts",
            "Left: the proposals that count, as opaque as their weights, on a blank frame."
            "\nAttention matrix A, distance matrix D and count matrix C, black 0 to white 1;\nc is"
            " the root of the sum of C. Red: the answer is not the one that most people gave.",
        )
        return [canvas.save(figure, folder / "counting_examples.png")]

    @torch.no_grad()
    def examples(self, task: nn.Module, dataset: Any, generator: torch.Generator) -> list[Example]:
        """The questions that are shown, in the order of their answers."""
        task.eval()
        found: dict[str, Example] = {}
        passes = dataset.batches(
            self.split, self.batch_size, generator, shuffle=False, drop_last=False
        )
        for batch in passes:
            votes, most = batch.target.max(-1)
            said = [dataset.answers[place] for place in most.tolist()]
            rows = {
                answer: row
                for row in reversed(batch.aux["counting"].nonzero().flatten().tolist())
                if votes[row] > 0 and (answer := said[row]) in self.answers
            }
            new = [answer for answer in rows if answer not in found]
            if new:
                found |= self._read(task, dataset, batch, {a: rows[a] for a in new})
            if len(found) == len(self.answers):
                break
        return [found[answer] for answer in self.answers if answer in found]

    def _read(
        self, task: nn.Module, dataset: Any, batch: Any, rows: dict[str, int]
    ) -> dict[str, Example]:
        module: Any = task.get_submodule(self.counting)
        given: list[tuple[Tensor, Tensor]] = []
        watch = module.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
        try:
            predicted = task(batch).stats["answer"]
        finally:
            watch.remove()
        counted = module.matrices(*given[0])
        matrices = torch.stack([counted.A, counted.D, counted.C], 1).float().cpu()
        found = {}
        for answer, row in rows.items():
            words = batch.aux["word"][row, : batch.aux["length"][row]].tolist()
            edge = given[0][0][row].amax(0)[2:].clamp(min=1e-6).repeat(2)
            found[answer] = Example(
                question=dataset.question(words),
                predicted=dataset.answers[int(predicted[row])],
                said=answer,
                votes=round(PEOPLE * float(batch.target[row].max())),
                boxes=(counted.boxes[row] / edge).float().cpu(),
                weight=counted.attention[row].float().cpu(),
                matrices=matrices[row],
                c=float(counted.c[row]),
            )
        return found


def titles(shown: Example) -> tuple[str, str]:
    """Question, prediction and answer, and their colour."""
    lines = wrap(f"{shown.question}?", _LETTERS)
    predicted = shown.predicted or "no answer"  # a place that no answer has
    lines.append(f"{predicted}; people: {shown.said} ({shown.votes} of {PEOPLE})")
    return "\n".join(lines), canvas.INK if shown.predicted == shown.said else canvas.MISTAKE


def _title(panel: Any, text: str, color: str) -> None:
    panel.set_title(text, fontsize=7.5, color=color, loc="left", pad=3)
