"""Pictures of circles, to be taken apart without being told what they show (SSLR, 4.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from setexp.datasets.circles import FixedCircles, Rules, draw, place
from setexp.datasets.drawn import SPLITS
from setexp.datasets.passes import batch_rows
from setexp.errors import ConfigError
from setexp.sets import Batch, SetBatch


class CircleImages(FixedCircles):
    """Fixed pictures of 0 to `max_circles` circles; "circles_3" is a split of three in each.

    Circles are drawn once per split, by its name and the data seed; pictures in every batch.

    Args:
        image_size: side in pixels.
        set_size: rows of a padded set. max_circles: at most as many.
        min_radius, max_radius: of circles, in pixels.
        train_size, val_size, test_size: pictures of a split. counted_size: of one of equal counts.
        data_seed: of all circles.

    Batches: input (B, 3, X, Y); target x (B, set_size, 4), the circles' x, y, radius and colour,
    which no loss sees; aux "picture" is what should come out, the input itself.

    Raises:
        ConfigError: circles that do not fit, or no such split.
    """

    fingerprint = "circles-1"

    def __init__(
        self,
        *,
        image_size: int,
        set_size: int,
        max_circles: int,
        min_radius: int,
        max_radius: int,
        train_size: int,
        val_size: int,
        test_size: int,
        counted_size: int,
        data_seed: int,
    ) -> None:
        if not 1 <= max_circles <= set_size:
            raise ConfigError(
                f"dataset.max_circles={max_circles}: 1 to dataset.set_size={set_size}"
            )
        self.set_size, self.max_circles = set_size, max_circles
        self.counted_size = counted_size
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        super().__init__(Rules(image_size, min_radius, max_radius), sizes, data_seed)

    def sizes(self, split: str) -> int:
        """Pictures in one pass over a split; `ConfigError` where there is none."""
        return self.counted_size if self._counted(split) else super().sizes(split)

    def circles(self, split: str) -> tuple[Tensor, Tensor]:
        """Circles (S, set_size, 4) of a split's pictures, and how many each has, (S,)."""
        if split not in self._placed:
            counted = self._counted(split)
            fixed = self._fixed(len(SPLITS) + counted - 1 if counted else SPLITS.index(split))
            count = torch.randint(self.max_circles + 1, (self.sizes(split),), generator=fixed)
            count = torch.full_like(count, counted) if counted else count
            circles = place(count, self.set_size, self.rules, fixed)
            self._placed[split] = circles.to(self.device), count.to(self.device)
        return self._placed[split]

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
        """One pass; see `setexp.datasets`."""
        circles, count = self.circles(split)
        slots = torch.arange(self.set_size, device=self.device)
        for rows in batch_rows(len(count), batch_size, generator, start, shuffle, drop_last):
            mask = (slots < count[rows].unsqueeze(-1)).float()
            target = SetBatch(circles[rows].float(), mask)
            picture = draw(target.x, mask, self.rules.image_size)
            yield Batch(input=picture, target=target, aux={"picture": picture})

    def _counted(self, split: str) -> int:
        """Circles in each picture of a split of equal counts; 0 of the others."""
        found = re.fullmatch(r"circles_(\d+)", split)
        if not found and split not in self._sizes:
            raise ConfigError(f"split {split}: circles have {', '.join(SPLITS)} and circles_K")
        if found and not 1 <= int(found[1]) <= self.set_size:
            raise ConfigError(f"split {split}: dataset.set_size={self.set_size} circles at most")
        return int(found[1]) if found else 0
