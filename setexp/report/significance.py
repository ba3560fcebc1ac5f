"""Wilcoxon's signed-rank test between two rows over the columns of tables (Thesis, 5.6.5)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from setexp.errors import ConfigError
from setexp.report.blocks import Block
from setexp.report.papers import PrintedTable


@dataclass(frozen=True)
class Comparison:
    """How a row fares against another.

    Args:
        pairs: columns in which both rows have a number.
        won: columns in which the first is better.
        statistic, p: W, and its two-sided probability if rows do not differ; NaN without pairs.
        runs: of each number, the seeds that it is a mean of.
    """

    pairs: int
    won: int
    statistic: float
    p: float
    runs: tuple[int, ...] = ()

    def __str__(self) -> str:
        test = "" if not self.pairs else f", W = {self.statistic:g}, p = {self.p:.3f}"
        few, many = min(self.runs, default=0), max(self.runs, default=0)
        runs = str(many) if few == many else f"{few} to {many}"
        behind = f"; runs behind a number: {runs}" if self.runs else ""
        return f"better in {self.won} of {self.pairs} columns{test}{behind}"


def wilcoxon(
    first: Sequence[float], second: Sequence[float], *, lower: bool, exact: bool
) -> Comparison:
    """Compare paired numbers; `lower` ones are better.

    Equal pairs are left out, as Wilcoxon does; W is the smaller sum of ranks.

    Args:
        exact: p by counting, as few pairs need; otherwise by the normal approximation, as the
            thesis does. Of the accuracies it prints W = 7, p of about 0.07: there two gains that
            are equal in print were not.
    """
    gains = [b - a if lower else a - b for a, b in zip(first, second, strict=True)]
    gains = [round(g, 12) for g in gains]  # of decimals that are printed
    statistic, p = math.nan, math.nan
    if differing := [g for g in gains if g]:
        from scipy import stats

        found = stats.wilcoxon(differing, method="exact" if exact else "asymptotic")
        statistic, p = float(found.statistic), float(found.pvalue)
    return Comparison(len(gains), sum(g > 0 for g in gains), statistic, p)


def printed(tables: Sequence[PrintedTable], first: str, second: str) -> Comparison:
    """The comparison of two rows' printed numbers.

    Raises:
        ConfigError: the columns do not all have one unit in which one direction is better.
    """
    pairs = [
        (a.mean, b.mean)
        for table in tables
        for column in table.columns
        if (a := table.number(first, column)) and (b := table.number(second, column))
    ]
    return _compared([(float(a), float(b)) for a, b in pairs], tables, exact=False)


def measured(
    found: Sequence[Block], tables: Sequence[PrintedTable], first: str, second: str
) -> Comparison:
    """The comparison of two rows' means over seeds, in the blocks that were found.

    Raises:
        ConfigError: as `printed`.
    """
    pairs: list[tuple[float, ...]] = []
    runs: list[int] = []
    for block in found:
        for column in dict.fromkeys(c for _, c in block.table.cells):
            values = [
                block.measured(block.table.cells[row, column]).values for row in (first, second)
            ]
            if all(values):
                pairs.append(tuple(statistics.fmean(v) for v in values))
                runs += map(len, values)
    return replace(_compared(pairs, tables, exact=True), runs=tuple(runs))


def _compared(
    pairs: Sequence[tuple[float, ...]], tables: Sequence[PrintedTable], *, exact: bool
) -> Comparison:
    columns = [column for table in tables for column in table.columns.values()]
    units, directions = {c.unit for c in columns}, {c.direction for c in columns}
    if len(units) > 1 or directions not in ({"lower"}, {"higher"}):
        raise ConfigError(
            f"{' '.join(table.id for table in tables)}: units {', '.join(sorted(units))}, better: "
            f"{', '.join(sorted(directions))}; ranks need one unit and one direction, choose others"
        )
    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    return wilcoxon(first, second, lower=directions == {"lower"}, exact=exact)
