"""Runs for the tests: experiments at smoke scale, in this process or as commands."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, flag_override
from torch import Tensor

from setexp.build import build
from setexp.command_line import quote_paths, refuse_bad_overrides
from setexp.config import (
    CONFIGS,
    compose_run,
    plain,
    register,
)
from setexp.errors import ConfigError, NonFiniteError
from setexp.pretrained import origin
from setexp.run import execute, run
from setexp.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs/experiment").glob("*.yaml"))

register()


def composed(*overrides: str) -> DictConfig:
    """A composed config. Each is composed once a session: this takes longer than most smoke runs,
    whose commands differ in where they write."""
    place, rest = "paths.outputs=", quote_paths(list(overrides))
    config = copy.deepcopy(_composed(tuple(o for o in rest if not o.startswith(place))))
    for override in overrides:
        if override.startswith(place):
            config.paths.outputs = override.removeprefix(place)
    return config


@functools.cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_run(list(overrides))


def config(*overrides: str) -> dict[str, Any]:
    """A composed config as plain Python."""
    return plain(composed(*overrides))


def smoke(*overrides: str) -> tuple[str, ...]:
    """Overrides of a smoke run."""
    return ("scale=smoke", "figures=none", *overrides)


def train(outputs: Path, *overrides: str) -> Path:
    """Run a command's overrides in this process; the folder that holds its seeds' folders."""
    train_first(outputs, *overrides)
    perform(f"paths.outputs={outputs}", *smoke(*overrides))
    return only(outputs, composed(*smoke(*overrides)).name)


def train_first(outputs: Path, *overrides: str) -> None:
    """Train the run that has the first weights of another, if there is one."""
    first = origin(plain(composed(*smoke(*overrides)).pretrained))
    if first is not None:
        shared = [o for o in overrides if not o.startswith("experiment=")]
        perform(f"paths.outputs={outputs}", *smoke(*first.overrides, *shared))


def perform(*overrides: str) -> None:
    """Run a command's overrides in this process."""
    execute(composed(*overrides), quote_paths(list(overrides)))


def load_script(name: str) -> Any:
    """A script of the project as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> int:
    """Run a script of the project in this process; its exit code."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    return load_script(name).main()


def only(outputs: Path, experiment: str = "*") -> Path:
    """The one run folder, "<experiment>/<axes>/<scale>-<source>", below `outputs`."""
    (folder,) = {path.parent for path in outputs.glob(f"{experiment}/*/*/seed-*")}
    return folder


def complaint(*overrides: str) -> str:
    """What a command that cannot work prints, without the leading "error: "."""
    with pytest.raises(ConfigError) as caught:
        perform(*overrides)
    return str(caught.value)


def failure(outputs: Path, *overrides: str) -> str:
    """What a run that diverges prints, without the leading "error: "."""
    with pytest.raises(NonFiniteError) as caught:
        train(outputs, *overrides)
    return str(caught.value)


def entry(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines on standard error of a command, run in this process."""
    overrides = quote_paths(list(arguments))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        with flag_override(composed, "struct", False):
            del composed["hydra"]
        capsys.readouterr()
        try:
            run(composed)
        except SystemExit as end:
            return int(str(end.code)), capsys.readouterr().err.splitlines()
        finally:
            HydraConfig.instance().cfg = None
    return 0, capsys.readouterr().err.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines on standard error of a command that is refused before anything is imported."""
    with pytest.raises(SystemExit) as caught:
        refuse_bad_overrides(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python train.py` with some arguments, to its end."""
    with start(*arguments, cwd=cwd, **environment) as process:
        out, err = outcome(process)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def outcome(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process prints until it ends, which it must do in time."""
    try:
        return process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()  # or leaving its `with` waits for it forever
        raise


def start(
    *arguments: str, cwd: Path, group: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Start `python train.py` with some arguments; group 0 is a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        process_group=group,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(
    monkeypatch: pytest.MonkeyPatch, outputs: Path, batch: int, *overrides: str
) -> dict[str, Any]:
    """Send this process SIGTERM while the run works on its `batch`-th batch; its checkpoint then.

    Batches are counted over the seeds of a stack.
    """
    train_first(outputs, *overrides)
    with signal_at(monkeypatch, batch, *overrides), pytest.raises(SystemExit) as caught:
        train(outputs, *overrides)
    assert caught.value.code == 128 + signal.SIGTERM
    name = composed(*smoke(*overrides)).name
    folder = next(path for path in sorted(only(outputs, name).iterdir()) if not done(path))
    assert read(folder / "status.json")["status"] == "interrupted"
    return checkpoint.load(next(folder.rglob("checkpoint.pt")))


@contextmanager
def signal_at(monkeypatch: pytest.MonkeyPatch, batch: int, *overrides: str) -> Iterator[None]:
    """Send this process SIGTERM while a run works on its `batch`-th batch."""
    dataset: Any = type(build(config(*smoke(*overrides))["dataset"], "dataset"))
    passes, seen = dataset.batches, 0

    def batches(self: Any, split: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        nonlocal seen
        for item in passes(self, split, *args, **kwargs):
            seen += split == "train"
            if split == "train" and seen == batch:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "batches", batches)
        yield


def done(folder: Path) -> bool:
    """Whether a seed's folder holds a result."""
    return (folder / "result.json").exists()


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def weights(folder: Path) -> dict[str, Tensor]:
    """A seed's last weights."""
    return checkpoint.load(folder / "checkpoint.pt")["model"]


def curve(folder: Path) -> list[dict[str, Any]]:
    """A seed's curves, one entry per line."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(a: Path, b: Path) -> None:
    """Two seeds' folders hold the same numbers, to the last bit."""
    result, other = read(a / "result.json"), read(b / "result.json")
    assert result["metrics"] is not None and result["metrics"]
    for key in ("status", "metrics", "steps", "epochs", "parameters", "seed"):
        assert result[key] == other[key], key
    kept = [sorted(p.relative_to(f).parent for p in f.rglob("checkpoint.pt")) for f in (a, b)]
    assert kept[0] == kept[1] and kept[0]
    for folder in kept[0]:  # one, or those of the models of a cross-validation
        curves = [(f / folder / "metrics.jsonl").read_text() for f in (a, b)]
        assert curves[0] == curves[1]
        state, same = (checkpoint.load(f / folder / "checkpoint.pt") for f in (a, b))
        assert state["step"] == same["step"]
        for part in ("model", "optimizer"):
            assert state[part].keys() == same[part].keys()
            assert_equal(state[part], same[part])


def assert_equal(a: Any, b: Any) -> None:
    """Nested mappings of tensors are equal to the last bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    else:
        assert torch.equal(a, b)
