"""What a task makes of pictures: latent elements, and what each of them shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from setexp.datasets.circles import draw
from setexp.ops.superposition import Superposition

_AT_ONCE = 256


class Latent(NamedTuple):
    """Pictures taken apart, on the CPU.

    Args:
        input: the pictures, (S, 3, H, W).
        elements: (S, N, D).
        shown: see `Superposition`.
    """

    input: Tensor
    elements: Tensor
    shown: Superposition

    @property
    def brightness(self) -> Tensor:
        """The largest value that each element shows, (S, N)."""
        return self.shown.parts.flatten(2).amax(-1)


@torch.no_grad()
def take_apart(task: Any, pictures: Tensor) -> Latent:
    """Elements and their pictures, with the decoder's own number of inner steps."""
    task.eval()
    found = []
    for some in pictures.split(_AT_ONCE):
        elements = task.decoder(task.encoder(some)).x[-1]
        found.append((elements, *task.show(elements)))
    elements, *shown = (torch.cat(parts).float().cpu() for parts in zip(*found, strict=True))
    return Latent(pictures.cpu(), elements, Superposition(*shown))


def one_circle(circles: Tensor, image_size: int) -> Tensor:
    """Pictures of one circle each, x, y, radius and colour: (S, 4) to (S, 3, X, Y)."""
    circles = circles.float().unsqueeze(1)
    return draw(circles, circles.new_ones(circles.shape[:2]), image_size)


def as_pixels(picture: Tensor, *, transposed: bool) -> Any:
    """A picture (3, H, W) as Matplotlib shows it; of circles, whose x comes first, `transposed`."""
    turned = picture.mT if transposed else picture
    return turned.clamp(0, 1).permute(1, 2, 0).numpy()
