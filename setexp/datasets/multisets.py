"""Random multisets: elements drawn from N(0, I), so that only memory helps (iDSPN, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from setexp.datasets.drawn import DrawnForRun
from setexp.datasets.passes import batch_rows
from setexp.errors import ConfigError
from setexp.sets import Batch, SetBatch


class Multisets(DrawnForRun):
    """Fixed sets of standard normal elements; targets equal inputs.

    The sets of a split are a function of the run's seed, as each of the authors' runs has sets of
    its own; they are drawn again for every pass, so that none is kept.

    Args:
        set_size: number of elements.
        element_dim: features of an element.
        train_size, val_size, test_size: sets of each split.

    Batches: input and target are the same `SetBatch`, x (B, set_size, element_dim), all present.

    Raises:
        ConfigError: an empty set, or elements without features.
    """

    fingerprint = "multisets-1 of each run"

    def __init__(
        self, *, set_size: int, element_dim: int, train_size: int, val_size: int, test_size: int
    ) -> None:
        for name, value in (("set_size", set_size), ("element_dim", element_dim)):
            if value < 1:
                raise ConfigError(f"dataset.{name}={value}: at least 1")
        self.shape = (set_size, element_dim)
        super().__init__({"train": train_size, "val": val_size, "test": test_size})

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
        """One pass over the fixed sets of a split; see `setexp.datasets`."""
        count = self.sizes(split)
        x = torch.randn(count, *self.shape, generator=self._fixed(split)).to(self.device)
        for rows in batch_rows(count, batch_size, generator, start, shuffle, drop_last):
            some = x.index_select(0, rows)
            sets = SetBatch(some, some.new_ones(some.shape[:-1]))
            yield Batch(input=sets, target=sets, aux={})
