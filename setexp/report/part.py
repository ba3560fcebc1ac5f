"""A part of a table: the rows and columns whose labels match what a command line says.

Rows and columns are given as a label, or as patterns of a shell divided by "|":
"*n=[24] it=10|Baseline*". None means all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from setexp.errors import ConfigError, listed
from setexp.report.papers import PrintedTable
from setexp.report.tables import Table


def part(table: Table, rows: str | None, columns: str | None) -> Table:
    """The cells of a table in some rows and columns, and the runs that fill them.

    Raises:
        ConfigError: a pattern matches no label.
    """
    kept_rows = _matching(f"rows={rows}", rows, (row for row, _ in table.cells), table.id)
    kept_columns = _matching(f"columns={columns}", columns, (c for _, c in table.cells), table.id)
    cells = {
        (row, column): cell
        for (row, column), cell in table.cells.items()
        if row in kept_rows and column in kept_columns
    }
    needed = [(experiment, c.axes) for c in cells.values() for experiment in c.experiments]
    runs = tuple(run for run in table.runs if (run.experiment, run.axes) in needed)
    chosen = [*table.chosen]
    if kept_rows < {row for row, _ in table.cells}:
        chosen.append(f"rows={rows}")
    if kept_columns < {column for _, column in table.cells}:
        chosen.append(f"columns={columns}")
    return replace(table, cells=cells, runs=runs, chosen=tuple(chosen))


def printed_part(printed: PrintedTable, rows: str | None, columns: str | None) -> PrintedTable:
    """The numbers of a printed table in some rows and columns.

    Raises:
        ConfigError: a pattern matches no label.
    """
    kept_rows = _matching(f"rows={rows}", rows, printed.rows, printed.id)
    kept_columns = _matching(f"columns={columns}", columns, printed.columns, printed.id)
    return replace(
        printed,
        rows={k: row for k, row in printed.rows.items() if k in kept_rows},
        columns={k: column for k, column in printed.columns.items() if k in kept_columns},
    )


def _matching(said: str, patterns: str | None, labels: Iterable[str], table: str) -> set[str]:
    known = list(dict.fromkeys(labels))
    if patterns is None:
        return set(known)
    found: set[str] = set()
    for pattern in patterns.split("|"):
        matched = {label for label in known if label == pattern or fnmatchcase(label, pattern)}
        if not matched:
            divided = "divide labels by |; " if "," in pattern else ""
            raise ConfigError(
                f"{said}: {pattern!r} matches no label of {table}; {divided}there are "
                f"{listed(known)}"
            )
        found |= matched
    return found
