"""A bar chart as a picture: pale bars are printed, full ones measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from setexp.errors import ConfigError
from setexp.report import picture
from setexp.report.bars import Bar, Chart, Height, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _QUIET, _RULE = picture.INK, picture.QUIET, picture.RULE
# A colour for each kind of bars; its shades from light to dark.
_HUES = (
    ("#7fb2dd", "#2f7fc1", "#12466f"),
    ("#8bcaa0", "#3a9a5b", "#1b5a33"),
    ("#f4b37a", "#e07a1f", "#8f4708"),
)
_SLOT = 0.15  # inches of a bar with its printed neighbour
_GAP = 1.5  # slots between groups
_HIGH, _BETWEEN = 1.7, 0.55  # inches of a panel, and to the next
_TOP = 1.75  # what is higher is cut and has its number written


def draw(chart: Chart, panels: Sequence[Panel], about: str, path: Path) -> None:
    """Write a chart's panels below one another as PNG, whole or not at all.

    Args:
        about: where our numbers are from, in sentences.

    Raises:
        ConfigError: Matplotlib is missing, or there is nothing to draw.
    """
    if not panels:
        raise ConfigError(
            f"figure {chart.id}: nothing measured yet; --print draws the printed bars alone"
        )
    widths = [_SLOT * sum(_span(*group) for group in panel.groups.items()) for panel in panels]
    wide, high = max(5.5, *widths), len(panels) * (_HIGH + _BETWEEN)
    figure = picture.blank(wide, high)
    colors = _colors(panels)
    for i, (panel, width) in enumerate(zip(panels, widths, strict=True)):
        bottom = high - (i + 1) * (_HIGH + _BETWEEN) + 0.25
        axes = figure.add_axes((0, bottom / high, width / wide, _HIGH / high))
        _draw_panel(axes, panel, colors)
    _legend(figure, colors)
    title = f"{chart.spec['source']}: {chart.spec['title']}"
    picture.save(figure, title, [chart.head, about], path)


def _span(label: str, group: Sequence[Bar]) -> float:
    """Slots of a group: for its bars, and for its label."""
    return max(len(group), 0.5 * len(label)) + _GAP


def _colors(panels: Sequence[Panel]) -> dict[tuple[str, str], str]:
    """Colours by (variant, kind), in the order of a legend."""
    bars = [bar for panel in panels for group in panel.groups.values() for bar in group]
    kinds, variants = ([*dict.fromkeys(getattr(b, k) for b in bars)] for k in ("kind", "variant"))
    drawn = {(bar.variant, bar.kind) for bar in bars}
    first = 1 if len(variants) == 1 else 0  # a single one is neither light nor dark
    return {
        (variant, kind): hue[min(first + shade, len(hue) - 1)]
        for shade, variant in enumerate(variants)
        for kind, hue in zip(kinds, cycle(_HUES), strict=False)
        if (variant, kind) in drawn
    }


def _draw_panel(axes: Axes, panel: Panel, colors: dict[tuple[str, str], str]) -> None:
    left, ticks = 0.0, []
    for label, group in panel.groups.items():
        span = _span(label, group)
        ticks.append(left + span / 2)
        for i, bar in enumerate(group):
            _draw_bar(
                axes, left + span / 2 + i - len(group) / 2, bar, colors[bar.variant, bar.kind]
            )
        left += span
    axes.axhline(1, color=_QUIET, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(0, left), ylim=(0, _TOP), yticks=[0, 0.5, 1, 1.5], xticks=ticks)
    axes.set_xticklabels(list(panel.groups), fontsize=8.5, color=_INK)
    axes.set_title(panel.title, fontsize=9.5, color=_INK, loc="left", pad=4)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)


def _draw_bar(axes: Axes, left: float, bar: Bar, color: str) -> None:
    """Print on the left half of a slot, ours on the right half."""
    for height, at, alpha in ((bar.printed, left + 0.05, 0.35), (bar.ours, left + 0.5, 1.0)):
        if height is not None:
            axes.bar(at, min(height.value, _TOP), 0.42, align="edge", color=color, alpha=alpha)
            _mark(axes, at + 0.21, height, color if alpha < 1 else _INK)
    if bar.diverged:
        axes.plot(left + 0.71, 0.06, "x", color=_INK, markersize=4)


def _mark(axes: Axes, at: float, height: Height, color: str) -> None:
    """Standard deviation as a line; the number of a bar that is cut."""
    if height.value > _TOP:
        text = f"{height.value:.2g}"
        axes.text(at, _TOP, text, fontsize=6, color=_INK, ha="center", va="bottom", rotation=90)
    elif height.std is not None:
        ends = max(0, height.value - height.std), min(_TOP, height.value + height.std)
        axes.plot([at, at], ends, color=color, linewidth=0.8)


def _legend(figure: Figure, colors: dict[tuple[str, str], str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=color, label=", ".join(filter(None, [kind, variant])))
        for (variant, kind), color in colors.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, 0), fontsize=8,
        ncols=max(1, len({variant for variant, _ in colors})),
        frameon=False, labelcolor=_INK, handlelength=1.2, borderpad=0, borderaxespad=0,
    )  # fmt: skip
