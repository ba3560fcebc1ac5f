"""Rows and random numbers of each batch of one pass, and reading ahead: what datasets share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

What = TypeVar("What")
Read = TypeVar("Read")


def batch_spans(count: int, batch_size: int, start: int, drop_last: bool) -> list[slice]:
    """Consecutive rows of each batch, from the `start`-th batch on."""
    end = count - count % batch_size if drop_last else count
    begins = range(start * batch_size, end, batch_size)
    return [slice(at, min(at + batch_size, end)) for at in begins]


def batch_rows(
    count: int,
    batch_size: int,
    generator: torch.Generator,
    start: int,
    shuffle: bool,
    drop_last: bool,
) -> list[Tensor]:
    """Rows of each batch, int64 on the generator's device, from the `start`-th batch on.

    They are in the order of the data, or in one that is drawn, whatever `start` is.
    """
    device = generator.device
    if shuffle:
        order = torch.randperm(count, generator=generator, device=device)
    else:
        order = torch.arange(count, device=device)
    spans = batch_spans(count, batch_size, start, drop_last)
    return [order[span] for span in spans]


def draws_by_batch(generator: torch.Generator, start: int = 0) -> Callable[[int], torch.Generator]:
    """A seed of its own for every batch of a pass, so that any batch can come first.

    Args:
        generator: decides all of them and the device; one number of it is drawn at the call.
        start: place of the batch that is number 0.

    Returns:
        A function from a batch's number to its generator, which is the same one, seeded anew: draw
        a batch before asking for the next one's.
    """
    device = generator.device
    seed = int(torch.randint(2**31, (), generator=generator, device=device))
    own = torch.Generator(device)
    return lambda number: own.manual_seed(seed + start + number)


def read_ahead(read: Callable[[What], Read], batches: Sequence[What]) -> Iterator[Read]:
    """What is read of each batch, one ahead of the one that is worked on; of one or more."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        upcoming = reader.submit(read, batches[0])
        for following in batches[1:]:
            done, upcoming = upcoming.result(), reader.submit(read, following)
            yield done
        yield upcoming.result()
