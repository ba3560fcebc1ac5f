"""Result records: one JSON file per finished seed, in its run folder and, kept, in `results`.

A run folder is `outputs/<experiment>/<axes>/<scale>-<source>/seed-<k>`; its `result.json` is kept
as `results/<experiment>/<axes>/<scale>-<source>-seed<k>.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from setexp.errors import ConfigError
from setexp.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"

_FIELDS: dict[str, type | UnionType] = {
    "experiment": str,
    "axes": dict,
    "scale": str,
    "source": str,
    "seed": int,
    "status": str,
    "metrics": dict | None,
    "provenance": dict,
}


@dataclass(frozen=True)
class Record:
    """What one seed of one run measured.

    Args:
        axes: overrides beyond the experiment, {dotted key: value}.
        source: "real", "procedural" or "synthetic" data.
        status: "done"; "paused" with the metrics reported so far; "diverged" without metrics.
        metrics: raw units; names may end in "@inner steps". Of a run that is done, "seconds" is the
            time it took, evaluations included; of a run in a stack, what the whole stack took.
        path: where the record was read.
        content: the whole file.
    """

    experiment: str
    axes: dict[str, Any]
    scale: str
    source: str
    seed: int
    status: str
    metrics: dict[str, float]
    provenance: dict[str, Any]
    path: Path
    content: dict[str, Any] = field(repr=False)

    @property
    def run(self) -> tuple[str, str, str, str, int]:
        """What identifies the run; two records with the same are the same run, repeated."""
        axes = json.dumps(self.axes, sort_keys=True)
        return self.experiment, axes, self.scale, self.source, self.seed

    @property
    def data(self) -> str:
        """What the dataset said of its data; "" in records from before it was noted."""
        return str(self.content.get("data") or "").strip()

    @property
    def copy(self) -> str:
        """Which copy of real data, where it isn't the original: "JPEG copy 905cfc92"."""
        found = re.search(r"\S+ copy \w+$", self.data)
        return found[0] if found else ""

    @property
    def commit(self) -> str:
        """The code's commit, shortened; "+" says that files differed from it."""
        commit = self.provenance.get("commit")
        return f"{commit[:8]}{'+' if self.provenance.get('dirty') else ''}" if commit else "unknown"


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        ConfigError: the file is missing, is not JSON, or a field is missing or of another type.
    """
    content = read_json(path)
    if content is None:
        raise ConfigError(f"{path}: no such record")
    fields = content if isinstance(content, dict) else {}
    for name, kind in _FIELDS.items():
        if not isinstance(fields.get(name, ...), kind):
            fault = "of another type" if name in fields else "missing"
            raise ConfigError(f"{path}: not a result record, {name!r} is {fault}; remove it")
    if content["status"] not in ("done", "paused", "diverged"):
        raise ConfigError(
            f"{path}: status {content['status']!r}; a record is done, paused or diverged"
        )
    took = content["provenance"].get("seconds") if content["status"] == "done" else None
    values = {f: content[f] for f in _FIELDS} | {
        "axes": dict(sorted(content["axes"].items())),
        "metrics": (content["metrics"] or {}) | ({} if took is None else {"seconds": took}),
    }
    return Record(**values, path=path, content=content)


def read_records(
    results: Path = RESULTS,
    outputs: Path | None = None,
    *,
    warn: Callable[[str], object] | None = None,
) -> list[Record]:
    """All kept records, and those of run folders; of a run that has both, the later finished.

    Args:
        warn: told what is wrong with a broken record, which is left out; None to refuse it.

    Raises:
        ConfigError: a record is broken, and nobody is warned.
    """
    paths = sorted(results.glob("*/*/*.json"))
    if outputs is not None:
        paths += sorted(outputs.glob("*/*/*/seed-*/result.json"))
    found: dict[tuple[Any, ...], Record] = {}
    for path in paths:
        try:
            record = read_record(path)
        except ConfigError as error:
            if warn is None:
                raise
            warn(str(error))
            continue
        before = found.get(record.run)
        if before is None or _finished(before) < _finished(record):
            found[record.run] = record
    return list(found.values())


def _finished(record: Record) -> str:
    return str(record.provenance.get("finished", ""))


def keep(
    folders: Iterable[Path], results: Path = RESULTS, *, replace: bool = False
) -> list[tuple[Record, Path]]:
    """Copy the records of run folders, or of folders of them, to where they are committed.

    Every record is read and checked before the first is written.

    Args:
        replace: overwrite a kept record of the same run that says something else.

    Raises:
        ConfigError: a run folder without a result, no run folder at all, or another record of the
            same run, be it kept before or in another of the folders.
    """
    copies: dict[Path, Record] = {}
    for folder in folders:
        for run in _run_folders(folder):
            record = read_record(run / "result.json")
            path = kept_path(record, record.seed, results, record.scale, record.source)
            before = read_record(path) if path.exists() and not replace else record
            if before.content != record.content:
                raise ConfigError(
                    f"{path} holds another result of {run} (finished "
                    f"{before.provenance.get('finished')}); --replace overwrites it"
                )
            other = copies.setdefault(path, record)
            if other.content != record.content:
                raise ConfigError(
                    f"{other.path.parent} and {run} hold different results of one run; keep one "
                    "of them"
                )
    for path, record in copies.items():
        write_json(path, record.content)
    return [(record, path) for path, record in copies.items()]


def _run_folders(folder: Path) -> list[Path]:
    runs = [p for p in [folder, *sorted(folder.rglob("seed-*"))] if (p / "status.json").exists()]
    runs += [p.parent for p in sorted(folder.rglob("result.json")) if p.parent not in runs]
    if not runs:
        raise ConfigError(f"{folder}: no run here; name a folder outputs/.../seed-K, or one above")
    for run in runs:
        if not (run / "result.json").exists():
            state = read_json(run / "status.json").get("status", "unknown")
            raise ConfigError(f"{run}: not finished (status {state}); only results are kept")
    return runs


def run_folder(run: Any, seed: int, outputs: Path, scale: str, source: str) -> Path:
    """Where a run (`setexp.report.tables.Run`, or alike) of one seed writes."""
    return outputs / run.experiment / slug(run.axes) / f"{scale}-{source}" / f"seed-{seed}"


def kept_path(run: Any, seed: int, results: Path, scale: str, source: str) -> Path:
    """Where the record of a run of one seed is kept."""
    return results / run.experiment / slug(run.axes) / f"{scale}-{source}-seed{seed}.json"


def slug(axes: Mapping[str, Any]) -> str:
    """A folder name for axes: readable, and unique however long they are."""
    if not axes:
        return "default"
    text = ",".join(f"{key}={axis_text(value)}" for key, value in sorted(axes.items()))
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", text)
    if safe == text and len(safe) <= 100:
        return safe
    return f"{safe[:80]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def shell_words(arguments: Iterable[str]) -> str:
    """Arguments as one line for a shell, quoted only where it would read something else."""
    plain = re.compile(r"[\w@%+=:,./\[\]~-]+")
    return " ".join(a if plain.fullmatch(a) else shlex.quote(a) for a in arguments)


def axis_text(value: Any) -> str:
    """A value as an override writes it; text is quoted where it would become something else."""
    if not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    if re.fullmatch(r"[\w./+-]+", value) and yaml.safe_load(value) == value:
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
