"""Random multisets: elements drawn from N(0, I), so that only memory helps (iDSPN, 4.2).

The sets are drawn once and stay the same in all passes, on the device.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from setexp.errors import ConfigError
from setexp.sets import Batch, SetBatch


class Multisets:
    """Fixed sets of standard normal elements; targets equal inputs.

    Args:
        set_size: number of elements.
        element_dim: features of an element.
        train_size, val_size, test_size: sets of each split.
        data_seed: of all sets. The splits are drawn from seeds of their own, on the CPU, so that no
            split depends on another's size or on the device.

    Batches: input and target are the same `SetBatch`, x (B, set_size, element_dim), all present.

    Raises:
        ConfigError: an empty set, or elements without features.
    """

    source = "synthetic"

    def __init__(
        self,
        *,
        set_size: int,
        element_dim: int,
        train_size: int,
        val_size: int,
        test_size: int,
        data_seed: int,
    ) -> None:
        for name, value in (("set_size", set_size), ("element_dim", element_dim)):
            if value < 1:
                raise ConfigError(f"dataset.{name}={value}: at least 1")
        self.set_size = set_size
        self._splits: dict[str, Tensor] = {}
        sizes = {"train": train_size, "val": val_size, "test": test_size}
        for index, (split, size) in enumerate(sizes.items()):
            generator = torch.Generator().manual_seed(len(sizes) * data_seed + index)
            self._splits[split] = torch.randn(size, set_size, element_dim, generator=generator)
        counts = "+".join(map(str, sizes.values()))
        self.fingerprint = f"multisets-1 {counts} {set_size}x{element_dim} seed {data_seed}"

    def to(self, device: torch.device) -> Multisets:
        """Move all sets; batches appear on this device from now on."""
        self._splits = {split: x.to(device) for split, x in self._splits.items()}
        return self

    def sizes(self, split: str) -> int:
        """Sets in one pass over `train`, `val` or `test`."""
        return len(self._split(split))

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
        """One pass; `shuffle` is the order of the sets. See `setexp.datasets`."""
        x = self._split(split)
        count = len(x)
        if shuffle:
            order = torch.randperm(count, generator=generator, device=x.device)
        else:
            order = torch.arange(count, device=x.device)
        end = count - count % batch_size if drop_last else count
        return (_batch(x, rows) for rows in order[:end].split(batch_size)[start:])

    def _split(self, split: str) -> Tensor:
        if split not in self._splits:
            raise ConfigError(f"split {split}: multisets have {', '.join(self._splits)}")
        return self._splits[split]


def _batch(x: Tensor, rows: Tensor) -> Batch:
    chosen = x.index_select(0, rows)
    sets = SetBatch(chosen, chosen.new_ones(chosen.shape[:-1]))
    return Batch(input=sets, target=sets, aux={})
