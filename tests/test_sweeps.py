"""Sweeps: a table's columns over values, their stacked training, curves and pictures of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from report_runs import write_run
from smoke_runs import assert_same_run, complaint, entry, load_script, read, refusal
from smoke_runs import config as composed

from setexp.build import build
from setexp.config import compose_run
from setexp.errors import ConfigError
from setexp.overrides import axes
from setexp.report import curve_picture
from setexp.report.blocks import Block, blocks
from setexp.report.curves import fullest, learned_by, learned_curves, metric_curve
from setexp.report.papers import PAPERS, load_printed, read_paper
from setexp.report.part import part
from setexp.report.records import read_records
from setexp.report.render import description, grid
from setexp.report.tables import load_table, load_tables, parse_table
from setexp.run import execute

SPEC: dict[str, Any] = {
    "id": "x/1", "seeds": [0], "metric": "accuracy", "points": 3,
    "rows": {"A": {"experiment": "a"}, "B": {"experiment": "b"}},
    "columns": {
        "l={}, q=0": {"sweep": "data.l", "set": {"data.q": 0.0}},
        "q={}, l=0": {"sweep": "data.q", "set": {"data.l": 0.0}},
        "other": {"set": {"data.l": 0.2, "data.q": 0.2}},
    },
}  # fmt: skip
FIGURES = {
    name: spec
    for name, spec in read_paper(PAPERS / "thesis.yaml")["figures"].items()
    if "kind" in spec
}


# Tables


def test_a_swept_column_becomes_one_for_each_value() -> None:
    table = parse_table(SPEC)
    assert [c for r, c in table.cells if r == "A"] == [
        "l=0, q=0", "l=0.5, q=0", "l=1, q=0", "q=0, l=0", "q=0.5, l=0", "q=1, l=0", "other",
    ]  # fmt: skip
    assert table.cells["B", "l=0.5, q=0"].axes == {"data.l": 0.5, "data.q": 0.0}
    assert [(s.title, s.symbol) for s in table.sweeps] == [("l, q=0", "l"), ("q, l=0", "q")]
    assert list(table.sweeps[1].values.values()) == [0, 0.5, 1]
    assert len(table.runs) == 2 * 6  # both sweeps have l = q = 0


def test_values_are_written_as_one_would() -> None:
    values = parse_table(SPEC | {"points": 101}).sweeps[0].values
    assert list(values.values()) == [round(k * 0.01, 2) for k in range(101)]
    assert "l=0.07, q=0" in values


def test_runs_of_a_sweep_are_one_job() -> None:
    table = parse_table(SPEC)
    found = {name: len(runs) for name, runs in table.jobs.items()}
    assert found == {"l_q_0": 6, "q_l_0": 4, "a-other": 1, "b-other": 1}
    assert sum(found.values()) == len(table.runs)
    second = part(table, "A", "q=*").jobs
    assert {name: len(runs) for name, runs in second.items()} == {"q_l_0": 3}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": 1}, "table x/1: points=1; columns with a sweep need at least 2"),
        ({"points": None}, "table x/1: points=None; columns with a sweep need at least 2"),
        ({"columns": {"n": {}}}, "table x/1: points=3; columns with a sweep need at least 2"),
        (
            {"columns": {"l": {"sweep": "data.l"}}},
            'table x/1, columns.l: write "={}" for the value of data.l',
        ),
    ],
)
def test_a_wrong_sweep_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_table(SPEC | changes)
    assert str(caught.value) == said


def test_the_number_of_points_changes_no_run() -> None:
    assert axes(["table.points=101", "dataset.side=0.5"]) == {"dataset.side": 0.5}
    finer = load_table("thesis/3.6", points=101)
    assert len(finer.runs) == 2 * (4 * 101 - 4)
    assert finer.command == "python train.py -m table=thesis_3_6 table.points=101"
    assert load_table("thesis/3.6").command == "python train.py -m table=thesis_3_6"


def test_what_a_command_may_ask_for(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refusal(capsys, "-m", "table=thesis_3_6", "table.points=1")
    assert line == "error: table thesis/3.6: points=1; columns with a sweep need at least 2"
    code, (line,) = entry(capsys, "table=thesis_3_6", "run=nope", "experiment=counting_toy")
    assert code == 2
    assert "choose another; there are l_q_0, q_l_0" in line


# Training


def sweep(outputs: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> list[Path]:
    """Train a smoke run of one sweep; its seeds' folders."""
    code, errors = entry(
        capsys, "table=thesis_3_6", "experiment=counting_toy", "run=l_q_0.5", "table.points=3",
        "columns=l=*, q=0.5", f"paths.outputs={outputs}", "scale=smoke", *overrides,
    )  # fmt: skip
    assert code == 0
    assert all("table thesis/3.6 does not read" in line for line in errors)  # of other seeds
    return sorted(outputs.glob("*/*/*/seed-*"))


PRINTED = ("scale=paper", "tracking.mode=disabled", "trainer.steps=3", "dataset.test_size=1024")


@pytest.mark.parametrize("overrides", [(), PRINTED], ids=["smoke", "printed sizes"])
def test_points_of_a_stack_are_those_trained_alone(
    overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    together = sweep(tmp_path / "together", capsys, *overrides)
    alone = sweep(tmp_path / "alone", capsys, "trainer.stack=0", *overrides)
    assert len(together) == len(alone) == 2 * 3
    for a, b in zip(together, alone, strict=True):
        assert a.relative_to(tmp_path / "together") == b.relative_to(tmp_path / "alone")
        assert_same_run(a, b)
        record, other = read(a / "result.json"), read(b / "result.json")
        assert record.get("learned") == other.get("learned")
        assert record["provenance"]["stacked_seeds"] == 3
        assert other["provenance"]["stacked_seeds"] == 1
    losses = {read(folder / "result.json")["metrics"]["loss"] for folder in together}
    assert len(losses) == 6


def test_a_sweep_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = sweep(tmp_path / "whole", capsys, "seeds=[0,1]")
    sweep(tmp_path / "cut", capsys, "trainer.until=1")
    cut = sweep(tmp_path / "cut", capsys, "seeds=[0,1]")
    assert len(whole) == len(cut) == 2 * 3 * 2
    for a, b in zip(cut, whole, strict=True):
        assert_same_run(a, b)


def test_runs_that_differ_in_more_than_numbers_do_not_stack(tmp_path: Path) -> None:
    place = [f"paths.outputs={tmp_path}", "scale=smoke", "experiment=counting_toy"]
    changes = ("dataset.side=0.1", "dataset.side=0.2", "trainer.lr=0.1", "dataset.set_size=3")
    (config, overrides), *others = [(compose_run(c), c) for c in ([*place, c] for c in changes)]
    execute(config, overrides, *others)
    stacked = {
        folder.parents[1].name: read(folder / "result.json")["provenance"]["stacked_seeds"]
        for folder in tmp_path.glob("*/*/*/seed-0")
    }
    assert stacked == {
        "dataset.side=0.1": 2, "dataset.side=0.2": 2, "trainer.lr=0.1": 1, "dataset.set_size=3": 1,
    }  # fmt: skip


def test_only_numbers_are_scalars() -> None:
    """What a dataset lets runs of a stack differ in must change no shape."""
    first, second = (
        build(composed("experiment=counting_toy", "scale=smoke", o)["dataset"], "dataset")
        for o in ("dataset.side=0.1", "dataset.noise=0.9")
    )
    assert set(first.scalars) == {"side", "noise"}
    how = {"shuffle": True, "drop_last": False}
    batches = [next(d.batches("train", 4, torch.Generator(), **how)) for d in (first, second)]
    assert batches[0].input.x.shape == batches[1].input.x.shape


def test_an_invalid_point_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    said = complaint("experiment=counting_toy", "dataset.side=2", f"paths.outputs={tmp_path}")
    assert said == "dataset.side=2.0: choose a value in [0, 1]"
    assert not list(tmp_path.iterdir())


# Reports


def measure(
    outputs: Path, side: float, noise: float, accuracy: float | None, seed: int = 0
) -> None:
    place = {"dataset.noise": noise, "dataset.side": side}
    metrics = None if accuracy is None else {"accuracy": accuracy}
    folder = write_run(outputs, "counting_toy", place, seed, metrics)
    record = read(folder / "result.json") | {"learned": {"f1": [0, side, 1], "f2": [0, 0.5, 1]}}
    (folder / "result.json").write_text(json.dumps(record))


def measure_vqa(outputs: Path, experiment: str = "vqa_counting") -> None:
    """A small run of VQA's counting model on its stand-in."""
    folder = write_run(outputs, experiment, {}, 0, {"accuracy_all": 0.9})
    learned = {f"f{k}": [0, 0.25 * k, 1] for k in (1, 2)}
    record = read(folder / "result.json") | {"learned": learned, "source": "procedural"}
    (folder / "result.json").write_text(json.dumps(record | {"scale": "small"}))


def block_of(outputs: Path, points: int = 3, seeds: Sequence[int] = (0,)) -> Block:
    table = replace(load_table("thesis/3.6", points=points), seeds=tuple(seeds))
    (block,) = blocks(table, read_records(outputs / "none", outputs), load_tables())
    return block


def test_curves_by_hand(tmp_path: Path) -> None:
    for side, accuracy in ((0.0, 1.0), (0.5, 0.75), (1.0, None)):
        measure(tmp_path, side, 0.5, accuracy)
    measure(tmp_path, 0.25, 0.5, 0.9)  # a point of another resolution
    block = block_of(tmp_path)
    first, _, noisy, _ = block.table.sweeps
    assert metric_curve(block, "Counting module", noisy) == {0.0: 1.0, 0.5: 0.75}
    assert metric_curve(block, "Baseline", noisy) == {}
    assert metric_curve(block, "Counting module", first) == {}
    learned = learned_curves(block, "Counting module", noisy, "f1")
    assert learned == {0.0: [0, 0, 1], 0.5: [0, 0.5, 1], 1.0: [0, 1, 1]}
    assert learned_curves(block, "Counting module", noisy, "f9") == {}
    measure(tmp_path, 0.5, 0.5, 0.25, seed=1)
    both = block_of(tmp_path, seeds=(0, 1))
    assert metric_curve(both, "Counting module", noisy) == {0.0: 1.0, 0.5: 0.5}
    assert learned_curves(both, "Counting module", noisy, "f1") == learned
    finer = block_of(tmp_path, points=5)
    assert metric_curve(finer, "Counting module", finer.table.sweeps[2])[0.25] == 0.9


def test_the_table_of_a_sweep_has_a_line_for_each_value(tmp_path: Path) -> None:
    measure(tmp_path, 0.5, 0.5, 0.75)
    block = block_of(tmp_path)
    lines = grid(block.table, load_printed("thesis/3.6"), block)
    at = lines.headers.index("l, q=0.5: Counting module")
    assert [line[0] for line in lines.lines] == ["0", "0.5", "1"]
    assert [line[at] for line in lines.lines] == ["not run", "75", "not run"]
    assert grid(block.table, load_printed("thesis/3.6"), None).lines == []


def test_fewer_points_than_print_has_are_no_silent_full_protocol(tmp_path: Path) -> None:
    measure(tmp_path, 0.5, 0.5, 0.75)
    printed = load_printed("thesis/3.6")
    for points, said in ((3, " at 3 of print's 101 points."), (101, ".")):
        (head, *_) = description(block_of(tmp_path, points), printed)
        assert head.endswith(f": full protocol{said}")


def test_figures_of_the_thesis_are_there() -> None:
    numbers = ("3.6", "3.7", "3.8", "3.9", "3.12", "3.12/script")
    assert FIGURES.keys() == {f"thesis/{number}" for number in numbers}
    for spec in FIGURES.values():
        table = load_table(spec["table"])
        assert set(spec.get("sweeps", [])) <= {sweep.label for sweep in table.sweeps}
        assert spec.get("row", "Baseline") in load_printed(table.id).rows


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_drawn(figure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--outputs", str(tmp_path), "--results", str(tmp_path / "none")]
    main = load_script("report").main
    assert main(["figure", figure, *where]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    if "over" in FIGURES[figure]:
        missing = "learned yet by + counting of table thesis/3.1 or thesis/3.2"
        assert line == f"error: figure {figure}: nothing {missing}"
        measure_vqa(tmp_path)
        assert main(["figure", figure, *where]) == 2
        (line,) = capsys.readouterr().err.splitlines()
    table = FIGURES[figure]["table"]
    assert line == f"error: figure {figure}: nothing measured yet of table {table}"
    for value in (0.0, 0.5, 1.0):
        measure(tmp_path, value, 0.5, 0.5)
        measure(tmp_path, 0.5, value, 0.5)
        measure(tmp_path, 0.2, value, 0.5)
    assert main(["figure", figure, "--points", "3", *where]) == 0
    path = tmp_path / "figures" / f"{figure.replace('/', '_').replace('.', '_')}.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_black_is_the_model_of_print_or_says_which_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Table 3.1 is trained on train and val, as print's is; until it has run, 3.2's."""
    said = []
    monkeypatch.setattr(curve_picture, "draw", lambda *arguments: said.append(arguments[4]))
    where = ["--outputs", str(tmp_path), "--results", str(tmp_path / "none")]
    for name in ("vqa_counting", "vqa_counting_trainval"):
        measure_vqa(tmp_path, name)
        assert load_script("report").main(["figure", "thesis/3.12", *where]) == 0
    begun = [text.partition(": Scale small, procedural")[0] for text in said]
    assert begun == [f"Black, + counting of Table {table}" for table in ("3.2", "3.1")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "pie"}, "figure x/9: kind=pie; choose curves or functions"),
        ({"colour": "red"}, "figure x/9: colour is unknown; use functions, kind, near, note,"),
        ({"row": None}, "figure x/9: row is missing; use functions, kind, near, note,"),
    ],
)
def test_a_wrong_figure_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    spec = {k: v for k, v in (FIGURES["thesis/3.7"] | changes).items() if v is not None}
    printed, path = load_printed("thesis/3.6"), tmp_path / "a.png"
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        curve_picture.draw("x/9", spec, printed, None, "", path)
    assert not path.exists()


def test_panels_show_what_was_measured(tmp_path: Path) -> None:
    for value in (0.0, 0.5, 1.0):
        measure(tmp_path, value, 0.5, value)
    block, printed = block_of(tmp_path), load_printed("thesis/3.6")
    panels = curve_picture._metric_panels(printed, block)
    assert list(panels) == ["q, l=0", "l, q=0.5", "q, l=0.5"]
    axes = Figure().add_axes((0, 0, 1, 1))
    panels["l, q=0.5"](axes)
    (line,) = axes.lines  # of the baseline nothing is measured
    assert line.get_label() == "Counting module"
    assert list(line.get_xdata()) == [0, 0.5, 1] and list(line.get_ydata()) == [0, 50, 100]
    drawn = curve_picture._function_panels(FIGURES["thesis/3.7"], block, None)
    assert list(drawn)[:2] == ["f1; l, q=0.5", "f2; l, q=0.5"]
    axes = Figure().add_axes((0, 0, 1, 1))
    drawn["f1; l, q=0.5"](axes)
    assert [list(line.get_ydata()) for line in axes.lines] == [[0, 0, 1], [0, 0.5, 1], [0, 1, 1]]
    assert len({line.get_color() for line in axes.lines}) == 3


def test_functions_near_some_values_lie_under_those_of_another_table(tmp_path: Path) -> None:
    for noise in (0.3, 0.35, 0.4, 0.55, 0.7, 1.0):
        measure(tmp_path, 0.2, noise, 0.5)
    measure_vqa(tmp_path)
    records, known = read_records(tmp_path / "none", tmp_path), load_tables()
    (block,) = blocks(load_table("thesis/3.12"), records, known)
    (over,) = blocks(load_table("thesis/3.2"), records, known)
    assert fullest([block, over], "+ counting", "f1") is over
    assert learned_by(over, "+ counting", "f1") == [0, 0.25, 1]
    assert learned_by(over, "Baseline", "f1") == learned_by(over, "+ counting", "f9") == []
    drawn = curve_picture._function_panels(FIGURES["thesis/3.12"], block, over)
    assert list(drawn) == ["f1; q, l=0.2", "f2; q, l=0.2"]
    axes = Figure().add_axes((0, 0, 1, 1))
    drawn["f2; q, l=0.2"](axes)
    *toy, black = axes.lines
    green, orange, red = curve_picture._NEAR_HUES
    assert [line.get_color() for line in toy] == [green, green, orange, red]
    assert black.get_color() == "black" and list(black.get_ydata()) == [0, 0.5, 1]
    assert black.get_linewidth() > toy[0].get_linewidth()
