"""Images of a store in any order: all in the device's memory, or streamed from the mapped file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from setexp.datasets.passes import read_ahead

Array = NDArray[np.uint8]

_HOST_LIMIT = 10**9
_COPY_ROWS = 1024


def fits(size: int, device: torch.device) -> bool:
    """Whether `size` bytes may stay in a device's memory: 1 GB on a CPU, free / 4 on a GPU."""
    if device.type == "cuda":
        # what PyTorch keeps of an earlier run is free, too
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return size <= (torch.cuda.mem_get_info(device)[0] + kept) // 4
    return size <= _HOST_LIMIT


class Pictures:
    """Images for one split.

    Args:
        images: uint8 (S, C, H, W), in memory or mapped from a file.
        device: where batches appear.
        resident: copy all images to the device now, instead of reading each batch from the file.
    """

    def __init__(self, images: Array, device: torch.device, *, resident: bool) -> None:
        self._images, self._device = images, device
        self._resident = _copy(images, device) if resident else None

    def batches(self, batches: list[Tensor]) -> Iterator[Tensor]:
        """Images of each list of rows, in its order; one batch is read ahead while streaming.

        Args:
            batches: int64 (B,) each, on the device.

        Yields:
            uint8 (B, C, H, W) on the device.
        """
        if self._resident is not None:
            for rows in batches:
                yield self._resident.index_select(0, rows)
        elif batches:
            # The one wait for the device in a pass: the file is read on the host.
            order = torch.cat(batches).cpu().numpy()
            cuts = np.cumsum([len(rows) for rows in batches])[:-1]
            for images, places in read_ahead(self._gather, np.split(order, cuts)):
                images = images.to(self._device, non_blocking=True)
                yield images.index_select(0, places.to(self._device, non_blocking=True))

    def _gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images in the order of the file, read in one go, and where each row's image is there."""
        pin = self._device.type == "cuda"
        rank = np.argsort(rows)
        shape = (len(rows), *self._images.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        np.take(self._images, rows[rank], axis=0, out=images.numpy(), mode="clip")
        places = torch.from_numpy(np.argsort(rank))
        return images, places.pin_memory() if pin else places


def _copy(images: Array, device: torch.device) -> Tensor:
    copied = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _COPY_ROWS):
        rows = slice(start, start + _COPY_ROWS)
        copied[rows].copy_(torch.from_numpy(np.array(images[rows])))
    return copied
