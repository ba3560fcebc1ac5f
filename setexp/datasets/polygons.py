"""Rotating regular polygons: sets that only differ by an angle (Thesis, 5.6.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from setexp.datasets.drawn import Drawn
from setexp.datasets.passes import batch_spans
from setexp.errors import ConfigError
from setexp.ops.rows import take_rows
from setexp.sets import Batch, SetBatch


def polygons(angle: Tensor, n: int) -> Tensor:
    """Vertices (sin, cos) of n-gons on the unit circle: angles (...) to (..., n, 2)."""
    corner = torch.arange(n, device=angle.device, dtype=angle.dtype) * (2 * math.pi / n)
    direction = angle.unsqueeze(-1) + corner
    return torch.stack([direction.sin(), direction.cos()], dim=-1)


class Polygons(Drawn):
    """Fresh polygons in every pass, vertices in random order, drawn on the device.

    Args:
        set_size: number of vertices.
        element_dim: 2; anything else is refused.
        train_size, test_size: sets drawn in one pass.

    Batches: input and target are the same `SetBatch`, x (B, set_size, 2), all present.
    """

    fingerprint = "polygons-1"

    def __init__(self, *, set_size: int, element_dim: int, train_size: int, test_size: int) -> None:
        if element_dim != 2:
            raise ConfigError(f"dataset.element_dim={element_dim}: a polygon's vertices have 2")
        if set_size < 2:
            raise ConfigError(f"dataset.set_size={set_size}: a polygon has at least 2 vertices")
        self.set_size = set_size
        super().__init__({"train": train_size, "val": test_size, "test": test_size})

    def batches(
        self,
        split: str,
        batch_size: int,
        generator: torch.Generator,
        *,
        start: int = 0,
        shuffle: bool,
        drop_last: bool,
    ) -> Iterator[Batch]:
        """One pass of fresh sets; `shuffle` means nothing here. See `setexp.datasets`."""
        del shuffle
        count = self.sizes(split)
        angle = torch.rand(count, generator=generator, device=self.device) * (2 * math.pi)
        key = torch.rand(count, self.set_size, generator=generator, device=self.device)
        x = take_rows(polygons(angle, self.set_size), key.argsort(-1))
        mask = x.new_ones(count, self.set_size)
        for rows in batch_spans(count, batch_size, start, drop_last):
            sets = SetBatch(x[rows], mask[rows])
            yield Batch(input=sets, target=sets, aux={})
