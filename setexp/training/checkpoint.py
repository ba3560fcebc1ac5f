"""A run's state on disk: one file per seed, whole or absent, loaded without unpickling code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from setexp.errors import ConfigError
from setexp.files import write_bytes


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of plain containers and tensors atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ConfigError: the file is missing or not a checkpoint.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"checkpoint={path}: no such file") from None
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"checkpoint={path}: not a checkpoint of this project: {reason}"
        ) from None


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The global random states that a step may draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `rng_state` returned."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
