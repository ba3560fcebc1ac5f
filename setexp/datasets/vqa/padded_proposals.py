"""Object proposals of any images as padded sets, from a device's memory or the mapped file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.array_store import Array, Store
from setexp.datasets.passes import read_ahead
from setexp.sets import SetBatch

_COPY_ROWS = 65_536  # proposals on their way to a device at a time


class Proposals:
    """Features and boxes of the images of a store.

    Args:
        store: of `prepare_proposals`. set_size: N. device: where batches appear.
        resident: copy everything to the device now, instead of reading each batch from the file.
        relative: boxes in shares of their image's width and height, not in pixels.

    A set is x (N, D + 4), features and then x1, y1, x2, y2; padding is zero.
    """

    def __init__(
        self,
        store: Store,
        *,
        set_size: int,
        device: torch.device,
        resident: bool,
        relative: bool,
    ) -> None:
        self._device = device
        self._features, self._boxes = store.mapped("features"), store.array("boxes")
        count = store.array("count")
        if relative:
            side = np.tile(store.array("size"), 2).repeat(count, axis=0)
            self._boxes = (self._boxes / side).astype(np.float32)
        self._count = torch.from_numpy(count).to(device if resident else "cpu")
        self._start = self._count.cumsum(0) - self._count
        self._slots = torch.arange(set_size, device=self._count.device)
        self._resident: Tensor | None = None
        if resident:
            size = len(self._boxes), self._features.shape[1] + 4
            self._resident = torch.zeros(size[0] + 1, size[1], device=device)  # the last: padding
            for start in range(0, size[0], _COPY_ROWS):
                some = self._read(slice(start, start + _COPY_ROWS))
                self._resident[start : start + len(some)] = some.to(device)

    def batches(self, images: Sequence[Tensor]) -> Iterator[SetBatch]:
        """Sets of each list of images; where the file is read, it is one batch ahead.

        Args:
            images: places in the store, int64 (B,) each, on the device.
        """
        if self._resident is not None:
            for some in images:
                rows, present = self._places(some)
                at = torch.where(present, rows, len(self._boxes))
                x = self._resident.index_select(0, at.flatten()).unflatten(0, at.shape)
                yield SetBatch(x, present.to(x.dtype))
        elif images:
            # the one wait for the device in a pass: the file is read on the host
            order = torch.cat(list(images)).cpu()
            for read in read_ahead(self._padded, order.split([len(some) for some in images])):
                yield SetBatch(*(tensor.to(self._device, non_blocking=True) for tensor in read))

    def _places(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of some images' proposals (B, N), and which of them there are."""
        start, count = (of.index_select(0, images) for of in (self._start, self._count))
        return start.unsqueeze(-1) + self._slots, self._slots < count.unsqueeze(-1)

    def _padded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows, present = self._places(images)
        x = torch.zeros(*rows.shape, self._features.shape[1] + 4)
        x[present] = self._read(rows[present].numpy())
        mask = present.float()
        pin = self._device.type == "cuda"
        return (x.pin_memory(), mask.pin_memory()) if pin else (x, mask)

    def _read(self, rows: Array | slice) -> Tensor:
        both = np.concatenate([self._features[rows], self._boxes[rows]], axis=1, dtype=np.float32)
        return torch.from_numpy(both)
