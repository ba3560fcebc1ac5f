"""What datasets that are drawn share: a device for batches, and the sets of each split.

Sets that are fixed are drawn on the CPU, so that they do not depend on the device; what is new in
every pass is drawn where its batches are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Self

import torch

from setexp.errors import ConfigError

SPLITS = ("train", "val", "test")


class Drawn:
    """A dataset that is drawn, with batches on `self.device`.

    Args:
        sizes: sets in one pass, by split.
    """

    source = "synthetic"

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        """Deliver batches on this device from now on."""
        self.device = device
        return self

    def sizes(self, split: str) -> int:
        """Sets in one pass over a split.

        Raises:
            ConfigError: no such split.
        """
        if split not in self._sizes:
            raise ConfigError(f"split {split}: choose {', '.join(self._sizes)}")
        return self._sizes[split]


class DrawnForRun(Drawn):
    """A dataset of which each run has sets of its own: they are a function of its seed."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)
        self.seed = 0

    def _fixed(self, split: str) -> torch.Generator:
        """What decides the sets of one of `SPLITS`, on the CPU."""
        return torch.Generator().manual_seed(self.seed + SPLITS.index(split))

    def for_run(self, seed: int) -> Self:
        """The same task with the sets of another run."""
        other = copy.copy(self)
        other.seed = seed
        return other
