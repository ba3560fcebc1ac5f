"""A printed figure of curves: a metric over sweeps, or learned functions coloured by a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setexp.errors import ConfigError
from setexp.report import picture
from setexp.report.blocks import Block
from setexp.report.curves import learned_by, learned_curves, metric_curve
from setexp.report.papers import Column, PrintedTable, check_fields
from setexp.report.sweeps import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEEDED = {"source", "title", "kind", "table"}
_FIELDS: dict[str, set[str]] = {"curves": set(), "functions": {"row", "functions", "sweeps"}}
_MORE: dict[str, set[str]] = {"curves": {"note"}, "functions": {"note", "near", "over"}}
_SIDE, _GAP, _ACROSS = 1.9, 0.6, 4  # inches of a panel and to the next; panels side by side
_HUES = ("#2f7fc1", "#e07a1f", "#3a9a5b")
_COLORS = "viridis"  # of a sweep's values, dark at 0
_NEAR, _NEAR_HUES = 0.05, ("#3a9a5b", "#e07a1f", "#d0021b")  # of those near some values

Panels = dict[str, Callable[["Axes"], None]]  # by title, what draws each


def draw(
    figure_id: str,
    spec: Mapping[str, Any],
    printed: PrintedTable,
    block: Block | None,
    about: str,
    path: Path,
    over: Block | None = None,
) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        spec: of the figure, in `papers`; the head of `papers/thesis.yaml` explains its fields.
        printed: its table in print. block: what is measured of it.
        about: where that is from, in sentences.
        over: what is measured of the other table that a figure lays over its own.

    Raises:
        ConfigError: an unknown or missing field, nothing to draw, or Matplotlib is missing.
    """
    if spec["kind"] not in _FIELDS:
        raise ConfigError(f"figure {figure_id}: kind={spec['kind']}; choose {' or '.join(_FIELDS)}")
    check_fields(figure_id, spec, _NEEDED | _FIELDS[spec["kind"]], _MORE[spec["kind"]])
    functions = spec["kind"] == "functions"
    if "over" in spec and over is None:
        row, tables = spec["over"]["row"], " or ".join(spec["over"]["tables"])
        raise ConfigError(f"figure {figure_id}: nothing learned yet by {row} of table {tables}")
    if block is None:
        panels = {}
    elif functions:
        panels = _function_panels(spec, block, over)
    else:
        panels = _metric_panels(printed, block)
    if not panels:
        raise ConfigError(f"figure {figure_id}: nothing measured yet of table {printed.id}")
    across, down = min(_ACROSS, len(panels)), -(-len(panels) // _ACROSS)
    wide, high = (count * (_SIDE + _GAP) - _GAP for count in (across, down))
    figure = picture.blank(wide, high)
    for k, (title, draw_in) in enumerate(panels.items()):
        left, top = (k % _ACROSS) * (_SIDE + _GAP), (k // _ACROSS) * (_SIDE + _GAP)
        place = (left / wide, (high - top - _SIDE) / high, _SIDE / wide, _SIDE / high)
        axes = figure.add_axes(place, xlim=(0, 1))
        axes.set_title(title, fontsize=9.5, color=picture.INK, loc="left", pad=4)
        axes.tick_params(labelsize=7.5, labelcolor=picture.QUIET, color=picture.RULE)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(picture.RULE)
        draw_in(axes)
    if functions and "near" not in spec:
        from matplotlib.cm import ScalarMappable

        bar = figure.add_axes((1 + 0.2 / wide, 0, 0.1 / wide, 1))
        figure.colorbar(ScalarMappable(cmap=_COLORS), cax=bar).outline.set_visible(False)
        bar.tick_params(labelsize=7.5, labelcolor=picture.QUIET, length=0)
    sentences = [text for text in (spec.get("note"), about) if text]
    picture.save(figure, f"{spec['source']}: {spec['title']}", sentences, path)


def _metric_panels(printed: PrintedTable, block: Block) -> Panels:
    """A panel for each sweep, with a curve for each row."""
    found: Panels = {}
    for sweep in block.table.sweeps:
        curves = {row: metric_curve(block, row, sweep) for row in printed.rows}
        if any(curves.values()):
            column = printed.columns[sweep.label]
            found[sweep.title] = partial(_draw_metric, sweep=sweep, column=column, curves=curves)
    return found


def _draw_metric(
    axes: Axes, sweep: Sweep, column: Column, curves: Mapping[str, Mapping[float, float]]
) -> None:
    for color, (row, curve) in zip(cycle(_HUES), curves.items(), strict=False):
        if curve:
            heights = [y / column.scale for y in curve.values()]
            axes.plot([*curve], heights, ".-", color=color, linewidth=1.3, markersize=3, label=row)
    axes.set(ylim=(0, 1 / column.scale))
    axes.set_xlabel(sweep.symbol, fontsize=8.5, color=picture.INK, labelpad=1)
    axes.set_ylabel(column.unit, fontsize=8.5, color=picture.INK, labelpad=1)
    axes.legend(fontsize=7, frameon=False, labelcolor=picture.INK, loc="lower left")


def _function_panels(spec: Mapping[str, Any], block: Block, over: Block | None) -> Panels:
    """A panel for each sweep and function, with a line for each value of the sweep."""
    found: Panels = {}
    sweeps = {sweep.label: sweep for sweep in block.table.sweeps}
    for label in spec["sweeps"]:
        sweep = sweeps[label]
        for name in spec["functions"]:
            curves = learned_curves(block, spec["row"], sweep, name)
            colors = _colors(curves, spec.get("near", ()))
            if colors:
                above = [] if over is None else learned_by(over, spec["over"]["row"], name)
                lines = [(curves[value], color) for value, color in colors.items()]
                found[f"{name}; {sweep.title}"] = partial(_draw_functions, lines=lines, above=above)
    return found


def _colors(values: Iterable[float], near: Sequence[str]) -> dict[float, Any]:
    """Colours of a sweep's values; where a figure has some, of those near them alone."""
    if near:
        return {
            value: hue
            for value in values
            for hue, centre in zip(_NEAR_HUES, near, strict=True)
            if abs(value - float(centre)) <= _NEAR + 1e-6
        }
    import matplotlib

    colors = matplotlib.colormaps[_COLORS]
    return {value: colors(value) for value in values}


def _draw_functions(
    axes: Axes, lines: Sequence[tuple[Sequence[float], Any]], above: Sequence[float]
) -> None:
    for heights, color in lines:
        axes.plot(_places(heights), heights, color=color, linewidth=0.9)
    if above:
        axes.plot(_places(above), above, color="black", linewidth=2)
    axes.set(ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def _places(heights: Sequence[float]) -> list[float]:
    """Where heights at evenly spaced points of [0, 1] are."""
    return [k / (len(heights) - 1) for k in range(len(heights))]
