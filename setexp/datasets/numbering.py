"""Class-specific numbering: number the elements of each class (iDSPN, 4.1 and F.1)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from setexp.datasets.drawn import DrawnForRun
from setexp.datasets.passes import batch_rows, batch_spans
from setexp.errors import ConfigError
from setexp.ops.rows import take_rows
from setexp.sets import Batch, SetBatch


def occurrence(classes: Tensor) -> Tensor:
    """How often each element's class came before it: one-hot (..., N, K) to int64 (..., N)."""
    return (classes.cumsum(-2) * classes).sum(-1).long() - 1


class Numbering(DrawnForRun):
    """Sets of one-hot classes, and the same elements with one-hot numbers within their class.

    The sets of a split are a function of the run's seed, as each of the authors' runs has sets of
    its own; they are drawn again for every pass, so that none is kept.

    Args:
        set_size: N. element_dim: width M of a one-hot number, at least N.
        classes: K. classes_per_sample: so many of them, distinct, are the choice of each set (code:
            4 of 8, too); all K are i.i.d. elements over all classes, as the paper says.
        train_size, val_size, test_size: sets of a split.
        augment: put the elements of each training set into a new order in every pass.

    Batches: input x (B, N, K); target x (B, N, K + M), the input's row, then the number of its
    element. A prediction of numbers (B, N, M) has the input's classes, row by row.
    """

    fingerprint = "numbering-1 of each run"

    def __init__(
        self,
        *,
        set_size: int,
        element_dim: int,
        classes: int,
        classes_per_sample: int,
        train_size: int,
        val_size: int,
        test_size: int,
        augment: bool,
    ) -> None:
        if element_dim < set_size:
            raise ConfigError(
                f"dataset.element_dim={element_dim}: a class may have {set_size} elements to number"
            )
        if not 1 <= classes_per_sample <= classes:
            raise ConfigError(
                f"dataset.classes_per_sample={classes_per_sample}: "
                f"choose 1 to dataset.classes={classes}"
            )
        self.set_size, self.numbers = set_size, element_dim
        self.classes, self.choices = classes, classes_per_sample
        super().__init__({"train": train_size, "val": val_size, "test": test_size})
        self.augment = augment

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
        classes = self._draw(split)
        parts = batch_rows(len(classes), batch_size, generator, start, shuffle, drop_last)
        key: Tensor | None = None
        if self.augment and split == "train":  # of the pass's places, whatever set is there
            key = torch.rand(classes.shape, generator=generator, device=self.device)
        spans = batch_spans(len(classes), batch_size, start, drop_last)
        for rows, places in zip(parts, spans, strict=True):
            yield self._batch(classes.index_select(0, rows), None if key is None else key[places])

    def _draw(self, split: str) -> Tensor:
        """Classes of all sets of a split, int64 (count, N)."""
        count, fixed = self.sizes(split), self._fixed(split)
        key = torch.rand(count, self.classes, generator=fixed)
        choices = key.argsort(-1)[:, : self.choices]
        chosen = torch.randint(self.choices, (count, self.set_size), generator=fixed)
        return choices.gather(-1, chosen).to(self.device)

    def _batch(self, classes: Tensor, key: Tensor | None) -> Batch:
        x = F.one_hot(classes, self.classes)
        numbers = F.one_hot(occurrence(x), self.numbers)
        rows = torch.cat([x, numbers], dim=-1).to(torch.get_default_dtype())
        if key is not None:
            rows = take_rows(rows, key.argsort(-1))
        mask = rows.new_ones(rows.shape[:-1])
        return Batch(SetBatch(rows[..., : self.classes], mask), SetBatch(rows, mask), {})
