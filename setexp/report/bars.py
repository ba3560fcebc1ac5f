"""Bar charts of a table's numbers relative to one of them, as printed figures show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from setexp.errors import ConfigError
from setexp.report.blocks import Block
from setexp.report.papers import PAPERS, PrintedTable, check_fields, load_figure

_NEEDED = {"source", "title", "table", "row", "column", "relative_to", "panels"}
_OTHERS = {"note", "groups", "bars"}


@dataclass(frozen=True)
class Height:
    """A relative number and its standard deviation over seeds, None where there is one seed."""

    value: float
    std: float | None


@dataclass(frozen=True)
class Bar:
    """One bar, as printed and as measured, each None where there is no number.

    Args:
        kind, variant: what a group's bars are called; kinds differ in their first field.
        unit: what the others of the group are divided by.
        diverged: all seeds that ended did so.
    """

    kind: str
    variant: str
    unit: bool
    printed: Height | None
    ours: Height | None
    diverged: bool


@dataclass(frozen=True)
class Panel:
    """Groups of bars, by label."""

    title: str
    groups: dict[str, tuple[Bar, ...]]


@dataclass(frozen=True)
class Chart:
    """A printed bar chart; the head of `papers/idspn.yaml` explains the fields of `spec`."""

    id: str
    spec: Mapping[str, Any]

    @property
    def head(self) -> str:
        """What the bars are, in sentences."""
        unit = _label(self.spec["relative_to"])
        said = f"Numbers of {self.spec['table']} divided by that of {unit} beside them."
        return f"{said} {self.spec.get('note', '')}".strip()

    def panels(self, printed: PrintedTable, block: Block | None) -> list[Panel]:
        """Print beside a block, where that has something; without a block, all that is printed.

        Groups in which nothing but the unit is measured are left out.

        Raises:
            ConfigError: a label that the table does not have.
        """
        found = []
        for panel in self.spec["panels"]:
            own = {k: v for k, v in panel.items() if k not in ("title", "groups", "bars")}
            groups, bars = (panel.get(key, self.spec.get(key)) for key in ("groups", "bars"))
            drawn = {
                _label(group): tuple(self._bar(own | group, bar, printed, block) for bar in bars)
                for group in groups
            }
            if block is not None:
                drawn = {k: tuple(b for b in g if b.ours or b.diverged) for k, g in drawn.items()}
                drawn = {k: g for k, g in drawn.items() if not all(b.unit for b in g)}
            if drawn:
                found.append(Panel(panel.get("title", _label(own)), drawn))
        return found

    def _bar(
        self, place: dict[str, str], bar: dict[str, str], printed: PrintedTable, block: Block | None
    ) -> Bar:
        here = self._cell(place | bar, printed)
        unit = self._cell(place | self.spec["relative_to"], printed)
        ours, diverged = _measured(block, here, unit) if block else (None, False)
        (first, kind), *rest = bar.items()
        names = _label({first: kind}), _label(dict(rest))
        return Bar(*names, here == unit, _print(printed, here, unit), ours, diverged)

    def _cell(self, fields: dict[str, str], printed: PrintedTable) -> tuple[str, str]:
        try:
            row, column = (self.spec[key].format(**fields) for key in ("row", "column"))
        except KeyError as error:
            raise ConfigError(f"figure {self.id}: no panel, group or bar names {error}") from None
        if row not in printed.rows or column not in printed.columns:
            raise ConfigError(f"figure {self.id}: ({row}, {column}) is not in table {printed.id}")
        return row, column


def _measured(
    block: Block, here: tuple[str, str], unit: tuple[str, str]
) -> tuple[Height | None, bool]:
    """A cell's mean relative to another cell's, and whether it has none because seeds diverged."""
    measured, base = (block.measured(block.table.cells[cell]) for cell in (here, unit))
    if not measured.values:
        return None, bool(measured.diverged)
    if not base.values or not fmean(base.values):
        return None, False
    values = [value / fmean(base.values) for value in measured.values]
    return Height(fmean(values), stdev(values) if len(values) > 1 else None), False


def _print(printed: PrintedTable, here: tuple[str, str], unit: tuple[str, str]) -> Height | None:
    number, base = printed.number(*here), printed.number(*unit)
    if number is None or base is None or not base.mean:
        return None
    std = None if number.std is None else float(number.std / base.mean)
    return Height(float(number.mean / base.mean), std)


def _label(fields: Mapping[str, str]) -> str:
    """Such as "iDSPN, it=10": words speak for themselves."""
    return ", ".join(v if not v.isdigit() else f"{k}={v}" for k, v in fields.items())


def load_chart(figure_id: str, folder: Path = PAPERS) -> Chart:
    """A printed bar chart by its id, such as "idspn/2".

    Raises:
        ConfigError: no such figure, or a field that is unknown or missing.
    """
    spec = load_figure(figure_id, folder)
    check_fields(figure_id, spec, _NEEDED, _OTHERS)
    return Chart(figure_id, spec)
