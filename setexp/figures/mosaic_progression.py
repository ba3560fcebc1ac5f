"""Images while the order of their tiles is optimised (Thesis, Figures 4.4 to 4.11)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas, tiles
from setexp.figures.examples import first_batch

_SIDE = 0.8  # inches of a panel


class MosaicProgression:
    """A column per image: softly assembled after 0, 1, ... steps, and as it is, below.

    Writes `mosaic_progression.png`.

    Args:
        images: of the test split, the first, at most all. steps: last step that is shown.
    """

    def __init__(self, *, images: int, steps: int) -> None:
        self.images, self.steps = images, steps

    @torch.no_grad()
    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        batch = first_batch(dataset, self.images, generator)
        encoder = task.eval().get_submodule("encoder")
        rows = [encoder(batch.input, steps).mT @ batch.input.x for steps in range(self.steps + 1)]
        figure, panels = canvas.grid(len(rows) + 1, [_SIDE] * len(batch.target.x), _SIDE)
        for line, row in zip(panels, [*rows, batch.target.x], strict=True):
            for panel, picture in zip(line, tiles.whole(row, dataset), strict=True):
                tiles.show(panel, picture)
        canvas.caption(
            figure,
            "Tiles on their way to their places",
            f"From above: the tiles' soft order after 0 to {self.steps} steps, and the image.",
        )
        return [canvas.save(figure, folder / "mosaic_progression.png")]
