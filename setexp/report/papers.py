"""Printed tables: numbers as the documents print them, each with its number of decimals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from setexp.errors import ConfigError

PAPERS = Path(__file__).resolve().parents[2] / "papers"


@dataclass(frozen=True)
class Number:
    """One printed number.

    Args:
        mean, std: as printed; `std` is None where none is.
        exponent: printed as 6.0e-5, not as 0.000060.
    """

    mean: Decimal
    std: Decimal | None = None
    exponent: bool = False

    @property
    def decimals(self) -> int:
        """Digits after the point of the printed mean, written without an exponent."""
        return max(0, -int(self.mean.as_tuple().exponent))

    def finer(self, value: float) -> str:
        """Another value in this one's notation, with one more digit than its mean has."""
        if self.exponent:
            return f"{Decimal(value):.{len(self.mean.as_tuple().digits)}e}"
        return f"{value:.{self.decimals + 1}f}"

    def __str__(self) -> str:
        parts = [self.mean] if self.std is None else [self.mean, self.std]
        return " ± ".join(_exponential(p) if self.exponent else f"{p:f}" for p in parts)


def _exponential(value: Decimal) -> str:
    """All digits, with an exponent."""
    return f"{value:.{len(value.as_tuple().digits) - 1}e}"


@dataclass(frozen=True)
class Column:
    """What a column's numbers are.

    Args:
        unit: as printed.
        direction: which numbers are better: "lower", "higher" or "none".
        scale: a printed number times this is the raw metric. Shares are raw as fractions, so that
            a column in % or percentage points has 0.01.
        verdict: what is said instead of a verdict, where numbers cannot be judged.
        exact: the document says "all" or "none": what rounds to its number isn't the same.
    """

    unit: str
    direction: str
    scale: float
    verdict: str = ""
    exact: bool = False


@dataclass(frozen=True)
class PrintedTable:
    """One printed table; a cell is None where the document has a dash.

    Args:
        points: of the curves that it stands for, if it does.
    """

    id: str
    source: str
    title: str
    metric: str
    note: str
    runs: int | None
    columns: dict[str, Column]
    rows: dict[str, dict[str, Number | None]]
    points: int | None = None

    def number(self, row: str, column: str) -> Number | None:
        """The printed number of a cell."""
        return self.rows.get(row, {}).get(column)


def load_printed(table_id: str, folder: Path = PAPERS) -> PrintedTable:
    """One printed table by its id, such as "thesis/5.3".

    Raises:
        ConfigError: no such document or table.
    """
    document = table_id.partition("/")[0]
    path = folder / f"{document}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ConfigError(f"table id {table_id}: no document {document!r}; there are {known}")
    tables = read_paper(path)["tables"]
    if table_id not in tables:
        raise ConfigError(f"table id {table_id}: not in {path.name}; there are {', '.join(tables)}")
    return _parse(table_id, tables[table_id])


def load_figure(figure_id: str, folder: Path = PAPERS) -> dict[str, Any]:
    """What a printed chart shows, by its id, such as "idspn/2".

    Raises:
        ConfigError: no such figure.
    """
    known: dict[str, Any] = {}
    for path in sorted(folder.glob("*.yaml")):
        known |= read_paper(path).get("figures", {})
    if figure_id not in known:
        raise ConfigError(f"figure {figure_id}: not known; there are {', '.join(known)}")
    return known[figure_id]


def check_fields(
    figure_id: str, spec: Mapping[str, Any], needed: set[str], others: set[str]
) -> None:
    """Raises a ConfigError where a figure lacks a field, or has one that is not known."""
    for key in sorted((spec.keys() - needed - others) | (needed - spec.keys())):
        problem = "unknown" if key in spec else "missing"
        raise ConfigError(
            f"figure {figure_id}: {key} is {problem}; use {', '.join(sorted(needed | others))}"
        )


@lru_cache(maxsize=8)
def read_paper(path: Path) -> dict[str, Any]:
    """A document's file, all scalars as text."""
    # The base loader keeps scalars as text: a float would forget that 0.000 has three decimals.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    return yaml.load(path.read_text(), Loader=loader)


def _parse(table_id: str, entry: Mapping[str, Any]) -> PrintedTable:
    meta = entry.get("column_meta", {})
    runs = entry["n_runs"]
    return PrintedTable(
        id=table_id,
        source=entry["source"],
        title=entry["title"],
        metric=entry["metric"],
        note=_notes(entry),
        runs=None if runs == "null" else int(runs),
        columns={c: _column(entry, meta.get(c, {})) for c in entry["columns"]},
        rows={
            row: {column: _number(cell) for column, cell in cells.items()}
            for row, cells in entry["rows"].items()
        },
        points=int(entry["points"]) if "points" in entry else None,
    )


def _notes(entry: Mapping[str, Any]) -> str:
    """The table's note, those of its rows, "Slot MLP: from another paper.", and of its cells."""
    notes = [entry.get("note", "")]
    notes += [f"{row}: {text}." for row, text in entry.get("row_notes", {}).items()]
    for row, cells in entry["rows"].items():
        for column, cell in cells.items():
            said = {} if cell == "null" else cell
            of_cell = [f"{said['runs']} runs"] if "runs" in said else []
            of_cell += [said["note"]] if "note" in said else []
            notes += [f"{row}, {column}: {'; '.join(of_cell)}."] if of_cell else []
    return " ".join(" ".join(notes).split())


def _column(entry: Mapping[str, Any], meta: Mapping[str, Any]) -> Column:
    unit = meta.get("unit", entry["unit"])
    default = "0.01" if unit in ("%", "percentage points") else "1"
    scale = float(meta.get("scale", entry.get("scale", default)))
    direction = meta.get("direction", entry["direction"])
    exact = entry.get("exact") == "true"
    return Column(unit, direction, scale, meta.get("verdict", ""), exact)


def _number(cell: Any) -> Number | None:
    if cell == "null":
        return None
    std = cell.get("std", "null")
    mean = str(cell["mean"])
    exponent = "e" in mean.lower()
    return Number(Decimal(mean), None if std == "null" else Decimal(std), exponent)
