"""Random multisets and their reconstructions (iDSPN, Figure 4)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from setexp.figures import canvas
from setexp.figures.examples import match, predict
from setexp.ops.costs import Cost, matched_cost
from setexp.ops.rows import take_rows
from setexp.sets import SetBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = 1.9  # inches of a panel
_COLUMNS = 4
_ROOM = 1.12  # shown width over the largest coordinate of a target


class MultisetExamples:
    """A panel per set: its elements as rings, the last predicted ones as dots, joined as matched,
    and the way of each from the initial set.

    Elements of more than two features are seen from their first two. Writes `multisets.png`.

    Args:
        sets: the first of the test split.
        batch_size: of the batch they are predicted in; see `predict`.
        steps: inner steps, those of the run.
    """

    def __init__(self, *, sets: int, batch_size: int, steps: int) -> None:
        self.sets, self.batch_size, self.steps = sets, batch_size, steps

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        shown = predict(
            task,
            dataset,
            sets=self.sets,
            batch_size=self.batch_size,
            steps=self.steps,
            generator=generator,
        )
        output = SetBatch(shown.prediction.x[-1], shown.prediction.mask[-1])
        target = take_rows(shown.target.x, match(output, shown.target))
        loss = matched_cost(output.x, target, Cost.huber).mean(-1)
        count, n, d = target.shape
        lines = -(-count // _COLUMNS)
        figure, panels = canvas.grid(lines, [_SIDE] * min(count, _COLUMNS), _SIDE)
        edge = _ROOM * max(1.0, float(shown.target.x[..., :2].abs().max()))
        for index, panel in enumerate(axes for line in panels for axes in line):
            if index == count:
                break
            draw_ways(panel, shown.prediction.x[:, index])
            draw_pairs(panel, target[index], output.x[index], output.mask[index] > 0, edge)
            panel.text(
                0.04, 0.03, f"{float(loss[index]):.2g}", transform=panel.transAxes, fontsize=7.5,
                color=canvas.QUIET,
            )  # fmt: skip
        seen = "" if d <= 2 else f", seen from 2 of their {d} features"
        canvas.caption(
            figure,
            f"Sets of {n} random elements, encoded and decoded",
            f"Rings: the elements{seen}. Dots: what {self.steps} inner steps make of the set's"
            " vector.\nRed joins matched pairs, pale blue is the way from the initial set; below:"
            " the set's loss.",
        )
        return [canvas.save(figure, folder / "multisets.png")]


def draw_ways(axes: Axes, sets: Tensor) -> None:
    """Rows of all inner steps (T, N, D), each a line through its first two features."""
    for way in sets.transpose(0, 1):
        x, y = plane(way).T.numpy()
        axes.plot(x, y, color="#9cc3e3", linewidth=0.7, zorder=1)


def draw_pairs(axes: Axes, target: Tensor, output: Tensor, present: Tensor, edge: float) -> None:
    """Target and output (N, D) of matched rows, in their first two features; present (N,)."""
    axes.set_facecolor(canvas.GROUND)
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge))
    (x, y), (u, v) = (plane(rows).T.numpy() for rows in (target, output))
    size = max(9.0, 40.0 - len(target))
    axes.scatter(x, y, s=2.4 * size, facecolor="none", edgecolor=canvas.INK, linewidth=0.8)
    u, v, x, y = u[present], v[present], x[present], y[present]
    axes.plot([x, u], [y, v], color=canvas.MISTAKE, linewidth=0.9, zorder=2)
    axes.scatter(u, v, s=size, color=canvas.PREDICTED, linewidths=0, zorder=3)


def plane(rows: Tensor) -> Tensor:
    """The first two features of rows (N, D); a single one is a coordinate on the first axis."""
    return F.pad(rows, (0, max(0, 2 - rows.shape[-1])))[:, :2]
