"""Weights that come from another run, named by the table cell it fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from setexp.errors import ConfigError, shortened
from setexp.overrides import axes
from setexp.report.records import axis_text, read_record, run_folder, shell_words
from setexp.report.tables import Run, load_table
from setexp.training import checkpoint
from setexp.training.settings import Use


def origin(node: Mapping[str, Any]) -> Run | None:
    """The run that has the weights, its seeds left open; None where weights are random.

    Raises:
        ConfigError: no such table or cell, one that no run fills, or overrides or a part that make
            no sense.
    """
    if node["use"] is Use.none:
        return None
    if not node["table"]:
        raise ConfigError(
            f"pretrained.use={node['use'].name}: name a cell with pretrained.table, row and column"
        )
    parts(node)
    table = load_table(node["table"])
    cell = table.cells.get((node["row"], node["column"]))
    if cell is None or not cell.experiments:
        rows, columns = (dict.fromkeys(c[i] for c in table.cells) for i in (0, 1))
        raise ConfigError(
            f"pretrained.row={node['row']}, pretrained.column={node['column']}: no such cell in "
            f"table {table.id}; it has rows {'; '.join(rows)} and columns {'; '.join(columns)}"
        )
    try:
        further = axes(node["overrides"])
    except ConfigError as error:
        raise ConfigError(f"pretrained.overrides: {error}") from None
    return Run("", cell.experiment, cell.axes | further, ())


def trained(
    node: Mapping[str, Any],
    seed: int,
    outputs: Path,
    scale: str,
    source: str,
    places: Sequence[str] = (),
) -> Path:
    """The folder of the finished run that has the weights.

    Args:
        places: what the command says about places (`overrides.places`), which holds for both runs.

    Raises:
        ConfigError: it has not finished; names the command that trains it.
    """
    run = origin(node)
    assert run is not None, "weights are random"
    folder = run_folder(run, seed, outputs, scale, source)
    result = folder / "result.json"
    status = read_record(result).status if result.exists() else "missing"
    if status != "done":
        settings = [*run.overrides, f"seeds=[{seed}]"]
        settings += [] if scale == "paper" else [f"scale={scale}"]
        settings += places
        raise ConfigError(
            f"pretrained.use={node['use'].name}: the run with the weights is {status} ({folder}); "
            f"python train.py {shell_words(settings)}"
        )
    return folder


def parts(node: Mapping[str, Any]) -> list[str]:
    """The submodules whose weights are taken over, of both models.

    Raises:
        ConfigError: they are no names.
    """
    part = node["part"]
    names = part if isinstance(part, list) else [part]
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"pretrained.part={axis_text(part)}: name a submodule of both models, as in encoder, "
            "or a list of several"
        )
    return names


def load(module: nn.Module, part: str, folder: Path) -> None:
    """Give a part of a model the weights that a run reports: its best, where it selects.

    Raises:
        ConfigError: the run is of another model.
    """
    saved = checkpoint.load(folder / "checkpoint.pt")
    state = (saved["best"] or saved)["model"]
    weights = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
    try:
        module.get_submodule(part).load_state_dict(weights)
    except (RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"pretrained.part={part}: {folder} has another model: {shortened(error)}"
        ) from None
