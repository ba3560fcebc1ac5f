"""A run's state on disk: one file per seed, whole or absent, loaded without unpickling code."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import torch

from setexp.errors import ConfigError
from setexp.files import write_bytes

log = logging.getLogger(__name__)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of plain containers and tensors atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def check_vocabulary(path: Path, state: dict[str, Any], dataset: Any) -> None:
    """Refuse weights that number words and answers otherwise than the data does.

    Raises:
        ConfigError: they do.
    """
    theirs, ours = state.get("vocabulary"), getattr(dataset, "vocabulary", None)
    if theirs != ours:
        raise ConfigError(
            f"checkpoint={path}: another vocabulary: its words and answers are numbered as in "
            f"{theirs}, those of the data as in {ours}; use the data and classes it was trained on"
        )


def step_of(path: Path) -> int:
    """Where the run of a checkpoint goes on; -1 where there is none, or a damaged one, which is put
    aside: the same numbers come out of a second start.

    A run at step 0 has weights to go on with, one at -1 has none.
    """
    if not path.exists():
        return -1
    try:
        return int(load(path)["step"])
    except ConfigError as error:
        log.warning("%s; its run starts over", error)
        path.rename(path.with_suffix(".damaged"))
        return -1


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ConfigError: the file is missing or not a checkpoint.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"checkpoint={path}: no such file") from None
    except Exception as error:  # unpickling what is no checkpoint may raise anything
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ConfigError(f"checkpoint={path}: damaged, or not a checkpoint: {reason}") from None
    if not isinstance(state, dict) or not {"model", "seed", "step"} <= state.keys():
        raise ConfigError(f"checkpoint={path}: not a checkpoint of this project")
    return state
