"""A printed table beside what was measured, as text or Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from setexp.report.blocks import Block
from setexp.report.compare import LEGEND, compare, ours, seeds
from setexp.report.curves import measured
from setexp.report.papers import PrintedTable
from setexp.report.records import Record, axis_text
from setexp.report.tables import Table

WIDTH = 160


@dataclass(frozen=True)
class Grid:
    """Cells under headers; the leading `labels` columns are repeated where lines are split."""

    headers: list[str]
    lines: list[list[str]]
    labels: int

    def text(self, width: int = WIDTH) -> str:
        """Aligned columns; those that do not fit the width follow below, labels repeated."""
        rows = [self.headers, *self.lines]
        sizes = [max(len(row[i]) for row in rows) for i in range(len(self.headers))]
        used = sum(size + 2 for size in sizes[: self.labels])
        groups: list[list[int]] = [[]]
        total = used
        for i in range(self.labels, len(sizes)):
            if groups[-1] and total + sizes[i] > width:
                groups.append([])
                total = used
            groups[-1].append(i)
            total += sizes[i] + 2
        parts = []
        for group in groups:
            picked = [*range(self.labels), *group]
            padded = ("  ".join(row[i].ljust(sizes[i]) for i in picked) for row in rows)
            parts.append("\n".join(line.rstrip() for line in padded))
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """A Markdown table."""
        lines = [self.headers, ["---"] * len(self.headers), *self.lines]
        escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
        return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def grid(table: Table, printed: PrintedTable, block: Block | None) -> Grid:
    """All printed cells; under each, what the block has for it (None: nothing is measured).

    Rows of which nothing is run have one line. Sweeps, of which no number is printed, have a column
    for each row instead, and a line for each value.
    """
    if table.sweeps:
        return _sweep_grid(table, printed, block)
    lines = []
    for row in printed.rows:
        entries = [_entry(table, printed, block, row, column) for column in printed.columns]
        for i, kind in enumerate(("paper", "ours", "compared", "seeds")):
            line = [entry[i] for entry in entries]
            if any(line) and set(line) != {"not run"}:
                lines.append(["" if i else row, kind, *line])
    return Grid(["", "", *printed.columns], lines, 2)


def _sweep_grid(table: Table, printed: PrintedTable, block: Block | None) -> Grid:
    curves = {
        f"{sweep.title}: {row}": {
            value: ours(measure, printed.columns[sweep.label], None)
            for value, measure in (measured(block, row, sweep) if block else {}).items()
        }
        for sweep in table.sweeps
        for row in printed.rows
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    values = sorted({value for curve in curves.values() for value in curve})
    lines = [[f"{v:g}", *(curve.get(v, "") for curve in curves.values())] for v in values]
    return Grid(["", *curves], lines, 1)


def _entry(
    table: Table, printed: PrintedTable, block: Block | None, row: str, name: str
) -> tuple[str, str, str, str]:
    """One cell: paper, ours, compared, seeds. Only the full protocol gets a verdict."""
    number, column = printed.number(row, name), printed.columns[name]
    cell = table.cells.get((row, name))
    paper = "-" if number is None else str(number)
    if cell is None or cell.quoted:
        return paper, "quoted" if cell else "no experiment", "", ""
    if block is None:
        return paper, "not run", "", ""
    measured = block.measured(cell)
    distance, verdict = compare(number, column, measured.values)
    compared = " ".join(filter(None, [distance, verdict if block.full else ""]))
    return paper, ours(measured, column, number), compared, seeds(measured)


def introduction(table: Table, printed: PrintedTable) -> list[str]:
    """What a table is, in sentences."""
    columns = {(c.unit, c.direction) for c in printed.columns.values()}
    better = {"lower": "lower is better", "higher": "higher is better"}
    units = "; ".join(
        f"unit: {unit}" + (f", {better[direction]}" if direction in better else "")
        for unit, direction in sorted(columns)
    )
    metric = printed.metric[0].upper() + printed.metric[1:]
    paper = "not stated" if printed.runs is None else str(printed.runs)
    lines = [f"{metric} ({units}). Runs in print: {paper}; seeds here: {len(table.seeds)}."]
    return [*lines, printed.note] if printed.note else lines


def coarser(table: Table, printed: PrintedTable) -> str:
    """Where curves have fewer points than in print, how many: " at 21 of print's 101 points"."""
    points = max((len(sweep.values) for sweep in table.sweeps), default=0)
    fewer = printed.points is not None and 0 < points < printed.points
    return f" at {points} of print's {printed.points} points" if fewer else ""


def description(block: Block, printed: PrintedTable) -> list[str]:
    """What a block's numbers are and where they come from, in sentences."""
    data = {
        "procedural": "procedural data, a stand-in for the paper's",
        "synthetic": "synthetic data, drawn by the paper's definition",
    }.get(block.source, f"{block.source} data" + (f", {block.copy}" if block.copy else ""))
    extra = ", ".join(f"{key}={axis_text(value)}" for key, value in block.extra.items())
    kind = "full protocol" if block.full else "not the printed protocol"
    kind += coarser(block.table, printed)
    head = f"Scale {block.scale}, {data}" + (f", with {extra}" if extra else "") + f": {kind}."
    others = sorted({r.seed for r in block.records} - set(block.table.seeds))
    left_out = f" Seeds {others} are not the table's and not counted." if others else ""
    count = f"Runs done: {block.tally}.{left_out}{_data(block)}"
    return [head, count, origin(block.records), f"Command: `{block.command}`"]


def _data(block: Block) -> str:
    """What the runs noted of their data; nothing where it is drawn by definition."""
    noted = sorted({r.data for r in block.records if r.data})
    if block.source == "synthetic" or not noted:
        return ""
    others = sum(not r.data for r in block.records)
    return f" Data: {'; '.join(noted)}" + (f"; not noted by {others} runs." if others else ".")


def origin(records: Sequence[Record]) -> str:
    """Commits and machines of some records; "+" marks a commit with changed files."""
    commits = sorted({r.commit for r in records})
    machines = sorted(
        {f"{r.provenance.get('device')} ({r.provenance.get('machine')})" for r in records}
    )
    return f"Commit {', '.join(commits)}. Machine: {'; '.join(machines)}."


def table_text(table: Table, printed: PrintedTable, found: Sequence[Block]) -> str:
    """A table with all its blocks, for a terminal."""
    parts = [_wrapped([f"{table.id}: {printed.title}", *introduction(table, printed)])]
    if not found:
        parts.append(f"Not run yet. Command: `{table.command}`")
        parts.append(grid(table, printed, None).text())
    for block in found:
        about = _wrapped(description(block, printed))
        parts.append(f"{about}\n\n{grid(table, printed, block).text()}")
    if found:
        parts.append(_wrapped([LEGEND]))
    return "\n\n".join(parts) + "\n"


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(part for line in lines for part in wrap(line, WIDTH))


def beside(records: Sequence[Record]) -> str:
    """Several records' metrics side by side, in raw units, under what the runs are.

    A one-shot decoder's metric stands beside another's at every number of inner steps.
    """
    about: dict[str, Callable[[Record], str]] = {
        "axes": lambda r: ", ".join(f"{k}={axis_text(v)}" for k, v in r.axes.items()) or "-",
        "scale": lambda r: r.scale,
        "data": lambda r: f"{r.source}, {r.copy}" if r.copy else r.source,
        "seed": lambda r: str(r.seed),
        "status": lambda r: r.status,
        "epochs": lambda r: str(r.content.get("epochs", "-")),
        "steps": lambda r: str(r.content.get("steps", "-")),
        "parameters": lambda r: str(r.content.get("parameters", "-")),
        "seconds": lambda r: str(r.provenance.get("seconds", "-")),
        "device": lambda r: str(r.provenance.get("device", "-")),
        "commit": lambda r: r.commit,
    }
    lines = [[name, *map(show, records)] for name, show in about.items()]
    names = dict.fromkeys(name for r in records for name in r.metrics if name not in about)
    stepped = {name.partition("@")[0] for name in names if "@" in name}
    for name in (n for n in names if n not in stepped):
        values = [r.metrics.get(name, r.metrics.get(name.partition("@")[0])) for r in records]
        lines.append([name, *("-" if v is None else f"{v:.6g}" for v in values)])
    return Grid(["", *(r.experiment for r in records)], lines, 1).text() + "\n"
