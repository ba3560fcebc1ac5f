"""Which records may stand in which printed table, and together.

A block holds the records of one scale, one data source and one set of extra axes, those a run has
beyond its cell's. Real, procedural and synthetic data, or a full and a reduced protocol, therefore
never share a block; nor do real data and a copy of them that lost something, or seeds of one run
that had different data.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from setexp.report.records import Record, axis_text, slug
from setexp.report.tables import Cell, Run, Table

_ORDER = {name: i for i, name in enumerate(("paper", "small", "smoke"))}
_SOURCES = {name: i for i, name in enumerate(("real", "synthetic", "procedural"))}


@dataclass(frozen=True)
class Measured:
    """What the seeds of one cell's run gave.

    Args:
        values: the metric of the seeds that have it, raw units, in the order of the seeds.
        diverged: seeds that diverged.
        lacking: seeds that are done, but without this metric. A paused one is not counted.
        wanted: seeds of the table.
        lack: what that means.
    """

    values: tuple[float, ...]
    diverged: int
    lacking: int
    wanted: int
    lack: str = "no such metric"


@dataclass(frozen=True)
class Block:
    """One table's records of one scale, data source and set of extra axes, by run and seed.

    Args:
        copy: see `Record.copy`, the same of all records.
    """

    table: Table
    scale: str
    source: str
    copy: str
    extra: dict[str, Any]
    runs: dict[str, dict[int, Record]]

    @property
    def kind(self) -> tuple[str, ...]:
        """What all its records share."""
        return self.scale, self.source, self.copy, slug(self.extra)

    @property
    def full(self) -> bool:
        """Whether the printed protocol was followed, on the data that it names."""
        own = self.source != "procedural" and not self.copy
        return self.scale == "paper" and own and not self.extra

    @property
    def records(self) -> list[Record]:
        """All records of the block, other seeds than the table's among them."""
        return [r for by_seed in self.runs.values() for _, r in sorted(by_seed.items())]

    @property
    def counted(self) -> list[Record]:
        """Records of the table's seeds."""
        return [r for r in self.records if r.seed in self.table.seeds]

    @property
    def command(self) -> str:
        """What fills the block, given data of its source."""
        scale = [] if self.scale == "paper" else [f"scale={self.scale}"]
        extra = [shlex.quote(f"{key}={axis_text(value)}") for key, value in self.extra.items()]
        return " ".join([self.table.command, *scale, *extra])

    @property
    def tally(self) -> str:
        """Runs done of those the table has, each seed a run, and how many paused or diverged."""
        count = Counter(record.status for record in self.counted)
        others = [f"{count[s]} {s}" for s in ("paused", "diverged") if count[s]]
        return ", ".join([f"{count['done']} of {self.table.size}", *others])

    def of(self, experiment: str, axes: Mapping[str, Any]) -> dict[int, Record]:
        """Records of one of the table's runs, by seed."""
        return self.runs.get(_run_of(self.table, experiment, axes).name, {})

    def measured(self, cell: Cell) -> Measured:
        """What fills a cell; of a gain, seeds count that both of its runs have."""
        runs = [self.of(experiment, cell.axes) for experiment in cell.experiments]
        seeds = self.table.seeds if runs else ()  # nothing fills a quoted one
        both = [[r[s] for r in runs] for s in seeds if all(s in r for r in runs)]
        has = [all(cell.metric in r.metrics for r in rs) for rs in both]
        values = tuple(
            first.metrics[cell.metric] - sum(r.metrics[cell.metric] for r in rest)
            for (first, *rest), it in zip(both, has, strict=True)
            if it
        )
        # a paused run is on its way to its other metrics
        ended = [
            [r.status for r in rs]
            for rs, it in zip(both, has, strict=True)
            if not it and all(r.status != "paused" for r in rs)
        ]
        diverged = sum("diverged" in statuses for statuses in ended)
        found = Measured(values, diverged, len(ended) - diverged, len(self.table.seeds))
        # of `trainer.milestones`, a record has those that the run came to
        milestone = cell.metric.startswith("epochs_to_")
        return replace(found, lack="not reached") if milestone else found


def blocks(table: Table, records: Sequence[Record], tables: Sequence[Table]) -> list[Block]:
    """A table's blocks, the full protocol first.

    Args:
        tables: all tables. A record belongs to the runs that share most axes with it: one with
            `loss.steps=all` fills the table that asks for it, and no block of one that does not.
    """
    read = {run.experiment for run in table.runs}
    known = [run for t in [table, *tables] for run in t.runs if run.experiment in read]
    found: list[Block] = []
    for record in sorted((r for r in records if r.experiment in read), key=lambda r: r.data):
        holding = [run for run in known if _holds(run, record)]
        for run in table.runs:
            closer = (k for k in holding if k.axes != run.axes and _part_of(run.axes, k.axes))
            if not _holds(run, record) or any(closer):
                continue
            extra = {k: v for k, v in record.axes.items() if k not in run.axes}
            new = Block(table, record.scale, record.source, record.copy, extra, {})
            alike = (b for b in found if b.kind == new.kind and _takes(b, run, record))
            block = next(alike, new)
            if block is new:
                found.append(new)
            block.runs.setdefault(run.name, {})[record.seed] = record
    return sorted(found, key=_order)


def _takes(block: Block, run: Run, record: Record) -> bool:
    """Whether a block has no seed of a run with other data; of old records they are not known."""
    before = {r.data for r in block.runs.get(run.name, {}).values()}
    return before <= {record.data, ""}


def _holds(run: Run, record: Record) -> bool:
    return run.experiment == record.experiment and _part_of(run.axes, record.axes)


def _part_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(key in b and b[key] == value for key, value in a.items())


def _run_of(table: Table, experiment: str, axes: Mapping[str, Any]) -> Run:
    return next(r for r in table.runs if (r.experiment, r.axes) == (experiment, axes))


def _order(block: Block) -> tuple[Any, ...]:
    scale = _ORDER.get(block.scale, len(_ORDER))
    source = _SOURCES.get(block.source, len(_SOURCES))
    return not block.full, len(block.extra), scale, source, slug(block.extra), block.copy
