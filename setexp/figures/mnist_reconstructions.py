"""Digits as sets of points: given with noise, reconstructed, and as they are (Thesis, Fig. 5.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from setexp.figures import canvas
from setexp.figures.examples import predict
from setexp.figures.mnist_progression import draw_points

_SIDE = 0.95  # inches of a panel


class MnistReconstructions:
    """A column per digit: input, reconstruction and target, one below the other.

    Points are (row, column) in [0, 1], further features are not shown. Writes
    `mnist_reconstructions.png`.

    Args:
        sets: digits, the first of the test split.
        batch_size: of the batch they are predicted in, at least `sets`.
    """

    def __init__(self, *, sets: int, batch_size: int) -> None:
        self.sets, self.batch_size = sets, batch_size

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        shown = predict(
            task,
            dataset,
            sets=self.sets,
            batch_size=self.batch_size,
            steps=0,
            generator=generator,
        )
        output = shown.prediction
        rows = [
            (shown.input.x, shown.input.mask, canvas.QUIET),
            (output.x[-1], output.mask[-1], canvas.PREDICTED),
            (shown.target.x, shown.target.mask, canvas.INK),
        ]
        figure, panels = canvas.grid(len(rows), [_SIDE] * len(shown.target.x), _SIDE)
        for line, (x, mask, color) in zip(panels, rows, strict=True):
            for k, panel in enumerate(line):
                draw_points(panel, x[k, :, :2], mask[k], color)
        canvas.caption(
            figure,
            "Digits as sets of points, encoded and decoded",
            "From above: the given sets (grey), their reconstructions (blue), the sets they should"
            " equal (black).",
        )
        return [canvas.save(figure, folder / "mnist_reconstructions.png")]
