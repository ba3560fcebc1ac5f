"""From an element that shows nothing to one that shows a circle (SSLR, Figure 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from setexp.figures import canvas
from setexp.figures.latent_sets import as_pixels, one_circle, take_apart

_SIDE = 0.8  # inches of a panel


class LatentInterpolation:
    """The latent set of a green circle, its brightest element replaced by mixtures of it and the
    faintest; what that element shows. Writes `latent_interpolation.png`.

    Args:
        radius: of the circle, in pixels. steps: mixtures, both ends included.
    """

    def __init__(self, *, radius: int, steps: int) -> None:
        self.radius, self.steps = radius, steps

    @torch.no_grad()
    def __call__(
        self, task: Any, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        side, device = dataset.rules.image_size, generator.device
        circle = torch.tensor([[side // 2, side // 2, self.radius, 1]], device=device)
        latent = take_apart(task, one_circle(circle, side))
        bright, faint = (int(f(latent.brightness[0])) for f in (torch.argmax, torch.argmin))
        share = torch.linspace(0, 1, self.steps).unsqueeze(-1)
        sets = latent.elements.repeat(self.steps, 1, 1)
        sets[:, bright] = torch.lerp(sets[:, faint], sets[:, bright], share)
        parts = task.show(sets.to(device)).parts[:, bright].float().cpu()
        figure, panels = canvas.grid(1, [_SIDE] * self.steps, _SIDE)
        for panel, picture in zip(panels[0], parts, strict=True):
            panel.imshow(as_pixels(picture, transposed=True))
        canvas.caption(
            figure,
            "From an element that shows nothing to one that shows a circle",
            "What the element shows within the set, mixed linearly.",
        )
        return [canvas.save(figure, folder / "latent_interpolation.png")]
