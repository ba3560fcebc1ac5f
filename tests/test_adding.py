"""docs/adding_an_experiment.md is true: its files, written where it says, train."""

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "adding_an_experiment.md"


def documented_files() -> dict[str, str]:
    """Every code block of the page that a path in backquotes introduces."""
    pattern = r"`((?:setexp|configs)/[\w/]+\.(?:py|yaml))`[^`]*?```\w+\n(.*?)```"
    return dict(re.findall(pattern, PAGE.read_text(), flags=re.S))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's files added and nothing else changed."""
    root = tmp_path_factory.mktemp("project")
    for name in ("setexp", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", root)
    for path, text in documented_files().items():
        assert not (root / path).exists(), f"{path} is an example, but exists"
        (root / path).write_text(text)
    return root


def train(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "train.py", "scale=smoke", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_a_part_is_one_module_and_one_config_and_an_experiment_another() -> None:
    parts = {Path(path).parent.name for path in documented_files() if path.endswith(".py")}
    assert parts == {"decoders", "datasets"}
    named = [path for path in documented_files() if re.search("linear|point_file", path)]
    assert sorted(Path(path).suffix for path in named) == [".py", ".py", *[".yaml"] * 3]


def test_the_documented_experiment_trains(copy: Path) -> None:
    result = train(copy, "experiment=polygons_linear", "seeds=[0,1]")
    assert result.returncode == 0, result.stderr
    records = sorted((copy / "outputs" / "polygons_linear").rglob("result.json"))
    assert len(records) == 2
    assert json.loads(records[0].read_text())["metrics"]["chamfer"] > 0


def test_the_documented_decoder_fits_another_experiment(copy: Path) -> None:
    result = train(copy, "experiment=polygons_mlp_chamfer", "decoder=linear")
    assert result.returncode == 0, result.stderr


def test_the_documented_dataset_trains(copy: Path) -> None:
    missing = train(copy, "experiment=own_sets")
    assert missing.returncode == 2, missing.stderr
    assert "points.npz: no such file" in missing.stderr
    size = np.random.default_rng(0).integers(1, 13, (64, 1))
    sets = {"x": np.random.default_rng(1).random((64, 12, 3)), "mask": np.arange(12) < size}
    (copy / "data").mkdir(exist_ok=True)
    arrays = {f"{k}_{split}": v for k, v in sets.items() for split in ("train", "test")}
    np.savez(copy / "data" / "points.npz", **arrays)
    result = train(copy, "experiment=own_sets")
    assert result.returncode == 0, result.stderr
    (record,) = (copy / "outputs" / "own_sets").rglob("result.json")
    assert json.loads(record.read_text())["metrics"]["chamfer"] > 0


def test_the_documented_mistake_is_refused_with_one_line(copy: Path) -> None:
    result = train(copy, "experiment=polygons_linear", "+decoder.latennt=3")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "decoder.latennt: unknown key" in result.stderr


def test_parts_work_in_a_program_of_ones_own() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs/python.md"), module_relative=False)
    assert not failed and tried >= 20
