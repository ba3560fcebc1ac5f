"""MNIST digits as sets of pixel coordinates, clean or noisy (Thesis, 5.6.2; DSPN, 6.3.2).

The points of a digit are its pixels brighter than the mean pixel of MNIST, in random order.
Pixels are kept as indices, so that all 60000 sets take 41 MB on the device and a batch is an
`index_select`, a sort of random keys and a look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from setexp.datasets.digits import SIDE
from setexp.datasets.mnist_images import TEST_SIZE, load_mnist
from setexp.datasets.passes import batch_rows, draws_by_batch
from setexp.errors import ConfigError, one_of
from setexp.sets import Batch, SetBatch

_BITS = 10  # of a key hold the pixel, the bits above are random
_PADDING = 2**_BITS - 1  # stored where a set has no further pixel
_LAST = 2**63 - 1  # key of padding, whose low bits are _PADDING
_BLOCK = 8_192  # images extracted at a time, which bounds the memory this takes


def bright_pixels(images: Tensor, threshold: float, set_size: int) -> Tensor:
    """Indices 28 * row + column of the pixels with value / 255 > threshold.

    Args:
        images: (B, 28, 28) uint8.
        threshold: in [0, 1); 0.1307 keeps what is positive after the usual normalisation.
        set_size: columns of the result.

    Returns:
        (B, set_size) int16 in ascending order, filled up with 1023.

    Raises:
        ConfigError: an image has more bright pixels than `set_size`.
    """
    bright = images.flatten(1) > 255 * threshold
    sizes = bright.sum(1)
    if int(sizes.max()) > set_size:
        raise ConfigError(
            f"dataset.set_size={set_size}: an image has {int(sizes.max())} points above "
            f"dataset.threshold={threshold}; raise the set size (342 holds MNIST) or the threshold"
        )
    image, pixel = bright.nonzero(as_tuple=True)
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(image), device=images.device) - first[image]
    sets = images.new_full((len(images), set_size), _PADDING, dtype=torch.int16)
    sets[image, rank] = pixel.to(torch.int16)
    return sets


class SetMnist:
    """Sets of (row, column) / 27, padded; inputs are the targets with noise.

    Args:
        root: folder that holds `MNIST/raw`.
        source: `auto`, `real` or `procedural`; see `load_mnist`.
        set_size: largest set; MNIST's has 342 points.
        element_dim: 2, or 3 with `mask_feature`; anything else is refused.
        train_size, test_size: images of a split, from the first; None for all.
        eval_subset: `first_tenth` (of DSPN's released code) makes split `test` the images of the
            first tenth of MNIST's test split, that is at most 1000; `full` makes it all of them.
            Split `test_full` is always all of them.
        threshold: pixels with value / 255 above it are points; 0.1307 is MNIST's mean pixel.
        data_seed: of the procedural digits; real digits have none.
        noise: standard deviation of what is added to all features of the input, in every split.
        noise_on_padding: add it to padded rows as well, as the released code does.
        mask_feature: append a feature that is 1 for points and 0 for padding.
        pad: `full` pads to `set_size`; `batch` to the largest set of each batch, so that shapes
            change from batch to batch (`ragged`).
        pad_multiple: `batch` rounds up to a multiple of this. Above 1, many batches are of one
            shape, and seeds can be stacked.

    Batches: target x (B, N, D), input the same `SetBatch`, or one with noise, and `aux["label"]`,
    the digit, (B,) int64. Points are in a new random order in every pass of every split.

    Raises:
        ConfigError: a bad argument, a set larger than `set_size`, missing or corrupt files.
    """

    def __init__(
        self,
        *,
        root: str,
        source: str,
        set_size: int,
        element_dim: int,
        train_size: int | None,
        test_size: int | None,
        eval_subset: str,
        threshold: float,
        data_seed: int,
        noise: float = 0.0,
        noise_on_padding: bool = True,
        mask_feature: bool = False,
        pad: str = "full",
        pad_multiple: int = 1,
    ) -> None:
        if element_dim != 2 + mask_feature:
            raise ConfigError(
                f"dataset.element_dim={element_dim}: a pixel has 2, row and column, and a third "
                "with dataset.mask_feature=true"
            )
        if pad_multiple < 1:
            raise ConfigError(f"dataset.pad_multiple={pad_multiple}: at least 1")
        if noise < 0:
            raise ConfigError(f"dataset.noise={noise}: a standard deviation is at least 0")
        one_of("dataset.pad", pad, ("full", "batch"))
        one_of("dataset.eval_subset", eval_subset, ("first_tenth", "full"))
        if not 0 <= threshold < 1:
            raise ConfigError(f"dataset.threshold={threshold}: choose a value in [0, 1)")
        self.set_size, self._by_batch, self.pad_multiple = set_size, pad == "batch", pad_multiple
        self.ragged = self._by_batch and pad_multiple == 1
        self.noise, self.noise_on_padding, self.mask_feature = noise, noise_on_padding, mask_feature
        self._splits: dict[str, tuple[Tensor, Tensor]] = {}
        for split, size in (("train", train_size), ("test_full", test_size)):
            images, labels, self.source = load_mnist(
                root, source, train=split == "train", count=size, seed=data_seed
            )
            blocks = [bright_pixels(b, threshold, set_size) for b in images.split(_BLOCK)]
            self._splits[split] = (torch.cat(blocks), labels)
        self._eval_size = TEST_SIZE // 10 if eval_subset == "first_tenth" else TEST_SIZE
        pixel = torch.arange(_PADDING + 1)
        place = torch.stack([pixel // SIDE, pixel % SIDE], dim=-1) / (SIDE - 1)
        self._place = torch.where((pixel < SIDE * SIDE).unsqueeze(-1), place, 0.0)
        drawn = f" seed {data_seed}" if self.source == "procedural" else ""
        self.fingerprint = (
            f"set-mnist-1 {self.sizes('train')}+{self.sizes('test_full')} {eval_subset} "
            f"{set_size} > {threshold}{drawn}"
        )
        if noise or mask_feature or self._by_batch:
            where = "" if noise_on_padding else " on points"
            self.fingerprint += f" noise {noise}{where}, {element_dim} features, pad {pad}"
            self.fingerprint += f" by {pad_multiple}" if pad_multiple > 1 else ""

    def to(self, device: torch.device) -> SetMnist:
        """Move all sets; batches appear on this device from now on."""
        self._splits = {
            split: (pixels.to(device), labels.to(device))
            for split, (pixels, labels) in self._splits.items()
        }
        self._place = self._place.to(device)
        return self

    def sizes(self, split: str) -> int:
        """Sets in one pass over `train`, `test` or `test_full`."""
        return len(self._split(split)[1])

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
        """One pass; `shuffle` is the order of the sets, that of points is always random."""
        count, draws = self.sizes(split), draws_by_batch(generator, start)
        parts = batch_rows(count, batch_size, generator, start, shuffle, drop_last)
        return self._produce(split, parts, self._lengths(split, parts), draws)

    def _lengths(self, split: str, parts: list[Tensor]) -> list[int]:
        """Padded size of each batch, read from the device at once."""
        if not self._by_batch or not parts:
            return [self.set_size] * len(parts)
        sizes = (self._split(split)[0] != _PADDING).sum(1)
        largest = torch.stack([sizes.index_select(0, rows).amax() for rows in parts]).tolist()
        return [min(self.set_size, -(-n // self.pad_multiple) * self.pad_multiple) for n in largest]

    def _produce(
        self,
        split: str,
        parts: list[Tensor],
        lengths: list[int],
        draws: Callable[[int], torch.Generator],
    ) -> Iterator[Batch]:
        """Batches of the given sets; see `draws_by_batch`."""
        pixels, labels = self._split(split)
        for at, (rows, length) in enumerate(zip(parts, lengths, strict=True)):
            generator = draws(at)
            pixel = _shuffled(pixels.index_select(0, rows), generator)[:, :length]
            x = self._place.index_select(0, pixel.flatten()).unflatten(0, pixel.shape)
            clean = SetBatch(x, (pixel != _PADDING).to(x.dtype))
            if self.mask_feature:
                clean = SetBatch(clean.with_mask_channel(), clean.mask)
            given = self._noisy(clean, generator) if self.noise else clean
            yield Batch(input=given, target=clean, aux={"label": labels.index_select(0, rows)})

    def _noisy(self, clean: SetBatch, generator: torch.Generator) -> SetBatch:
        x, mask = clean
        noise = self.noise * torch.randn(x.shape, generator=generator, device=x.device)
        return SetBatch(x + (noise if self.noise_on_padding else noise * mask.unsqueeze(-1)), mask)

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        if split == "test":
            pixels, labels = self._splits["test_full"]
            return pixels[: self._eval_size], labels[: self._eval_size]
        if split not in self._splits:
            raise ConfigError(f"split {split}: MNIST sets have train, test and test_full")
        return self._splits[split]


def _shuffled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each row (B, N) in random order, padding last, as int64: one sort of (random, pixel) keys."""
    pixels = pixels.long()
    random = torch.randint(
        2 ** (62 - _BITS), pixels.shape, generator=generator, device=generator.device
    )
    keys = torch.where(pixels == _PADDING, _LAST, (random << _BITS) | pixels)
    return keys.sort(dim=-1).values & _PADDING
