"""Images cut into shuffled tiles (Thesis, 4.4.2 and 4.4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from setexp.datasets.image_rows import Pictures, fits
from setexp.datasets.labelled_images import image_shape, load_images
from setexp.datasets.passes import batch_rows, draws_by_batch
from setexp.errors import ConfigError
from setexp.ops.rows import take_rows
from setexp.ops.tiles import cut
from setexp.sets import Batch, SetBatch


class Mosaics:
    """Tiles of normalised images, in a new random order in every pass of every split.

    Args:
        images: mnist, cifar10 or imagenet64. root, source, data_seed: see `load_images`.
        image_size: of the images as they are stored.
        channels: 1 or 3. mean, std: of each, of values in [0, 1].
        tiles: per side. Where they do not divide the image, it is enlarged until they do.
        train_size, test_size: images of a split, from the first; None for all.
        shuffled: false leaves the tiles in their places.

    Attributes:
        tiles: per side. tile: its size (C, h, h).

    Batches: input x (B, N, D), N = tiles ** 2 tiles of D = channels * h * h numbers, all present;
    target the tiles in their places, column by column; `aux["order"]` (B, N), the index of the tile
    that belongs at each place; `aux["label"]` (B,), the image's class.

    Raises:
        ConfigError: images of another size, fewer than 2 tiles per side, a mean or a standard
            deviation that does not fit, and as `load_images`.
    """

    def __init__(
        self,
        *,
        images: str,
        root: str,
        source: str,
        image_size: int,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        tiles: int,
        train_size: int | None,
        test_size: int | None,
        shuffled: bool,
        data_seed: int,
    ) -> None:
        if tiles < 2:
            raise ConfigError(f"dataset.tiles={tiles}: at least 2 per side")
        if not len(mean) == len(std) == channels or min(std) <= 0:
            raise ConfigError(
                f"dataset.mean={list(mean)}, dataset.std={list(std)}: give one number for each of "
                f"dataset.channels={channels}, and standard deviations above 0"
            )
        shape = image_shape(images)
        if shape != (channels, image_size, image_size):
            raise ConfigError(
                f"dataset.channels={channels}, dataset.image_size={image_size}: the images of "
                f"dataset.images={images} have {shape[0]} and {shape[1]}"
            )
        counts = {"train": train_size, "test": test_size}
        self._images, self.source, content = load_images(images, root, source, counts, data_seed)
        self.tiles, self.shuffled = tiles, shuffled
        self.side = -(-image_size // tiles) * tiles
        self.tile = (channels, self.side // tiles, self.side // tiles)
        self._scale = torch.tensor(std).view(-1, 1, 1) * 255
        self._shift = torch.tensor(mean).view(-1, 1, 1) * 255
        drawn = f"seed {data_seed}" if self.source == "procedural" else content
        self.fingerprint = (
            f"mosaics-1 {images} {self.sizes('train')}+{self.sizes('test')} {tiles} per side "
            f"{'shuffled' if shuffled else 'in place'} {drawn}"
        )
        self._pictures: dict[str, Pictures] = {}
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Mosaics:
        """Deliver batches on this device from now on."""
        self.device = device
        self._scale, self._shift = self._scale.to(device), self._shift.to(device)
        self._pictures.clear()
        return self

    def in_colour(self, images: Tensor) -> Tensor:
        """Normalised images or tiles (..., C, h, w) as values in [0, 1]."""
        return ((images * self._scale + self._shift) / 255).clamp(0, 1)

    def sizes(self, split: str) -> int:
        """Images in one pass over `train` or `test`."""
        if split not in self._images:
            raise ConfigError(f"split {split}: mosaics have {', '.join(self._images)}")
        return len(self._images[split][1])

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
        """One pass; `shuffle` is the order of the images. See `setexp.datasets`."""
        count, draws = self.sizes(split), draws_by_batch(generator, start)
        rows = batch_rows(count, batch_size, generator, start, shuffle, drop_last)
        labels = self._images[split][1].to(self.device)
        for at, images in enumerate(self._of(split).batches(rows)):
            yield self._batch(images, labels.index_select(0, rows[at]), draws(at))

    def _of(self, split: str) -> Pictures:
        if split not in self._pictures:
            images = self._images[split][0]
            resident = fits(images.nbytes, self.device)
            self._pictures[split] = Pictures(images, self.device, resident=resident)
        return self._pictures[split]

    def _batch(self, images: Tensor, label: Tensor, generator: torch.Generator) -> Batch:
        pixels = images.float()
        if pixels.shape[-1] != self.side:  # rounded, as images of bytes are
            size = (self.side, self.side)
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False).round()
        ordered = cut((pixels - self._shift) / self._scale, self.tiles)
        mask = ordered.new_ones(ordered.shape[:2])
        target = SetBatch(ordered, mask)
        if not self.shuffled:
            order = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
            return Batch(target, target, {"order": order, "label": label})
        place = torch.rand(mask.shape, generator=generator, device=self.device).argsort(-1)
        given = take_rows(ordered, place)
        return Batch(SetBatch(given, mask), target, {"order": place.argsort(-1), "label": label})
