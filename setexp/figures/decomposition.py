"""Pictures beside what their latent elements show (SSLR, Figures 3, 7-14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas
from setexp.figures.examples import first_batch
from setexp.figures.latent_sets import as_pixels, take_apart

_SIDE = 0.8  # inches of a panel


class Decomposition:
    """A row per picture: the input, what should come out, what does, and the elements that add up
    to it, the brightest first. Writes `decomposition.png`.

    Args:
        sets: pictures, the first of the test split.
        transposed: the data's first axis of a picture goes to the right, as circles' does.
    """

    def __init__(self, *, sets: int, transposed: bool) -> None:
        self.sets, self.transposed = sets, transposed

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        batch = first_batch(dataset, self.sets, generator)
        latent = take_apart(task, batch.input)
        count = latent.elements.shape[1]
        names = ["input", "target", "output", *(str(k + 1) for k in range(count))]
        figure, panels = canvas.grid(len(latent.input), [_SIDE] * len(names), _SIDE)
        canvas.name_columns(panels, names)
        brightest = latent.brightness.argsort(-1, descending=True)
        for k, line in enumerate(panels):
            parts = latent.shown.parts[k, brightest[k]]
            shown = [
                latent.input[k],
                batch.aux["picture"][k].cpu(),
                latent.shown.picture[k],
                *parts,
            ]
            for panel, picture in zip(line, shown, strict=True):
                panel.imshow(as_pixels(picture, transposed=self.transposed))
        canvas.caption(
            figure,
            "Pictures taken apart by a set that nobody supervised",
            f"The {count} elements add up to the output; the brightest first.",
        )
        return [canvas.save(figure, folder / "decomposition.png")]
