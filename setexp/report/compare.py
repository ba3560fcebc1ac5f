"""Measured against printed: mean and spread over seeds, and how far they are from the document."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from decimal import Decimal

from setexp.report.blocks import Measured
from setexp.report.papers import Column, Number

WITHIN = 3.0
"""Printed standard deviations up to which a mean counts as reproduced."""

CLOSE = 0.005
"""Relative difference up to which a mean counts as the same, where no deviation is printed and
nothing is counted."""

LEGEND = (
    "ours: mean ± sample standard deviation over the seeds that gave a value, one more digit than "
    "printed; rows without it are not run. "
    "compared: the difference in printed standard deviations (sd), within up to 3 of them; where "
    "none but 0 is printed, the ratio ours / paper, same if ours rounds to the printed number (or, "
    "where none is printed, differs by less than 0.5 %; counts are rounded). "
    "seeds: how many of the wanted gave a value; lacking: done, without this metric. "
    "A commit with + had changed files."
)


def ours(measured: Measured, column: Column, printed: Number | None) -> str:
    """Mean ± sample standard deviation in printed units, one digit more than print has; without a
    value, why there is none."""
    if not measured.values:
        if measured.diverged:
            return "diverged"
        return measured.lack if measured.lacking else "not run"
    values = [value / column.scale for value in measured.values]
    text = _digits(statistics.fmean(values), printed)
    if len(values) > 1:
        text += f" ± {_digits(_std(values), printed)}"
    return text


def seeds(measured: Measured) -> str:
    """Seeds with a value, of those wanted, and what became of others; "" where none has ended."""
    if not measured.values and not measured.diverged and not measured.lacking:
        return ""
    parts = [f"{len(measured.values)} of {measured.wanted}"]
    if measured.diverged:
        parts.append(f"{measured.diverged} diverged")
    if measured.lacking:
        parts.append(f"{measured.lacking} lacking")
    return ", ".join(parts)


def compare(printed: Number | None, column: Column, values: Sequence[float]) -> tuple[str, str]:
    """How far the mean is from print, and a verdict in one word.

    Returns:
        The distance ("-0.4 sd", "x1.02" or "") and "within", "same", "better", "worse", "other"
        (where neither direction is better), what a column has instead of verdicts, or "" where
        there is nothing to compare.
    """
    if printed is None or not values:
        return "", ""
    mean = statistics.fmean(values) / column.scale
    if not math.isfinite(mean):
        return "not finite", "worse"
    difference = mean - float(printed.mean)
    direction = {"lower": -1, "higher": 1}.get(column.direction, 0)
    gain = difference * direction
    outside = ("worse" if gain < 0 else "better") if direction else "other"
    ratio = mean / float(printed.mean) if printed.mean else math.nan
    times = f"x{ratio:.4g}" if printed.mean else ""
    if column.verdict:
        return times, column.verdict
    if printed.std:
        deviations = difference / float(printed.std)
        verdict = "within" if abs(deviations) <= WITHIN else outside
        return f"{deviations:+.1f} sd", verdict
    if column.exact:
        same = math.isclose(mean, float(printed.mean), rel_tol=1e-9)
    else:
        counted = column.unit == "count" and not printed.decimals
        close = printed.std is None and not counted and abs(ratio - 1) < CLOSE
        same = close or Decimal(f"{mean:.{printed.decimals}f}") == printed.mean
    if same:
        return "", "same"
    return times, outside


def _std(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN where a value is not finite."""
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def _digits(value: float, printed: Number | None) -> str:
    """As print has it; three digits for what would not fit a table, or has no printed number."""
    unfit = printed is None or abs(value) >= 1e6 or not math.isfinite(value)
    return f"{value:.3g}" if unfit or printed is None else printed.finer(value)
