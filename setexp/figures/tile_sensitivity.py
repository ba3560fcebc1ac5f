"""Which pixels of a tile decide comparisons (Thesis, Figures 4.16 and 4.17)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas, tiles
from setexp.figures.examples import first_batch

_SIDE = 1.4  # inches of a panel


class TileSensitivity:
    """Size of the gradient of |F| at each pixel of a tile, over all pairs of many images' tiles.

    Dark is little. Writes `tile_sensitivity.png`.

    Args:
        images: of the test split, the first, at most all.
    """

    def __init__(self, *, images: int) -> None:
        self.images = images

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        encoder: Any = task.eval().get_submodule("encoder")
        x = first_batch(dataset, self.images, generator).input.x.requires_grad_()
        costs = encoder.cost(encoder.elements(x)).abs().sum((0, 2, 3))
        figure, [panels] = canvas.grid(1, [_SIDE, _SIDE], _SIDE)
        for panel, cost, name in zip(
            panels, costs, ("left to right", "top to bottom"), strict=True
        ):
            (gradient,) = torch.autograd.grad(cost, x, retain_graph=True)
            mean = tiles.on_pixels(gradient.abs(), dataset).mean((0, 1))
            panel.imshow(mean.numpy(), cmap="magma")
            tiles.labelled(panel, name)
        canvas.caption(
            figure,
            "Where comparisons look",
            f"How much each pixel of a tile matters, on average over {len(x)} images;\n"
            "bright: much.",
        )
        return [canvas.save(figure, folder / "tile_sensitivity.png")]
