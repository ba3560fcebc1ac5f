"""Images to grids of tiles and back; tiles are listed column by column, as in the authors' code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def cut(images: Tensor, per_side: int) -> Tensor:
    """Square tiles as flat vectors: (B, C, H, W) to (B, N, C * h * w), N = per_side ** 2."""
    columns = images.unflatten(-1, (per_side, -1)).unflatten(-3, (per_side, -1))
    return columns.permute(0, 4, 2, 1, 3, 5).flatten(3).flatten(1, 2)


def assemble(tiles: Tensor, per_side: int, size: Sequence[int]) -> Tensor:
    """Inverse of `cut`: (B, N, C * h * w), each tile of size (C, h, w), to images (B, C, H, W)."""
    grid = tiles.unflatten(-1, size).unflatten(1, (per_side, per_side))
    return grid.permute(0, 3, 2, 4, 1, 5).flatten(-2).flatten(-3, -2)
