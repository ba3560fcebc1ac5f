"""How far a table's runs are: done, paused, diverged, running, failed, interrupted, broken or
missing."""

from __future__ import annotations

import time
from pathlib import Path

from setexp.errors import ConfigError, listed
from setexp.files import read_json
from setexp.report.records import kept_path, read_record, run_folder, slug
from setexp.report.tables import Run, Table


def progress(table: Table, outputs: Path, results: Path, scale: str) -> str:
    """One line per data source and run that was begun at one scale, and sums.

    A run that was killed without notice still says running; the time of its last write tells.
    """
    sources = sorted({s for run in table.runs for s in _sources(run, outputs, results, scale)})
    parts, full = [], False
    for source in sources:
        lines, untouched, done = [], [], 0
        width = max(len(run.name) for run in table.runs)
        for run in table.runs:
            states = {seed: state(run, seed, scale, source, outputs, results) for seed in run.seeds}
            done += sum(s == "done" for s in states.values())
            if set(states.values()) == {"missing"}:
                untouched.append(run.name)
            else:
                lines.append(f"  {run.name.ljust(width)}  {_grouped(states)}")
        if untouched:
            lines.append(f"  missing altogether: {listed(untouched)}")
        full = full or done == table.size
        head = f"{table.id}, scale {scale}, {source} data: {done} of {table.size} done"
        parts += [head, *lines]
    if not parts:
        parts = [f"{table.id}, scale {scale}: nothing yet"]
    if not full:
        parts.append(f"fill: {table.command}" + (f" scale={scale}" if scale != "paper" else ""))
    return "\n".join(parts) + "\n"


def state(run: Run, seed: int, scale: str, source: str, outputs: Path, results: Path) -> str:
    """What is known of one seed, its run folder before its kept record.

    A paused run that goes on keeps its record until it pauses again or ends; its status tells.
    """
    try:
        return _state(run, seed, scale, source, outputs, results)
    except ConfigError as error:  # of a file; the other runs can be told
        return f"broken ({error})"


def _state(run: Run, seed: int, scale: str, source: str, outputs: Path, results: Path) -> str:
    folder = run_folder(run, seed, outputs, scale, source)
    kept = kept_path(run, seed, results, scale, source)
    record = next((read_record(p).status for p in (folder / "result.json", kept) if p.exists()), "")
    status = read_json(folder / "status.json")
    goes_on = record == "paused" and status is not None and status["status"] != record
    if record and not goes_on:
        return record
    if status is None:
        return "missing"
    text = str(status["status"])
    if "steps" in status:
        text += f" at step {status.get('step')} of {status['steps']}"
    if status.get("why"):
        text += f" ({str(status['why']).splitlines()[0][:200]})"
    if status["status"] == "running":
        written = max(path.stat().st_mtime for path in folder.iterdir())
        text += f", last written {max(0, time.time() - written) / 60:.0f} min ago"
    return text


def _sources(run: Run, outputs: Path, results: Path, scale: str) -> list[str]:
    found = [p.name for p in (outputs / run.experiment / slug(run.axes)).glob(f"{scale}-*")]
    kept = (results / run.experiment / slug(run.axes)).glob(f"{scale}-*-seed*.json")
    found += [path.stem.rpartition("-")[0] for path in kept]
    return [name.removeprefix(f"{scale}-") for name in found]


def _grouped(states: dict[int, str]) -> str:
    by_state: dict[str, list[int]] = {}
    for seed, text in states.items():
        by_state.setdefault(text, []).append(seed)
    return "; ".join(f"{text}: {','.join(map(str, s))}" for text, s in by_state.items())
