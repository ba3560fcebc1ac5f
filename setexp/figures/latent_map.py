"""Maps of latent elements that show one circle (SSLR, Figures 5 and 6)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from setexp.figures import canvas
from setexp.figures.latent_sets import one_circle, take_apart

_SIDE = 2.4  # inches of a panel


class LatentMap:
    """t-SNE of elements that show a circle, at places on a grid and in both colours, coloured by
    what they show. Writes `latent_map_2d.png` (x, y, colour) or `latent_map_3d.png` (also radius).

    It needs scikit-learn, the extra `tsne`.

    Args:
        dimensions: 2 or 3. places: of the grid, along each side. radii: of circles, in pixels.
    """

    def __init__(self, *, dimensions: int, places: int, radii: list[int]) -> None:
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions={dimensions}: 2 or 3 can be drawn")
        self.dimensions, self.places, self.radii = dimensions, places, radii

    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        side = dataset.rules.image_size
        circles = self.circles(side).to(generator.device)
        latent = take_apart(task, one_circle(circles, side))
        brightest = latent.brightness.argmax(-1)
        elements = latent.elements[torch.arange(len(circles)), brightest]
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        names = ["x", "y", "radius", "colour"]
        shown = [0, 1, 3] if self.dimensions == 2 else [0, 1, 2, 3]
        figure, panels = canvas.grid(1, [_SIDE] * len(shown), _SIDE)
        canvas.name_columns(panels, [names[k] for k in shown])
        places = embed(elements, self.dimensions, seed)
        for panel, k in zip(panels[0], shown, strict=True):
            self._draw(panel, places, circles[:, k].cpu(), "RdYlGn" if k == 3 else "viridis")
        canvas.caption(
            figure,
            f"t-SNE of latent elements in {self.dimensions} dimensions",
            f"Each shows a circle on a grid of {self.places} by {self.places} places; colours say "
            f"what it shows.\nThey are of {len(brightest.unique())} slots of the latent set.",
        )
        return [canvas.save(figure, folder / f"latent_map_{self.dimensions}d.png")]

    def circles(self, image_size: int) -> Tensor:
        """Circles of all radii in both colours on the grid, (S, 4)."""
        edge = max(self.radii)
        axis = torch.linspace(edge, image_size - 1 - edge, self.places).round().long()
        return torch.cartesian_prod(axis, axis, torch.tensor(self.radii), torch.tensor([0, 1]))

    def _draw(self, panel: Any, places: Tensor, values: Tensor, colours: str) -> None:
        if self.dimensions == 2:
            panel.scatter(*places.T.numpy(), c=values.numpy(), s=4, linewidths=0, cmap=colours)
            return
        box = panel.get_position()
        deep = panel.figure.add_axes(box.bounds, projection="3d", xticks=[], yticks=[], zticks=[])
        deep.scatter(*places.T.numpy(), c=values.numpy(), s=3, linewidths=0, cmap=colours)


def embed(elements: Tensor, dimensions: int, seed: int) -> Tensor:
    """t-SNE with scikit-learn's defaults, as in print: (S, D) to (S, dimensions)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(elements) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its defaults that will change
        model = TSNE(dimensions, perplexity=perplexity, random_state=seed % 2**31)
        return torch.from_numpy(model.fit_transform(elements.numpy()))
