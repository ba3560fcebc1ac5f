"""Outputs of an auto-encoder while its polygon rotates (Thesis, Figures 5.1 and 5.2).

A regular n-gon that is turned by 360/n degrees is the same set again. A decoder that makes a list
from a vector must therefore end with the list it began with, and somewhere on the way its outputs
must jump from one vertex to another: the responsibility problem (Thesis, 5.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from setexp.datasets.polygons import polygons
from setexp.errors import ConfigError
from setexp.figures import canvas
from setexp.figures.examples import drawn_from, finite
from setexp.files import write_json
from setexp.sets import Batch, SetBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 1.1  # inches of a polygon
_JUMP = 10.0  # an output jumps where it moves this many times as far as the points


def moves(x: Tensor) -> Tensor:
    """How far each output moves between neighbouring inputs: (K + 1, N, 2) to (K, N)."""
    return (x[1:] - x[:-1]).norm(dim=-1)


def predicted(task: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """What a task makes of sets (S, N, 2), in batches of one size: (S, N, 2) on the CPU."""
    short = -len(x) % batch_size  # the last set again, as the last batch must not be smaller
    outputs = []
    for some in torch.cat([x, x[-1:].expand(short, -1, -1)]).split(batch_size):
        sets = SetBatch(some, some.new_ones(some.shape[:-1]))
        prediction = task(Batch(sets, sets, {})).prediction
        outputs.append(finite(SetBatch(prediction.x[-1].cpu(), prediction.mask[-1].cpu())).x)
    return torch.cat(outputs)[: len(x)]


class RotatingPolygon:
    """One polygon turned from 0 to 360/n degrees: reconstructions above, outputs' angles below.

    Points keep their rows while they turn, so a decoder that takes its order from the input (as
    FSUnpool does) need not jump. Writes `polygons.png` and, with or without Matplotlib,
    `polygons.json`: the largest move of an output between neighbouring rotations, the points' own
    move, and the rotations in degrees between which an output moved more than ten times as far.

    Args:
        rotations: K, small steps from 0 to 360/n degrees.
        batch_size: of the batches they are predicted in; see `setexp.figures.examples.predict`.
        pictures: reconstructions shown, evenly spaced over them.

    Raises:
        ConfigError: there are too few pictures, or more than rotations.
    """

    def __init__(self, *, rotations: int, batch_size: int, pictures: int) -> None:
        if not 2 <= pictures <= rotations:
            raise ConfigError(
                f"figures: pictures={pictures}, rotations={rotations}: "
                "must be 2 <= pictures <= rotations"
            )
        self.rotations, self.batch_size, self.pictures = rotations, batch_size, pictures

    @torch.no_grad()
    def __call__(
        self, task: nn.Module, dataset: Any, folder: Path, generator: torch.Generator
    ) -> list[Path]:
        """Draw; see `setexp.figures`."""
        n = dataset.set_size
        angle = torch.linspace(0, 2 * math.pi / n, self.rotations + 1, device=generator.device)
        x = polygons(angle, n)
        with drawn_from(generator):
            output = predicted(task.eval(), x, self.batch_size)
        degrees = angle.cpu().rad2deg()
        moved, own = float(moves(output).max()), float(moves(x).max())
        jumps = spans(degrees, moves(output).amax(-1) > _JUMP * own)
        found = {
            "set_size": n,
            "rotations": self.rotations,
            "largest_move_of_an_output": moved,
            "move_of_the_points": own,
            "jumps_between_degrees": jumps,
        }
        write_json(folder / "polygons.json", found)
        figure, panels = canvas.grid(1, [_SIDE] * self.pictures, _SIDE)
        at = torch.linspace(0, self.rotations, self.pictures).round().long().tolist()
        canvas.name_columns(panels, [f"{float(degrees[k]):.4g}°" for k in at])
        for panel, k in zip(panels[0], at, strict=True):
            _draw_polygon(panel, x[k].cpu(), output[k])
        _draw_angles(figure, degrees, x.cpu(), output, jumps)
        canvas.caption(
            figure,
            f"A set of {n} points rotates by {360 / n:.4g}°",
            "Rings, grey lines: the points. Dots: the outputs, each with a colour of its own. Red:"
            " outputs jump.\nBetween neighbouring rotations an output moves by at most"
            f" {moved:.2g}: {moved / own:.1f} times as far as the points.",
        )
        return [canvas.save(figure, folder / "polygons.png")]


def spans(degrees: Tensor, jumping: Tensor) -> list[tuple[float, float]]:
    """Where K neighbouring steps between degrees (K + 1,) jump (K,), joined to (from, to)."""
    joined: list[tuple[float, float]] = []
    for k in jumping.nonzero().flatten().tolist():
        low, high = float(degrees[k]), float(degrees[k + 1])
        if joined and joined[-1][1] == low:
            low = joined.pop()[0]
        joined.append((low, high))
    return joined


def _colors(n: int) -> list[tuple[float, float, float]]:
    from matplotlib.colors import hsv_to_rgb

    return [tuple(hsv_to_rgb(((k + 0.3) / n, 0.9, 0.85 - 0.25 * (k % 2)))) for k in range(n)]


def _draw_polygon(axes: Axes, points: Tensor, output: Tensor) -> None:
    """Points (N, 2) as rings on their polygon, outputs (N, 2) as dots, (sin, cos) each."""
    axes.set_facecolor(canvas.GROUND)
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
    x, y = torch.cat([points, points[:1]]).T.numpy()
    axes.plot(x, y, color="#c3cad1", linewidth=0.8)
    size = max(12.0, 110.0 / len(points))
    axes.scatter(x, y, s=2 * size, facecolor="white", edgecolor=canvas.QUIET, linewidth=0.8)
    u, v = output.T.numpy()
    axes.scatter(u, v, s=size, c=_colors(len(output)), linewidths=0, zorder=3)


def _draw_angles(
    figure: Figure,
    degrees: Tensor,
    points: Tensor,
    output: Tensor,
    jumps: Sequence[tuple[float, float]],
) -> None:
    """Angles of points and outputs (K + 1, N, 2) against the rotation."""
    high = figure.get_figheight()
    axes = figure.add_axes((0, -3.1 / high, 1, 2.7 / high))
    for low, up in jumps:
        axes.axvspan(low, up, color=canvas.MISTAKE, alpha=0.18, linewidth=0, zorder=0)
    for row in _angles(points).T:
        axes.scatter(degrees, row, s=5, color=canvas.RULE, linewidths=0)
    for row, color in zip(_angles(output).T, _colors(output.shape[1]), strict=True):
        axes.scatter(degrees, row, s=5, color=color, linewidths=0, zorder=2)
    last = float(degrees[-1])
    axes.set(xlim=(-0.01 * last, 1.01 * last), ylim=(0, 360), yticks=range(0, 361, 90))
    axes.set_xlabel("rotation of the set, degrees", fontsize=9, color=canvas.INK)
    axes.set_ylabel("direction, degrees", fontsize=9, color=canvas.INK)
    axes.tick_params(labelsize=8, colors=canvas.QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(canvas.RULE)


def _angles(x: Tensor) -> Tensor:
    """Directions of (sin, cos) pairs (..., 2) in degrees from 0 to 360."""
    return torch.atan2(x[..., 0], x[..., 1]).rad2deg() % 360
