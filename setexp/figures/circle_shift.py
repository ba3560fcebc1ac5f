"""Who is responsible for a circle that moves? (SSLR, Figure 2)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from setexp.figures import canvas
from setexp.figures.latent_sets import as_pixels, one_circle, take_apart

_SIDE = 0.8  # inches of a panel


class CircleShift:
    """A green circle moves to the right, pixel by pixel: input, output, and a colour for each
    element of the output. Writes `circle_shift.png`.

    Args:
        radius: of the circle, in pixels. pixels: how far it moves.
    """

    def __init__(self, *, radius: int, pixels: int) -> None:
        self.radius, self.pixels = radius, pixels

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        side, device = dataset.rules.image_size, generator.device
        x = torch.arange(self.pixels + 1, device=device) + (side - self.pixels) // 2
        rest = [torch.full_like(x, value) for value in (side // 2, self.radius, 1)]
        latent = take_apart(task, one_circle(torch.stack([x, *rest], dim=-1), side))
        responsible = coloured(latent.shown.parts)
        figure, panels = canvas.grid(3, [_SIDE] * len(x), _SIDE)
        rows = zip(panels, (latent.input, latent.shown.picture, responsible), strict=True)
        for line, pictures in rows:
            for panel, picture in zip(line, pictures, strict=True):
                panel.imshow(as_pixels(picture, transposed=True))
        jumps = int((latent.brightness.argmax(-1).diff() != 0).sum())
        canvas.caption(
            figure,
            "Who shows a circle that moves",
            "From above: input, output, and a colour for each element of the latent set. The "
            f"brightest element changes {jumps} times.",
        )
        return [canvas.save(figure, folder / "circle_shift.png")]


def coloured(parts: Tensor) -> Tensor:
    """Elements' pictures (S, N, 3, X, Y), each in one colour, added up: (S, 3, X, Y)."""
    from matplotlib import colormaps

    palette = colormaps["tab10" if parts.shape[1] <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    colours = torch.tensor([palette[k % len(palette)] for k in range(parts.shape[1])])
    return torch.einsum("snxy,nc->scxy", parts.amax(2), colours)
