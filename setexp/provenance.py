"""Where a number comes from: command, commit, machine, versions."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "hydra-core", "omegaconf", "torch-geometric")


def provenance(command: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """What a result record says about its origin; `seconds` is training and evaluation together."""
    return {
        "command": command,
        **origin(device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), **_versions()},
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def origin(device: torch.device) -> dict[str, Any]:
    """What computes: commit of the code, whether files differ from it, and the device."""
    return {**code(), "device": device_name(device)}


@functools.cache
def code() -> dict[str, Any]:
    """Commit of the code, and whether files differ from it, when this process first asked.

    Ask at the start: hours later other files may be there than those that run.
    """
    # where the code was copied without its history, the copier may say which commit it was
    commit = _git("rev-parse", "HEAD") or os.environ.get("SETEXP_COMMIT")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    new = _git("ls-files", "--others", "--exclude-standard", "--", ".", "../configs", "../train.py")
    dirty = bool(changed or new)
    return {"commit": commit, "dirty": dirty}


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a machine without an optional part
            continue
    return found


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
