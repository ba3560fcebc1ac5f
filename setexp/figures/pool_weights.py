"""What FSPool has learned about the ranks of features (Thesis, Figure 5.7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas

_SIDE = 0.8  # inches of a panel


class PoolWeights:
    """The piecewise linear functions of some features, a panel each.

    The largest element's weight is at the left where the pooling sorts in descending order. All
    panels have one scale around the dotted zero. Writes `pool_weights.png`.

    Args:
        pooling: where the `FSPool` is within the task.
        rows, columns: of panels; features are spread evenly over all there are.
    """

    def __init__(self, *, pooling: str, rows: int, columns: int) -> None:
        self.pooling, self.rows, self.columns = pooling, rows, columns

    @torch.no_grad()
    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        del dataset, generator
        if not canvas.can_draw():
            return []
        weights = _weights(task.get_submodule(self.pooling))
        count = min(self.rows * self.columns, len(weights))
        shown = weights[torch.linspace(0, len(weights) - 1, count).round().long()]
        largest = 1.05 * max(float(shown.abs().max()), 1e-6)
        ranks = torch.linspace(0, 1, shown.shape[1])
        figure, panels = canvas.grid(-(-count // self.columns), [_SIDE] * self.columns, _SIDE)
        for axes, function in zip((a for row in panels for a in row), shown, strict=False):
            axes.set(xlim=(0, 1), ylim=(-largest, largest))
            axes.set_facecolor(canvas.GROUND)
            axes.axhline(0, color=canvas.QUIET, linewidth=0.6, linestyle=":")
            axes.plot(ranks, function, color=canvas.INK, linewidth=1.2)
        canvas.caption(
            figure,
            "How the pooling weighs ranks",
            f"Each panel is one feature: its weight from the first rank to the last,\n"
            f"between -{largest:.2g} and {largest:.2g}. A constant is a sum, a peak at an end is a"
            " maximum or minimum.",
        )
        return [canvas.save(figure, folder / "pool_weights.png")]


def _weights(pooling: Any) -> torch.Tensor:
    """Weights at the ends of all pieces, (C, pieces + 1)."""
    return pooling.weights.weight.detach().float().cpu()
