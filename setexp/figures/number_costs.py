"""What the comparison of numbers has become (Thesis, Figures 4.13 and 4.14)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas
from setexp.figures.tiles import labelled, show_signed

_SIDE = 1.6  # inches of a panel
_POINTS = 100  # numbers along an axis


class NumberCosts:
    """F and f of all pairs of numbers from some intervals, a column each.

    Red: the number on the left belongs after the one above; blue: before it. Writes
    `number_costs.png`.

    Args:
        intervals: (low, high) of each column.
    """

    def __init__(self, *, intervals: Sequence[Sequence[float]]) -> None:
        self.intervals = [(float(low), float(high)) for low, high in intervals]

    @torch.no_grad()
    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        del dataset
        cost: Any = task.get_submodule("encoder.cost")
        figure, panels = canvas.grid(2, [_SIDE] * len(self.intervals), _SIDE)
        for k, (low, high) in enumerate(self.intervals):
            line = torch.linspace(low, high, _POINTS, device=generator.device)[None, :, None]
            f = cost.compare(line, line)[0, 0].cpu()
            show_signed(panels[0][k], f - f.mT)
            show_signed(panels[1][k], f - f.mean())
            labelled(panels[1][k], f"[{low:g}, {high:g}]")
        canvas.caption(
            figure,
            "What is learned about pairs of numbers",
            "Above: F, what it costs to place the number on the left before the one on top;\n"
            "below: f, of which F is the antisymmetric part. Blue below the middle, red above.",
        )
        return [canvas.save(figure, folder / "number_costs.png")]
