"""Bounding boxes that settle on the objects of an image (Thesis, Figures 6.5 and 6.6)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from setexp.datasets.clevr.camera import ASPECT
from setexp.figures import canvas
from setexp.figures.examples import Progression, match

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 1.35  # inches of a panel
# Bright and distinct on CLEVR's grey ground, one per predicted row.
_COLORS = (
    "#ff3b30", "#00c8ff", "#ffd60a", "#34d058", "#ff4fd8",
    "#ff9500", "#5e5cff", "#00ffc3", "#ffffff", "#a6ff00",
)  # fmt: skip


class BoxesProgression(Progression):
    """One row per image: one model's predicted boxes after some inner steps, and the true boxes.

    Boxes are xmin, ymin, xmax, ymax as shares of width and height. A predicted row keeps its
    colour, and the true box it is matched to in the end has it too. A box is as opaque and as
    thick as its mask says. Writes `boxes_progression.png`.
    """

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        shown, columns = self.predicted(task, dataset, generator)
        # row of the prediction that each true box was matched to
        owner = match(columns[-1][1], shown.target).argsort(-1)
        figure, panels = canvas.grid(
            len(shown.input), [_HEIGHT * ASPECT] * (len(columns) + 1), _HEIGHT
        )
        canvas.name_columns(panels, [*(name for name, _ in columns), "true boxes"])
        slots = torch.arange(owner.shape[1])
        for row, axes in enumerate(panels):
            for panel, (_, sets) in zip(axes, columns, strict=False):
                draw_boxes(panel, shown.input[row], sets.x[row], sets.mask[row], slots)
            true = shown.target
            draw_boxes(axes[-1], shown.input[row], true.x[row], true.mask[row], owner[row])
        canvas.caption(
            figure,
            "A set of boxes finds the objects",
            "Each predicted box keeps its colour; the true box it ends up matched with has the"
            " same.\nThe fainter a box, the less it is present.",
        )
        return [canvas.save(figure, folder / "boxes_progression.png")]


def draw_boxes(axes: Axes, image: Tensor, boxes: Tensor, mask: Tensor, colors: Tensor) -> None:
    """An image (3, H, W) in [0, 1] with boxes (N, 4), masks (N,) and numbers of colours (N,)."""
    from matplotlib.patches import Rectangle

    axes.imshow(image.permute(1, 2, 0).numpy(), extent=(0, 1, 1, 0), aspect="auto")
    for box, present, number in zip(boxes.tolist(), mask.tolist(), colors.tolist(), strict=True):
        opacity = min(max(present, 0.0), 1.0)
        axes.add_patch(
            Rectangle(
                (box[0], box[1]),
                box[2] - box[0],
                box[3] - box[1],
                fill=False,
                edgecolor=_COLORS[number % len(_COLORS)],
                alpha=opacity,
                linewidth=0.5 + 1.3 * opacity,
            )
        )
