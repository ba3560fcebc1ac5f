"""Random states: a seed of its own for every purpose, and draws that leave training's untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def derive(seed: int, *purpose: object) -> int:
    """A seed of its own for every purpose, so that no draw depends on what was drawn before."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def for_run(dataset: Any, seed: int) -> Any:
    """The dataset as a run of this seed sees it; most are the same for all runs."""
    return dataset.for_run(derive(seed, "data")) if hasattr(dataset, "for_run") else dataset


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


@contextmanager
def own_draws(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random states, and put them back afterwards."""
    before = rng_state(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(before, device)
