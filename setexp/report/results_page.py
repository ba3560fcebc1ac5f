"""The page of results: every table config beside the kept records, and a front table of them all.

Its text is a function of configs, printed numbers and records alone, so that a test can tell
whether the committed page is up to date.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from setexp.errors import ConfigError
from setexp.report.blocks import Block, blocks
from setexp.report.compare import LEGEND, compare, ours
from setexp.report.papers import PrintedTable, load_printed
from setexp.report.records import Record
from setexp.report.render import Grid, coarser, description, grid, introduction
from setexp.report.tables import Table

BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"

_HEAD = """# Results

Written by `python scripts/report.py page` from the records in `results/`; edit neither by hand.
Numbers of real, procedural and synthetic data, of the full and of a reduced protocol, of data and
of a lossy copy, never share a table. A run enters with `python scripts/report.py keep RUN_FOLDER`.
"""


def results_page(tables: Sequence[Table], records: Sequence[Record]) -> str:
    """The whole page, Markdown."""
    parts = [_HEAD, overview(tables, records), f"Reading: {LEGEND}\n"]
    for table in tables:
        parts.append(_section(table, load_printed(table.id), blocks(table, records, tables)))
    return "\n".join(parts)


def overview(tables: Sequence[Table], records: Sequence[Record], page: str = "") -> str:
    """The table of tables, Markdown.

    Args:
        page: path of the page of results, as seen from where the overview stands.
    """
    lines = []
    for table in tables:
        printed, found = load_printed(table.id), blocks(table, records, tables)
        full = next((block for block in found if block.full), None)
        others = Counter[str]()
        for block in found:
            if block is not full:
                others[_label(block)] += len(block.counted)
        lines.append(
            [
                f"[{table.id}]({page}#{table.name})",
                printed.title,
                full.tally if full else f"0 of {table.size}",
                _verdicts(table, printed, full),
                ", ".join(f"{count} {kind}" for kind, count in others.items()),
            ]
        )
    headers = ["table", "what", "runs done", "cells against print", "other runs"]
    return Grid(headers, lines, 1).markdown() + "\n"


def _label(block: Block) -> str:
    """What a block's runs are in a few words: "small procedural", "reduced real copy"."""
    changed = ["reduced"] if block.extra else []
    scale = [] if changed and block.scale == "paper" else [block.scale]
    return " ".join([*scale, *changed, block.source, *(["copy"] if block.copy else [])])


def insert(text: str, block: str) -> str:
    """Put the overview between its markers.

    Raises:
        ConfigError: one marker without the other.
    """
    if BEGIN not in text and END not in text:
        return text
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"the table of tables needs {BEGIN} and, after it, {END}")
    return f"{before}{BEGIN}\n{block}{END}{after}"


def _verdicts(table: Table, printed: PrintedTable, full: Block | None) -> str:
    """How many cells of the full protocol are within print, better, worse, diverged, not run."""
    if full is None:
        return "not run yet"
    if table.sweeps:
        return f"curves{coarser(table, printed)}, no number in print"
    count = Counter[str]()
    for (row, column), cell in table.cells.items():
        if cell.quoted:
            count["quoted"] += 1
            continue
        measured, meta = full.measured(cell), printed.columns[column]
        _, verdict = compare(printed.number(row, column), meta, measured.values)
        unjudged = "not in print" if measured.values else ours(measured, meta, None)
        count[verdict or unjudged] += 1
    order = ("same", "within", "better", "worse", "other", "diverged")
    names = [*order, *sorted(count.keys() - set(order))]
    return ", ".join(f"{count[name]} {name}" for name in names if count[name])


def _section(table: Table, printed: PrintedTable, found: Sequence[Block]) -> str:
    lines = [f'<a id="{table.name}"></a>', "", f"## {table.id}: {printed.title}", ""]
    lines += [" ".join(introduction(table, printed)), ""]
    if not found:
        lines += [f"Not run yet. Command: `{table.command}`", ""]
    for block in found:
        lines += [
            " ".join(description(block, printed)),
            "",
            grid(table, printed, block).markdown(),
            "",
        ]
    return "\n".join(lines)
