"""Imports follow the arrow, Hydra stays on top, no file knows the machine it was made on."""

import ast
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "setexp").rglob("*.py"))
SIBLINGS = ("encoders", "decoders", "losses", "metrics", "datasets")
# Each part of the project, and the parts it may import.
ARROW = {
    "errors": (),
    "files": (),
    "memory": (),
    "provenance": (),
    "sets": (),
    "ops": ("sets",),
    **dict.fromkeys(SIBLINGS, ("ops", "sets")),
    "figures": (*SIBLINGS, "ops", "sets"),
    "tasks": ("ops", "sets"),
    "training": ("ops", "provenance", "sets"),
    "report": (),
    "build": (),
    "rules": ("figures", "training"),
    "explain": (),
    "overrides": ("explain", "report", "training"),
    "config": ("explain", "overrides", "report", "training"),
    "command_line": ("config", "explain", "report", "rules"),
    "pretrained": ("overrides", "report", "training"),
    "processes": ("config", "memory", "training"),
    "crossval": ("build", "config", "processes", "report", "rules", "training"),
    "science": ("training",),
    "run_folder": ("science",),
    "experiment": (
        *("build", "crossval", "overrides", "pretrained", "provenance", "report", "run_folder"),
        *("science", "training"),
    ),
    "together": ("crossval", "experiment", "processes", "training"),
    "evaluate_saved": (
        *("build", "crossval", "experiment", "provenance", "report", "science", "training"),
    ),
    "run": (
        *("build", "config", "evaluate_saved", "experiment", "overrides", "pretrained"),
        *("processes", "report", "rules", "together", "training"),
    ),
}
EVERYWHERE = ("errors", "files")
HYDRA = {"hydra", "omegaconf"}


def imported(path: Path, *, run_time: bool = False) -> Iterator[str]:
    """Dotted names a file imports; `run_time` leaves out what only type checkers see."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(inner for part in node.body for inner in ast.walk(part))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    """The part of the project a dotted name belongs to; "" for the package itself."""
    return (name.split(".") + [""])[1]


def violations(sources: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    found = set()
    for own, names in sources:
        allowed = {own, *EVERYWHERE, *ARROW[own]}
        for name in names:
            if name.startswith("setexp.") and part(name) not in allowed:
                found.add(f"{own} imports {name}")
    return sorted(found)


def own_part(path: Path) -> str:
    relative = path.relative_to(ROOT / "setexp").with_suffix("")
    return relative.parts[0]


def test_imports_follow_the_arrow() -> None:
    modules = [p for p in SOURCES if p.parent != ROOT / "setexp" or p.stem != "__init__"]
    assert len(modules) >= 60
    assert {own_part(path) for path in modules} == ARROW.keys()
    assert violations((own_part(p), imported(p, run_time=True)) for p in modules) == []


def test_siblings_never_import_each_other_even_for_types() -> None:
    for path in SOURCES:
        own = own_part(path)
        if own in SIBLINGS:
            others = {f"setexp.{sibling}" for sibling in SIBLINGS if sibling != own}
            found = [n for n in imported(path) if n.startswith(tuple(others))]
            assert not found, f"{path}: {found}"


def test_violations_are_found() -> None:
    names = ["setexp.encoders.fspool", "setexp.ops.layers", "torch"]
    assert violations([("decoders", names)]) == ["decoders imports setexp.encoders.fspool"]
    assert violations([("training", ["setexp.run"])]) == ["training imports setexp.run"]
    assert violations([("run", ["setexp.training.loop"])]) == []


def test_only_the_top_knows_hydra() -> None:
    users: dict[str, set[str]] = {"hydra": set(), "omegaconf": set()}
    for path in SOURCES:
        for package in {name.split(".")[0] for name in imported(path)} & HYDRA:
            users[package].add(own_part(path))
    assert users["hydra"] == {"config", "command_line", "overrides", "run"}
    above = {"build", "crossval", "experiment", "explain", "processes", "run_folder", "together"}
    assert users["omegaconf"] == {*users["hydra"], *above}


def test_reports_import_neither_torch_nor_hydra() -> None:
    scripts = [ROOT / "scripts/report.py"]
    for path in [*(p for p in SOURCES if own_part(p) == "report"), *scripts]:
        used = {name.split(".")[0] for name in imported(path)}
        assert not used & {*HYDRA, "torch"}, path


def test_packages_are_docstrings() -> None:
    for path in SOURCES:
        if path.name == "__init__.py" and path.parent != ROOT / "setexp":
            (node,) = ast.parse(path.read_text()).body
            assert isinstance(node, ast.Expr), path


def tracked() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in result.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_knows_the_machine_it_was_made_on() -> None:
    """Neither this checkout's folder nor anybody's home."""
    places = {str(ROOT), str(ROOT.parent)} - {"/", tempfile.gettempdir()}
    words = "|".join(re.escape(place) for place in sorted(places))
    pattern = re.compile(rf"(?<![\w.])({words}|/home/\w+|/root|/Users/\w+)(?![\w-])")
    files = [path for path in tracked() if path.suffix not in (".npz", ".png", ".h5")]
    assert len(files) >= 100
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        if path != Path(__file__).resolve()
        for match in pattern.finditer(path.read_text(errors="replace"))
    ]
    assert found == []
    assert pattern.search(f"see {ROOT}/setexp") and pattern.search("/home/x")
