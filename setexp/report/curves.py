"""Curves over a table's sweeps: a metric of each row, or functions that one row's runs learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from setexp.report.blocks import Block, Measured
from setexp.report.sweeps import Sweep
from setexp.report.tables import Cell


def measured(block: Block, row: str, sweep: Sweep) -> dict[float, Measured]:
    """What a row's runs gave at the values of a sweep."""
    return {value: block.measured(cell) for value, cell in _cells(block, row, sweep)}


def metric_curve(block: Block, row: str, sweep: Sweep) -> dict[float, float]:
    """A row's mean metric, in raw units, at the values of a sweep that have one."""
    found = measured(block, row, sweep)
    return {value: fmean(m.values) for value, m in found.items() if m.values}


def learned_curves(block: Block, row: str, sweep: Sweep, name: str) -> dict[float, list[float]]:
    """Heights of a function that a row's runs learned, at evenly spaced points of [0, 1].

    Seeds are averaged; values of the sweep without a run are left out.
    """
    found = {value: _learned(block, cell, name) for value, cell in _cells(block, row, sweep)}
    return {value: heights for value, heights in found.items() if heights}


def learned_by(block: Block, row: str, name: str) -> list[float]:
    """Heights of a function that a row's one run learned, seeds averaged; [] of none."""
    cell = next((c for (r, _), c in block.table.cells.items() if r == row), None)
    return [] if cell is None else _learned(block, cell, name)


def fullest(found: Sequence[Block], row: str, name: str) -> Block | None:
    """The first of some blocks in which a row's run learned a function."""
    return next((block for block in found if learned_by(block, row, name)), None)


def _learned(block: Block, cell: Cell, name: str) -> list[float]:
    records = block.of(cell.experiment, cell.axes)
    learned = [records[s].content.get("learned", {}) for s in block.table.seeds if s in records]
    heights = [functions[name] for functions in learned if name in functions]
    return [fmean(at) for at in zip(*heights, strict=True)]


def _cells(block: Block, row: str, sweep: Sweep) -> Iterator[tuple[float, Cell]]:
    for column, value in sweep.values.items():
        cell = block.table.cells.get((row, column))
        if cell is not None:  # it may be a part of the table
            yield value, cell
