"""Objects that find their places and looks (Thesis, Table 6.6), seen from above."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from setexp.datasets.clevr.camera import ASPECT
from setexp.figures import canvas
from setexp.figures.examples import START, Progression
from setexp.figures.objects import Pair, Thing, read_scene, score
from setexp.figures.scene_plan import REACH, draw_ground, draw_pairs, draw_ring, draw_thing
from setexp.figures.state_table import state_table
from setexp.files import write_text
from setexp.sets import SetBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 1.75  # inches of a panel
_LEGEND = 6.2  # inches the legend is wide


class StateProgression(Progression):
    """One row per image: one model's predicted objects after some inner steps, and the true ones.

    Objects are drawn from above, where state vectors put them. Writes `state_progression.png` and,
    with or without Matplotlib, the same in words: `state.md`.
    """

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        shown, predicted = self.predicted(task, dataset, generator)
        scenes = []
        for row in range(len(shown.input)):
            target = SetBatch(shown.target.x[row], shown.target.mask[row])
            scenes.append(
                [
                    (name, read_scene(SetBatch(sets.x[row], sets.mask[row]), target))
                    for name, sets in predicted
                ]
            )
        decided = [[c for c in columns if c[0] != START] for columns in scenes]
        write_text(folder / "state.md", state_table(decided))
        return [canvas.save(_draw(shown.input, scenes), folder / "state_progression.png")]


def _draw(images: torch.Tensor, scenes: list[list[tuple[str, list[Pair]]]]) -> Figure:
    names = ["image", *(name for name, _ in scenes[0]), "true objects"]
    widths = [_HEIGHT * ASPECT, *[_HEIGHT] * (len(names) - 1)]
    figure, panels = canvas.grid(len(scenes), widths, _HEIGHT)
    canvas.name_columns(panels, names)
    for image, columns, axes in zip(images, scenes, panels, strict=True):
        axes[0].imshow(image.permute(1, 2, 0).numpy(), aspect="auto")
        for panel in axes[1:]:
            draw_ground(panel)
        for panel, (name, pairs) in zip(axes[1:], columns, strict=False):
            _draw_stage(panel, name, pairs)
        for pair in columns[-1][1]:
            if pair.true is not None:
                draw_thing(axes[-1], pair.true)
    canvas.caption(
        figure,
        "The objects that a network reads off an image",
        "Each scene from above, with the camera at the bottom: what is predicted, and on the right"
        " what is true.\nA prediction is right if material, colour, shape and size are, wherever it"
        " stands.\nGrey lines join what is found with its true place; what is far off"
        " the ground is cut off.",
    )
    _draw_legend(figure)
    return figure


def _draw_stage(axes: Axes, name: str, pairs: list[Pair]) -> None:
    """Predicted objects; compared with the true ones once they depend on the image."""
    if name == START:
        for pair in pairs:
            draw_thing(axes, pair.predicted)
        return
    draw_pairs(axes, pairs)
    axes.text(-REACH, -REACH, score(pairs), fontsize=7.5, color=canvas.INK, va="bottom")


def _draw_legend(figure: Figure) -> None:
    """What shapes, outlines and rings mean, in two lines below the panels."""
    width, height = figure.get_size_inches()
    axes = canvas.bare(figure, (0, -0.8 / height, _LEGEND / width, 0.72 / height))
    unit = 2 * REACH / _HEIGHT  # world units an inch, as in the panels
    axes.set(xlim=(0, _LEGEND * unit), ylim=(-0.54 * unit, 0.18 * unit))
    samples = [
        (_sample("sphere", "rubber", 1.0), "sphere"),
        (_sample("cube", "rubber", 1.0), "cube"),
        (_sample("cylinder", "rubber", 1.0), "cylinder"),
        (_sample("cube", "metal", 1.0), "metal"),
        (_sample("sphere", "rubber", 0.3), "hardly present"),
    ]
    left = 0.0
    for thing, text in samples:
        draw_thing(axes, thing, (left + 0.95, 0))
        left = _explain(axes, left, 0, text, unit)
    left, down = 0.0, -0.36 * unit
    for color, dashed, text in (
        (canvas.QUIET, True, "where it truly is"),
        (canvas.MISTAKE, True, "missed"),
        (canvas.MISTAKE, False, "a wrong attribute, or one object too many"),
    ):
        draw_ring(axes, samples[0][0], color, dashed=dashed, at=(left + 0.95, down))
        left = _explain(axes, left, down, text, unit)


def _sample(shape: str, material: str, present: float) -> Thing:
    return Thing((0, 0, 0), material, "purple", shape, "large", present)


def _explain(axes: Axes, left: float, up: float, text: str, unit: float) -> float:
    """Write beside a sample; where the next sample begins."""
    axes.text(left + 2.1, up, text, fontsize=8, color=canvas.INK, va="center")
    return left + 2.8 + 0.062 * unit * len(text)
