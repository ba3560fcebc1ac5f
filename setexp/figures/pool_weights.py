"""What FSPool has learned about the ranks of features (Thesis, Figure 5.7)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas

log = logging.getLogger(__name__)

_SIDE = 0.8  # inches of a panel
_NOTHING = 1e-12  # a feature's weights added up, at most, for it to have died


class PoolWeights:
    """The piecewise linear functions of some features, a panel each.

    The largest element's weight is at the left where the pooling sorts in descending order. All
    panels have one scale around the dotted zero. Features without any weight are left out, and
    so are ends of pieces that no set of the test split reads: nothing but decay moves those.
    Writes `pool_weights.png`.

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
        pooling: Any = task.get_submodule(self.pooling)
        weights = pooling.weights.weight.float().cpu()
        weights = weights[weights.abs().sum(1) > _NOTHING]
        if not len(weights):
            log.warning("no picture of pooling weights: all are 0")
            return []
        knots = ends_read(_set_sizes(dataset, generator), weights.shape[1] - 1)
        count = min(self.rows * self.columns, len(weights))
        shown = weights[torch.linspace(0, len(weights) - 1, count).round().long()][:, knots]
        largest = 1.05 * max(float(shown.abs().max()), 1e-6)
        ranks = knots / (weights.shape[1] - 1)
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
            f"between -{largest:.3g} and {largest:.3g}. A constant is a sum, a peak at an end is a"
            " maximum or minimum.",
        )
        return [canvas.save(figure, folder / "pool_weights.png")]


def ends_read(sizes: Iterable[int], pieces: int) -> torch.Tensor:
    """Which of the pieces' ends, 0 to `pieces`, weights of sets of these sizes depend on."""
    at = torch.cat([torch.arange(n) / max(n - 1, 1) for n in sizes]) * pieces
    near = (at.unsqueeze(1) - torch.arange(pieces + 1)).abs() < 1 - 1e-4
    return near.any(0).nonzero().squeeze(1)


def _set_sizes(dataset: Any, generator: torch.Generator) -> set[int]:
    passes = dataset.batches("test", 1000, generator, shuffle=False, drop_last=False)
    return {int(n) for batch in passes for n in batch.input.mask.sum(-1).unique()}
