"""A grid of bare panels, and saving it: all that the figures need of Matplotlib.

Only Matplotlib's objects are used, never pyplot, so a picture leaves no state behind and needs no
display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from setexp.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, RULE, GROUND = "#1c2733", "#7b8794", "#d5dade", "#f1f3f5"
PREDICTED, MISTAKE = "#0b5fb0", "#e8003d"
_GAP = 0.08  # inches between panels
_DPI = 130


def grid(
    rows: int, widths: Sequence[float], height: float, above: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of empty panels without ticks, `rows` times one per width.

    Args:
        rows: of panels. widths: of the columns, in inches. height: of every row, in inches.
        above: inches that are left free between rows, for titles.
    """
    from matplotlib.figure import Figure

    wide = sum(widths) + _GAP * (len(widths) - 1)
    step = height + _GAP + above
    high = step * rows - _GAP - above
    figure = Figure(figsize=(wide, high), facecolor="white")
    panels = []
    for row in range(rows):
        bottom = high - height - row * step
        lefts = [sum(widths[:i]) + _GAP * i for i in range(len(widths))]
        places = [
            (left / wide, bottom / high, width / wide, height / high)
            for left, width in zip(lefts, widths, strict=True)
        ]
        panels.append([bare(figure, place) for place in places])
    return figure, panels


def bare(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    """Axes without ticks and frame at (left, bottom, width, height), as shares of the figure."""
    axes = figure.add_axes(place, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def name_columns(panels: list[list[Axes]], names: Sequence[str]) -> None:
    """Write a name above each column."""
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize=10, color=INK, pad=5)


def caption(figure: Figure, title: str, lines: str) -> None:
    """A title and lines of explanation above everything, flush left."""
    inch = 1 / figure.get_figheight()
    high = 1 + 0.38 * inch
    figure.text(0, high, lines, fontsize=8.5, color=QUIET, va="bottom", linespacing=1.35)
    above = high + (0.16 * (1 + lines.count("\n")) + 0.08) * inch
    figure.text(0, above, title, fontsize=12, color=INK, va="bottom", weight="bold")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure and whatever stands around its panels as PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.12)
    write_bytes(path, content.getvalue())
    return path
