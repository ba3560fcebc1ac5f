"""What the comparison of tiles says about one image (Thesis, Figure 4.15)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas, tiles
from setexp.figures.examples import first_batch

_SIDE = 0.5  # inches of a panel


class TileCosts:
    """F of all pairs of an image's tiles, for rows and for columns, the tiles on both margins.

    Tiles are in the order that each of the two comparisons alone would put them in: by their mean
    cost. Blue: the tile on the left belongs before the one on top. Writes `tile_costs.png`.

    Args:
        image: which of the test split.
    """

    def __init__(self, *, image: int) -> None:
        self.image = image

    @torch.no_grad()
    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        batch = first_batch(dataset, self.image + 1, generator)
        x = batch.target.x[self.image :]
        encoder: Any = task.get_submodule("encoder")
        costs = encoder.costs(encoder.elements(x), batch.target.mask[self.image :])[0].cpu()
        pictures = tiles.single(x[0], dataset)
        n = len(pictures)
        figure, panels = canvas.grid(n + 1, [_SIDE] * (2 * n + 3), _SIDE)
        for axis, cost in enumerate(costs):
            order, left = cost.mean(-1).argsort(), axis * (n + 2)
            largest = float(cost.abs().max())
            for k, tile in enumerate(order):
                tiles.show(panels[0][left + 1 + k], pictures[tile])
                tiles.show(panels[k + 1][left], pictures[tile])
                for m, other in enumerate(order):
                    panel = panels[k + 1][left + 1 + m]
                    tiles.show_signed(panel, cost[tile, other].reshape(1, 1), largest)
        canvas.caption(
            figure,
            "Which tile belongs before which",
            "Left to right on the left, top to bottom on the right.\n"
            "Blue: the tile on the left comes first; red: the tile on top does.",
        )
        return [canvas.save(figure, folder / "tile_costs.png")]
