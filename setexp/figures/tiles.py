"""What the figures of mosaics share: tiles as pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from setexp.figures import canvas
from setexp.ops.tiles import assemble


def whole(tiles: Tensor, dataset: Any) -> Tensor:
    """Tiles (B, N, D) in their places as pictures (B, H, W, C) in [0, 1], on the CPU."""
    images = dataset.in_colour(assemble(tiles, dataset.tiles, dataset.tile))
    return images.permute(0, 2, 3, 1).cpu()


def single(tiles: Tensor, dataset: Any) -> Tensor:
    """Tiles (..., D) as pictures (..., h, w, C) in [0, 1], on the CPU."""
    return dataset.in_colour(tiles.unflatten(-1, dataset.tile)).movedim(-3, -1).cpu()


def on_pixels(gradients: Tensor, dataset: Any) -> Tensor:
    """Gradients (..., D) by pixel, summed over channels, (..., h, w), on the CPU."""
    return gradients.unflatten(-1, dataset.tile).sum(-3).cpu()


def show(panel: Any, picture: Tensor) -> None:
    """A picture (h, w, C), grey where it has one channel."""
    grey = picture.shape[-1] == 1
    shown = picture.squeeze(-1) if grey else picture
    panel.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1)


def show_signed(panel: Any, values: Tensor, largest: float | None = None) -> None:
    """Numbers (h, w): blue below zero, red above, white at zero."""
    bound = float(values.abs().max()) if largest is None else largest
    panel.imshow(values.numpy(), cmap="RdBu_r", vmin=-(bound or 1.0), vmax=bound or 1.0)


def labelled(panel: Any, text: str) -> None:
    """Write a line below a panel."""
    panel.set_xlabel(text, fontsize=7, color=canvas.QUIET, labelpad=2)
