"""What would make one tile belong before another (Thesis, Figures 4.18 and 4.19)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas, tiles
from setexp.figures.examples import first_batch

_SIDE = 0.7  # inches of a panel


class TileGradients:
    """Pairs of an image's tiles: both, and the gradients of F(1, 2) for tile 1, F(2, 1) for tile 2.

    Brighter pixels where it is blue would put a tile further left (left half) or up (right half).
    Writes `tile_gradients.png`.

    Args:
        image: which of the test split. pairs: at most so many, the first.
    """

    def __init__(self, *, image: int, pairs: int) -> None:
        self.image, self.pairs = image, pairs

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        encoder: Any = task.eval().get_submodule("encoder")
        x = first_batch(dataset, self.image + 1, generator).target.x[self.image]
        both = list(itertools.combinations(range(len(x)), 2))[: self.pairs]
        pairs = torch.stack([x[list(pair)] for pair in both]).requires_grad_()
        costs = encoder.cost(encoder.elements(pairs))[:, :, 0, 1].sum(0)
        pictures = tiles.single(pairs.detach(), dataset)
        figure, panels = canvas.grid(len(both), [_SIDE] * 9, _SIDE)
        for axis, cost in enumerate(costs):
            (gradient,) = torch.autograd.grad(cost, pairs, retain_graph=True)
            maps = tiles.on_pixels(gradient, dataset)
            for line, tile, change in zip(panels, pictures, maps, strict=True):
                first, second, for_first, for_second = line[5 * axis : 5 * axis + 4]
                tiles.show(first, tile[0])
                tiles.show(second, tile[1])
                tiles.show_signed(for_first, change[0])
                tiles.show_signed(for_second, -change[1])  # F(2, 1) is -F(1, 2)
        canvas.caption(
            figure,
            "What would put one tile before the other",
            "Two tiles, two gradients: left to right on the left, top to bottom on the right.\n"
            "Brighter where it is blue, or darker where it is red: further left, or up.",
        )
        return [canvas.save(figure, folder / "tile_gradients.png")]
