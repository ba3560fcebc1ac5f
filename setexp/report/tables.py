"""Table configs: which runs fill which printed cells.

A config of `configs/table` names rows and columns as printed. Each may hold any of

- `experiment`: the experiment that is trained;
- `set`: overrides beyond the experiment, {dotted key: value};
- `metric`: the name in a result record; the table's `metric` is the default;
- `suffix`: the definition by which a row was printed, where records hold several: "AP1_first";
- `at`: inner steps at evaluation, a suffix of the metric: AP1 at 20 is "AP1@20";
- `minus`: another experiment, whose value with the same `set` and seed is subtracted (a gain);
- `quoted: true`: the document quotes others; shown, never run.

A cell has its row's and its column's fields. Many cells may read one run. A column may stand for
many, see `setexp.report.sweeps`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from setexp.errors import ConfigError
from setexp.report.papers import PAPERS, read_paper
from setexp.report.records import axis_text, shell_words, slug
from setexp.report.sweeps import Sweep, unroll

TABLES = Path(__file__).resolve().parents[2] / "configs" / "table"

_NEEDED = {"id", "seeds", "rows", "columns"}
_TABLE_FIELDS = _NEEDED | {"metric", "points"}
_CELL_FIELDS = {"experiment", "set", "metric", "suffix", "at", "minus", "quoted"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the run that fills it and the metric that is read; quoted: neither.

    Of a gain, `minus` is the other run's experiment.
    """

    row: str
    column: str
    experiment: str
    axes: dict[str, Any]
    metric: str
    quoted: bool = False
    minus: str | None = None

    @property
    def experiments(self) -> tuple[str, ...]:
        """Experiments that fill the cell: none, one, or the two of a gain."""
        if self.quoted:
            return ()
        return (self.experiment,) if self.minus is None else (self.experiment, self.minus)


@dataclass(frozen=True)
class Run:
    """One experiment to train under some overrides, once per seed; `name` is for commands."""

    name: str
    experiment: str
    axes: dict[str, Any]
    seeds: tuple[int, ...]

    @property
    def overrides(self) -> list[str]:
        """What a command line says: "experiment=polygons_fspool", "dataset.set_size=8"."""
        settings = [f"{key}={axis_text(value)}" for key, value in self.axes.items()]
        return [f"experiment={self.experiment}", *settings]


@dataclass(frozen=True)
class Table:
    """A printed table's cells and the runs that fill them.

    Args:
        chosen: of its config's, what a command must say: "table.points=101", "columns=n=8".
    """

    id: str
    seeds: tuple[int, ...]
    cells: dict[tuple[str, str], Cell]
    runs: tuple[Run, ...]
    sweeps: tuple[Sweep, ...] = ()
    chosen: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The config's name: "thesis_5_3" for "thesis/5.3"."""
        return config_name(self.id)

    @property
    def size(self) -> int:
        """Runs to do, each seed one."""
        return len(self.runs) * len(self.seeds)

    @property
    def jobs(self) -> dict[str, list[Run]]:
        """Runs by the name of the job that trains them: their own, or that of their sweep."""
        swept = {column: _slug(sweep.title) for sweep in self.sweeps for column in sweep.values}
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            of_run = (c for c in self.cells.values() if run.experiment in c.experiments)
            column = next(c.column for c in of_run if c.axes == run.axes)
            found.setdefault(swept.get(column, run.name), []).append(run)
        return found

    @property
    def command(self) -> str:
        """What fills the table."""
        return f"python train.py -m {shell_words([f'table={self.name}', *self.chosen])}"


def config_name(table_id: str) -> str:
    """A config's file stem for a table's id, or for what is one already."""
    return re.sub(r"[/.]", "_", table_id)


def load_table(table_id: str, folder: Path = TABLES, points: int | None = None) -> Table:
    """A table by its id or its config's name.

    Args:
        points: of its sweeps; None for the config's.

    Raises:
        ConfigError: no such config, or one that `parse_table` refuses.
    """
    path = folder / f"{config_name(table_id)}.yaml"
    if not path.is_file() or path.stem == "none":
        if same := printed_again(table_id):
            raise ConfigError(f"table {table_id}: printed again as {same}; ask for that")
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "none"))
        raise ConfigError(f"table {table_id}: no config {path.name}; there are {known}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it is built
    spec = yaml.load(path.read_text(), Loader=loader)
    if points is None:
        return parse_table(spec)
    return replace(parse_table(spec | {"points": points}), chosen=(f"table.points={points}",))


def printed_again(table_id: str) -> str | None:
    """The table that holds the numbers of one of another document, "thesis/4.3" of "perm_optim/2".

    Args:
        table_id: or its config's name.
    """
    for path in sorted(PAPERS.glob("*.yaml")):
        for name, entry in read_paper(path)["tables"].items():
            if config_name(name) == config_name(table_id) and "same_as" in entry:
                return str(entry["same_as"])
    return None


def load_tables(folder: Path = TABLES) -> list[Table]:
    """All tables, in the order of their documents' numbering."""
    names = sorted(p.stem for p in folder.glob("*.yaml") if p.stem != "none")
    return [load_table(name, folder) for name in sorted(names, key=_numbering)]


def parse_table(spec: Mapping[str, Any]) -> Table:
    """A table from its config as plain Python.

    Raises:
        ConfigError: an unknown or missing field, or one that row and column both set.
    """
    label = f"table {spec.get('id', '(without id)')}"
    _only(spec, _TABLE_FIELDS, label)
    missing = _NEEDED - spec.keys()
    if missing:
        raise ConfigError(f"{label}: {min(missing)} is missing; give {', '.join(sorted(missing))}")
    seeds = tuple(spec["seeds"])
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{label}: seeds={list(seeds)}; name at least one, and each once")
    columns, sweeps = unroll(label, spec["columns"], spec.get("points"))
    spec = {**spec, "columns": columns}
    for part in ("rows", "columns"):
        for name, fields in spec[part].items():
            _only(fields or {}, _CELL_FIELDS, f"{label}, {part}.{name}")
    cells = {
        (row, column): _cell(label, spec, row, column)
        for row in spec["rows"]
        for column in spec["columns"]
    }
    return Table(spec["id"], seeds, cells, _runs(spec, cells, seeds), sweeps)


def _only(fields: Mapping[str, Any], known: set[str], label: str) -> None:
    for key in fields:
        if key not in known:
            raise ConfigError(f"{label}: unknown field {key!r}; use {', '.join(sorted(known))}")


def _cell(label: str, spec: Mapping[str, Any], row: str, column: str) -> Cell:
    label = f"{label}, cell ({row}, {column})"
    of_row, of_column = spec["rows"][row] or {}, spec["columns"][column] or {}
    axes = _merged(label, of_row.get("set", {}), of_column.get("set", {}))
    rest = _merged(
        label,
        {k: v for k, v in of_row.items() if k != "set"},
        {k: v for k, v in of_column.items() if k != "set"},
    )
    if rest.get("quoted"):
        return Cell(row, column, "", {}, "", quoted=True)
    rest = {"metric": spec.get("metric"), "experiment": None} | rest
    for key in ("experiment", "metric"):
        if rest[key] is None:
            raise ConfigError(f"{label}: no {key}; its row or column must set it")
    at = f"@{rest['at']}" if "at" in rest else ""
    metric, minus = rest["metric"] + rest.get("suffix", "") + at, rest.get("minus")
    return Cell(row, column, rest["experiment"], axes, metric, minus=minus)


def _merged(label: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    twice = sorted(a.keys() & b.keys())
    if twice:
        raise ConfigError(f"{label}: row and column both set {twice[0]}; leave it to one of them")
    return dict(sorted({**a, **b}.items()))


def _runs(
    spec: Mapping[str, Any], cells: Mapping[tuple[str, str], Cell], seeds: tuple[int, ...]
) -> tuple[Run, ...]:
    """Each distinct (experiment, axes) once, named after the first cell that reads it."""
    runs: dict[tuple[str, str], Run] = {}
    named: Counter[str] = Counter()
    for (row, column), cell in cells.items():
        for experiment in cell.experiments:
            identity = experiment, slug(cell.axes)  # as run folders have it
            if identity in runs:
                continue
            # Rows that differ only in how one run is read say so in brackets: "Ours (10 iters)".
            name = _slug(re.sub(r"\(.*?\)", "", row)) or _slug(row)
            if {"experiment", "set"} & (spec["columns"][column] or {}).keys():
                name += f"-{_slug(column)}"
            if experiment == cell.minus:
                name += "-minus"
            named[name] += 1
            name = f"{name}.{named[name]}" if named[name] > 1 else name
            runs[identity] = Run(name, experiment, cell.axes, seeds)
    return tuple(runs.values())


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", label.lower()).strip("_")


def _numbering(name: str) -> list[tuple[bool, int, str]]:
    """Chapters before appendices, 5_10 after 5_9."""
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in name.split("_")]
