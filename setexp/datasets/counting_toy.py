"""Counting toy task: boxes and noisy attention weights, how many objects? (Thesis, 3.5.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from setexp.datasets.drawn import Drawn
from setexp.datasets.passes import batch_spans, draws_by_batch
from setexp.errors import ConfigError
from setexp.ops.boxes import pairwise_iou
from setexp.sets import Batch, SetBatch

_LEAST_SIDE = 1e-6  # as in the released code, where 0 is asked for


class CountingToy(Drawn):
    """Squares in the unit square, of which the first c are true objects, drawn on the device.

    A square's weight is (1 - q) times its largest IoU with a true one, or 0 where there are none,
    plus q times U(0, 1); c is uniform in 0, ..., N. Every batch is new.

    Args:
        set_size: N. element_dim: 5, a box and its weight; anything else is refused.
        side: l, of all squares, in [0, 1]; squares keep within the unit square.
        noise: q, in [0, 1].
        train_size, test_size: sets drawn in one pass.

    Batches: input and target are the same `SetBatch`, x (B, N, 5) as x1, y1, x2, y2, weight, all
    present; `aux["label"]` is c, (B,) int64.

    Raises:
        ConfigError: a bad argument.
    """

    fingerprint = "counting-toy-1"
    scalars = ("side", "noise")

    def __init__(
        self,
        *,
        set_size: int,
        element_dim: int,
        side: float,
        noise: float,
        train_size: int,
        test_size: int,
    ) -> None:
        if element_dim != 5:
            raise ConfigError(f"dataset.element_dim={element_dim}: a box and its weight are 5")
        if set_size < 1:
            raise ConfigError(f"dataset.set_size={set_size}: at least 1")
        for name, value in (("side", side), ("noise", noise)):
            if not 0 <= value <= 1:
                raise ConfigError(f"dataset.{name}={value}: choose a value in [0, 1]")
        self.set_size, self.side, self.noise = set_size, max(side, _LEAST_SIDE), noise
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
        """One pass of new sets; `shuffle` means nothing here. See `setexp.datasets`."""
        del shuffle
        draws = draws_by_batch(generator, start)
        spans = batch_spans(self.sizes(split), batch_size, start, drop_last)
        for at, span in enumerate(spans):
            yield self._draw(span.stop - span.start, draws(at))

    def _draw(self, size: int, generator: torch.Generator) -> Batch:
        how: dict[str, Any] = {"generator": generator, "device": self.device}
        corner = torch.rand(size, self.set_size, 2, **how) * (1 - self.side)
        boxes = torch.cat([corner, corner + self.side], dim=-1)
        count = torch.randint(self.set_size + 1, (size,), **how)
        score = scores(boxes, count)
        noise = torch.rand(score.shape, **how)
        weight = (1 - self.noise) * score + self.noise * noise
        sets = SetBatch(torch.cat([boxes, weight.unsqueeze(-1)], dim=-1), torch.ones_like(weight))
        return Batch(input=sets, target=sets, aux={"label": count})


def scores(boxes: Tensor, count: Tensor) -> Tensor:
    """Each box's largest IoU with one of the first `count`: (B, N, 4) and (B,) to (B, N)."""
    true = torch.arange(boxes.shape[-2], device=boxes.device) < count.unsqueeze(-1)
    overlap = pairwise_iou(boxes, boxes, plus_one=False)
    return (overlap * true.unsqueeze(-2)).amax(-1)
