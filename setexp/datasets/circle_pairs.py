"""Pairs of pictures of the same circles in other places: how far did they move? (SSLR, 4.3)"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from setexp.datasets.circles import FixedCircles, Rules, anywhere, draw, place, reach, touching
from setexp.datasets.drawn import SPLITS
from setexp.datasets.passes import batch_rows
from setexp.sets import Batch

_CIRCLES = 2


class CirclePairs(FixedCircles):
    """Fixed pairs of pictures of two circles each, and the sum of their squared ways.

    The second picture's circles have the radii and colours of the first's; their places are drawn
    together, again where they touch in one colour, or where neither has moved.

    Args:
        image_size: side in pixels.
        min_radius, max_radius: of circles, in pixels.
        train_size, val_size, test_size: pairs of a split.
        data_seed: of all pairs.

    Batches: input (B, 2, 3, X, Y), target (B,) in units of the picture's squared side.

    Raises:
        ConfigError: circles that do not fit.
    """

    fingerprint = "circle-pairs-1"

    def __init__(
        self,
        *,
        image_size: int,
        min_radius: int,
        max_radius: int,
        train_size: int,
        val_size: int,
        test_size: int,
        data_seed: int,
    ) -> None:
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        super().__init__(Rules(image_size, min_radius, max_radius), sizes, data_seed)

    def circles(self, split: str) -> Tensor:
        """Circles of a split's pairs, before and after: (S, 2, 2, 4)."""
        if split not in self._placed:
            counts = torch.full((self.sizes(split),), _CIRCLES)
            fixed = self._fixed(SPLITS.index(split))
            first = place(counts, _CIRCLES, self.rules, fixed)
            both = torch.stack([first, self._moved(first, fixed)], dim=1)
            self._placed[split] = both.to(self.device)
        return self._placed[split]

    def _moved(self, circles: Tensor, generator: torch.Generator) -> Tensor:
        near, moved = reach(self.rules.max_radius, circles.device), circles.clone()
        waiting = torch.arange(len(circles))
        while len(waiting):
            some = circles[waiting]
            centre = anywhere(some[..., 2].flatten(), self.rules.image_size, generator)
            drawn = torch.cat([centre.unflatten(0, (-1, _CIRCLES)), some[..., 2:]], dim=-1)
            moved[waiting] = drawn
            again = touching(drawn[:, 1], drawn[:, 0], near) | (drawn == some).all((1, 2))
            waiting = waiting[again]
        return moved

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
        circles = self.circles(split)
        for rows in batch_rows(len(circles), batch_size, generator, start, shuffle, drop_last):
            some = circles[rows].float()
            mask = some.new_ones(2 * len(some), _CIRCLES)
            pictures = draw(some.flatten(0, 1), mask, self.rules.image_size).unflatten(0, (-1, 2))
            way = (some[:, 0] - some[:, 1])[..., :2].square().sum((-2, -1))
            yield Batch(input=pictures, target=way / self.rules.image_size**2, aux={})
