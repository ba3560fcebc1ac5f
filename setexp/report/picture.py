"""A chart's title, sentences and file: what all charts share of Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from setexp.errors import ConfigError
from setexp.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, RULE = "#1c2733", "#7b8794", "#d5dade"


def blank(wide: float, high: float) -> Figure:
    """An empty figure, sizes in inches.

    Raises:
        ConfigError: Matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("Matplotlib is missing; pip install -e '.[plots]' brings it") from None
    figure = Figure(figsize=(wide, high), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, title: str, sentences: Sequence[str], path: Path) -> None:
    """Write a title and sentences above everything, and the figure, whole or not at all.

    Raises:
        ConfigError: the format that the name ends in is unknown, or the file cannot be written.
    """
    wide, high = figure.get_size_inches()
    lines = [line for text in sentences for line in wrap(text, int(15 * wide))]
    for inches, text, size, color in (
        (0.25, "\n".join(lines), 8, QUIET),
        (0.35 + 0.16 * len(lines), title, 11, INK),
    ):
        figure.text(0, 1 + inches / high, text, fontsize=size, color=color, va="bottom")
    content, kind = io.BytesIO(), path.suffix.removeprefix(".") or "png"
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ConfigError(f"{path}: no picture ends in .{kind}; choose one of {', '.join(known)}")
    figure.savefig(content, format=kind, dpi=130, bbox_inches="tight", pad_inches=0.12)
    try:
        write_bytes(path, content.getvalue())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); name another") from None
