"""What is imported when: help and light commands must not wait for heavy packages."""

import subprocess
import sys
from pathlib import Path

import pytest
from smoke_runs import ROOT

HEAVY = {
    "torch",
    "torchvision",
    "torch_geometric",
    "wandb",
    "matplotlib",
    "h5py",
    "scipy",
    "PIL",
    "submitit",
}
# Needed to train anything; the others wait until something asks for them.
TRAINING = {"torch"}


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


def heavy(imported: str) -> set[str]:
    return {line.split("|")[-1].strip() for line in imported.splitlines()} & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["experiment=dspn_clevr_state", "--cfg", "job"]])
def test_help_and_configs_are_shown_at_once(arguments: list[str], tmp_path: Path) -> None:
    result = python("-X", "importtime", str(ROOT / "train.py"), *arguments, cwd=tmp_path)
    assert "dspn_clevr_state" in result.stdout
    assert "hydra" in result.stderr
    assert heavy(result.stderr) == set()
    assert list(tmp_path.iterdir()) == []


def test_the_package_alone_imports_nothing() -> None:
    script = (
        "import sys; before = set(sys.modules); import setexp; print(set(sys.modules) - before)"
    )
    assert python("-c", script).stdout.strip() == "{'setexp'}"


def test_no_module_imports_more_than_it_must() -> None:
    """Every module, imported together: only torch among the heavy packages."""
    script = (
        "import importlib, pkgutil, setexp, sys\n"
        "names = [m.name for m in pkgutil.walk_packages(setexp.__path__, 'setexp.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names), *sys.modules)"
    )
    count, *modules = python("-c", script).stdout.split()
    assert int(count) >= 50
    assert set(modules) & HEAVY <= TRAINING


def test_reports_need_neither_torch_nor_hydra() -> None:
    script = "import sys, setexp.report.tables, setexp.report.records; print(*sys.modules)"
    modules = set(python("-c", script).stdout.split())
    assert not modules & {*HEAVY, "hydra", "omegaconf"}
