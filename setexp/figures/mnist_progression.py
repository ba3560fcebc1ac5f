"""Digits that appear from a learned cloud of points, inner step by step (Thesis, Figure 6.3)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from setexp.figures import canvas
from setexp.figures.examples import Progression

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = 0.95  # inches of a panel
_EDGE = 0.06  # shown beyond the unit square on each side
_PIXEL = 1 / 27  # distance of neighbouring points (Thesis, 5.6.2)


class MnistProgression(Progression):
    """One row per digit: one model's predicted points after each inner step, and the target set.

    Points are (row, column) in [0, 1]; a point is as opaque as its mask. Writes
    `mnist_progression.png`.
    """

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        shown, columns = self.predicted(task, dataset, generator)
        columns.append(("target", shown.target))
        figure, panels = canvas.grid(len(shown.target.x), [_SIDE] * len(columns), _SIDE)
        canvas.name_columns(panels, [name for name, _ in columns])
        for row, axes in enumerate(panels):
            for panel, (name, sets) in zip(axes, columns, strict=True):
                color = canvas.INK if name == "target" else canvas.PREDICTED
                draw_points(panel, sets.x[row], sets.mask[row], color)
        canvas.caption(
            figure,
            "A set of points becomes a digit",
            "Predicted sets (blue) and the sets they should equal (black).\n"
            "The fainter a point, the less it is present.",
        )
        return [canvas.save(figure, folder / "mnist_progression.png")]


def draw_points(axes: Axes, x: Tensor, mask: Tensor, color: str) -> None:
    """Points x (N, 2), (row, column), as pixels as opaque as their mask (N,)."""
    from matplotlib.colors import to_rgba

    axes.set_facecolor(canvas.GROUND)
    axes.set(xlim=(-_EDGE, 1 + _EDGE), ylim=(1 + _EDGE, -_EDGE))
    side = _SIDE * 72 * _PIXEL / (1 + 2 * _EDGE)  # of a pixel, in points
    colors = [to_rgba(color, opacity) for opacity in mask.clamp(0, 1).tolist()]
    row, column = x.T.numpy()
    axes.scatter(column, row, s=side**2, marker="s", linewidths=0, c=colors)
