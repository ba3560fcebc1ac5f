"""Sets of random numbers to be sorted (Thesis, 4.4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from setexp.datasets.drawn import Drawn
from setexp.datasets.passes import batch_spans, draws_by_batch
from setexp.errors import ConfigError
from setexp.sets import Batch, SetBatch


class Numbers(Drawn):
    """Numbers drawn uniformly from an interval, anew in every pass of every split.

    Training is on [0, 1] in single precision; the other splits are in double precision, because
    intervals such as [1000, 1001] hold too few single precision numbers (Thesis, A.2.1).

    Args:
        set_size: numbers in a set.
        element_dim: 1; anything else is refused.
        train_size, test_size: sets drawn in one pass.
        intervals: (low, high) of each evaluation split, by its name.

    Batches: input x (B, set_size, 1), all present; target the same numbers in ascending order;
    `aux["order"]` (B, set_size), the index of the number that belongs at each position.

    Raises:
        ConfigError: sets of fewer than 2 numbers, or an interval without any.
    """

    def __init__(
        self,
        *,
        set_size: int,
        element_dim: int,
        train_size: int,
        test_size: int,
        intervals: Mapping[str, Sequence[float]],
    ) -> None:
        if element_dim != 1:
            raise ConfigError(f"dataset.element_dim={element_dim}: a number has 1")
        if set_size < 2:
            raise ConfigError(f"dataset.set_size={set_size}: sort at least 2 numbers")
        for name, interval in intervals.items():
            if len(interval) != 2 or not interval[0] < interval[1]:
                raise ConfigError(f"dataset.intervals.{name}={list(interval)}: give [low, high]")
        super().__init__({"train": train_size, **dict.fromkeys(intervals, test_size)})
        self.set_size = set_size
        self.intervals = {name: (float(a), float(b)) for name, (a, b) in intervals.items()}
        self.fingerprint = f"numbers-1 {self.intervals}"

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
        count, draws = self.sizes(split), draws_by_batch(generator)
        dtype = torch.float32 if split == "train" else torch.float64
        low, high = self.intervals.get(split, (0.0, 1.0))
        for span in batch_spans(count, batch_size, start, drop_last):
            shape, own = (span.stop - span.start, self.set_size), draws(span.start)
            x = torch.rand(shape, generator=own, device=self.device, dtype=dtype)
            x = low + (high - low) * x
            ordered, order = x.sort(-1)
            mask = torch.ones_like(x)
            yield Batch(
                SetBatch(x.unsqueeze(-1), mask),
                SetBatch(ordered.unsqueeze(-1), mask),
                {"order": order},
            )
