"""Object proposals of any images as padded sets, from a device's memory or the mapped file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.array_store import Array, Store
from setexp.sets import SetBatch


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
        self._device, self._set_size = device, set_size
        self._features, self._boxes = store.mapped("features"), store.array("boxes")
        self._count = store.array("count")
        if relative:
            side = np.tile(store.array("size"), 2).repeat(self._count, axis=0)
            self._boxes = (self._boxes / side).astype(np.float32)
        self._start = self._count.cumsum() - self._count
        self._resident: Tensor | None = None
        if resident:
            rows = self._read(np.arange(len(self._boxes)))
            nothing = rows.new_zeros(1, rows.shape[1])  # what padding points at
            self._resident = torch.cat([rows, nothing]).to(device)

    def batches(self, images: list[Array]) -> Iterator[SetBatch]:
        """Sets of each list of images, places in the store; the file is read one batch ahead."""
        if not images:
            return
        if self._resident is not None:
            for some in images:
                rows, present = self._places(some)
                at = torch.from_numpy(np.where(present, rows, len(self._boxes))).to(self._device)
                x = self._resident.index_select(0, at.flatten()).unflatten(0, at.shape)
                yield SetBatch(x, (at < len(self._boxes)).to(x.dtype))
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            upcoming = reader.submit(self._padded, images[0])
            for following in [*images[1:], None]:
                x, mask = upcoming.result()
                if following is not None:
                    upcoming = reader.submit(self._padded, following)
                yield SetBatch(
                    x.to(self._device, non_blocking=True), mask.to(self._device, non_blocking=True)
                )

    def _places(self, images: Array) -> tuple[Array, Array]:
        """Rows of some images' proposals (B, N), and which of them there are."""
        place = np.arange(self._set_size)
        return self._start[images][:, None] + place, place < self._count[images][:, None]

    def _padded(self, images: Array) -> tuple[Tensor, Tensor]:
        rows, present = self._places(images)
        x = torch.zeros(*rows.shape, self._features.shape[1] + 4)
        x[torch.from_numpy(present)] = self._read(rows[present])
        mask = torch.from_numpy(present).float()
        pin = self._device.type == "cuda"
        return (x.pin_memory(), mask.pin_memory()) if pin else (x, mask)

    def _read(self, rows: Array) -> Tensor:
        both = np.concatenate([self._features[rows], self._boxes[rows]], axis=1, dtype=np.float32)
        return torch.from_numpy(both)
