"""Bar charts of printed figures: heights worked out by hand, what is shown, how it is drawn."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from report_runs import write_run
from smoke_runs import load_script

from setexp.errors import ConfigError
from setexp.report import bar_picture
from setexp.report.bars import Bar, Chart, Height, Panel, load_chart
from setexp.report.blocks import Block, blocks
from setexp.report.papers import PAPERS, load_printed, read_paper
from setexp.report.records import read_records
from setexp.report.tables import load_table, load_tables

ROOT = Path(__file__).resolve().parents[1]
FIGURES: dict[str, dict] = {}
for paper in PAPERS.glob("*.yaml"):
    found = read_paper(paper).get("figures", {})
    FIGURES |= {name: spec for name, spec in found.items() if "kind" not in spec}
MODELS = {
    "iDSPN+mom": "multisets_idspn",
    "iDSPN": "multisets_idspn_plain",
    "Baseline": "multisets_dspn",
}


def measure(outputs: Path, model: str, n: int, d: int, steps: int, *losses: float | None) -> None:
    axes = {"dataset.element_dim": d, "dataset.set_size": n, "decoder.steps": steps}
    for seed, loss in enumerate(losses):
        metrics = None if loss is None else {"hungarian": loss}
        write_run(outputs, MODELS[model], axes, seed, metrics)


def block_of(outputs: Path) -> Block:
    (block,) = blocks(load_table("idspn/5"), read_records(outputs / "none", outputs), load_tables())
    return block


def shown(chart: Chart, block: Block | None) -> dict[tuple[str, str], list[str]]:
    """Bars by panel and group."""
    return {
        (panel.title, label): [", ".join((bar.kind, bar.variant)) for bar in group]
        for panel in chart.panels(load_printed(chart.spec["table"]), block)
        for label, group in panel.groups.items()
    }


def test_charts_are_there() -> None:
    assert {"idspn/1", "idspn/2", "idspn/3"} <= FIGURES.keys()


@pytest.mark.parametrize("figure", FIGURES)
def test_every_bar_of_every_figure_is_printed_in_its_table(figure: str) -> None:
    chart = load_chart(figure)
    table, printed = load_table(chart.spec["table"]), load_printed(chart.spec["table"])
    bars = [b for p in chart.panels(printed, None) for group in p.groups.values() for b in group]
    assert bars and all(bar.printed for bar in bars)
    assert set(table.cells) >= {(r, c) for r in printed.rows for c in printed.columns}


@pytest.mark.parametrize("figure", ["idspn/2", "idspn/3"])
def test_two_figures_show_the_whole_table_once(figure: str) -> None:
    found = shown(load_chart(figure), None)
    assert len(found) == 25
    assert all(len(bars) == len(set(bars)) == 9 for bars in found.values())


def test_printed_heights_by_hand() -> None:
    panel = load_chart("idspn/2").panels(load_printed("idspn/5"), None)[0]
    bars = {(bar.kind, bar.variant): bar for bar in panel.groups["d=2"]}
    assert panel.title == "n=2"
    low = bars["iDSPN+mom", "it=10"]  # 6.0e-5 ± 4.0e-5 over 1.8e-4
    assert low.printed == Height(pytest.approx(1 / 3), pytest.approx(2 / 9))
    assert bars["Baseline", "it=10"].printed.value == 1
    assert [k for k, bar in bars.items() if bar.unit] == [("Baseline", "it=10")]
    assert all(bar.ours is None and not bar.diverged for bar in bars.values())
    wide = load_chart("idspn/3").panels(load_printed("idspn/5"), None)[-1].groups["n=2"]
    (single,) = (b for b in wide if (b.kind, b.variant) == ("Baseline", "it=40"))
    assert single.printed == Height(pytest.approx(0.32), None)  # nan is printed as its deviation


def test_measured_heights_by_hand(tmp_path: Path) -> None:
    measure(tmp_path, "Baseline", 4, 2, 10, 1e-3, 3e-3)
    measure(tmp_path, "iDSPN", 4, 2, 10, 1e-3, None, 2e-3)
    measure(tmp_path, "iDSPN+mom", 4, 2, 20, 5e-4)
    (panel,) = load_chart("idspn/2").panels(load_printed("idspn/5"), block_of(tmp_path))
    plain, unit, momentum = panel.groups["d=2"]
    assert plain.ours == Height(pytest.approx(0.75), pytest.approx(0.5**0.5 / 2))
    assert unit.ours == Height(pytest.approx(1), pytest.approx(0.5**0.5))
    assert momentum.ours == Height(pytest.approx(0.25), None)
    assert (momentum.kind, momentum.variant) == ("iDSPN+mom", "it=20")
    assert momentum.printed == Height(pytest.approx(1.9 / 7.4), pytest.approx(1 / 7.4))


def test_what_is_not_measured_is_not_shown(tmp_path: Path) -> None:
    two, one = load_chart("idspn/2"), load_chart("idspn/1")
    measure(tmp_path, "Baseline", 4, 2, 10, 1e-3)
    assert shown(two, block_of(tmp_path)) == {}  # the unit alone
    measure(tmp_path, "iDSPN", 4, 2, 10, 1e-3)
    measure(tmp_path, "iDSPN", 8, 8, 20, 1e-3)  # nothing to divide it by
    assert shown(two, block_of(tmp_path)) == {("n=4", "d=2"): ["iDSPN, it=10", "Baseline, it=10"]}
    measure(tmp_path, "Baseline", 8, 8, 10, 1e-3)
    assert shown(one, block_of(tmp_path)) == {
        ("n=8, d=8, equal inner steps", "it=20"): ["iDSPN, "],
        ("n=8, about equal computation, 10 steps of the baseline", "d=8"): [
            "iDSPN, it=20",
            "Baseline, it=10",
        ],
    }


def test_a_cell_without_any_seed_that_ended_well_is_marked(tmp_path: Path) -> None:
    measure(tmp_path, "Baseline", 4, 2, 10, 1e-3)
    measure(tmp_path, "iDSPN", 4, 2, 40, None, None)
    (panel,) = load_chart("idspn/2").panels(load_printed("idspn/5"), block_of(tmp_path))
    unit, diverged = panel.groups["d=2"]
    assert diverged.diverged and diverged.ours is None
    assert not unit.diverged


def write_paper(folder: Path, **changes: object) -> Path:
    spec = {
        "source": "Figure 9", "title": "t", "table": "idspn/5", "row": "{model} n={n} it=10",
        "column": "d={d}", "relative_to": {"model": "Baseline"}, "panels": [{"n": "2"}],
        "groups": [{"d": "2"}], "bars": [{"model": "iDSPN"}],
    } | changes  # fmt: skip
    spec = {k: v for k, v in spec.items() if v is not None}
    (folder / "x.yaml").write_text(yaml.safe_dump({"figures": {"x/9": spec}}))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "figure x/9: colour is unknown; use bars, column,"),
        ({"title": None}, "figure x/9: title is missing; use bars, column,"),
        ({"row": "{net}"}, "figure x/9: no panel, group or bar names 'net'"),
        ({"panels": [{"n": "3"}]}, "figure x/9: (iDSPN n=3 it=10, d=2) is not in table idspn/5"),
    ],
)
def test_a_wrong_figure_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_chart("x/9", write_paper(tmp_path, **changes)).panels(load_printed("idspn/5"), None)


def test_a_figure_of_a_folder_is_read(tmp_path: Path) -> None:
    chart = load_chart("x/9", write_paper(tmp_path))
    assert shown(chart, None) == {("n=2", "d=2"): ["iDSPN, "]}
    with pytest.raises(ConfigError, match="figure x/8: not known; there are x/9"):
        load_chart("x/8", tmp_path)


# The picture

COLORS = {("it=10", "iDSPN"): "#111111", ("it=20", "iDSPN"): "#222222"}


def bar(printed: float | None, ours: float | None, *, diverged: bool = False) -> Bar:
    heights = (None if h is None else Height(h, 0.25) for h in (printed, ours))
    return Bar("iDSPN", "it=10", False, *heights, diverged)


def test_bars_stand_in_pairs_as_high_as_their_numbers() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    panel = Panel("p", {"a": (bar(0.5, 0.75), bar(None, 1.0)), "b": (bar(9.0, None),)})
    bar_picture._draw_panel(axes, panel, COLORS)
    drawn = [(p.get_x(), p.get_height(), p.get_alpha()) for p in axes.patches]
    assert [(round(height, 3), alpha) for _, height, alpha in drawn] == [
        (0.5, 0.35), (0.75, 1.0), (1.0, 1.0), (1.75, 0.35),
    ]  # fmt: skip
    lefts = [left for left, _, _ in drawn]
    assert lefts == sorted(lefts)
    assert lefts[1] - lefts[0] == pytest.approx(0.45)
    assert lefts[2] - lefts[1] == pytest.approx(1.0)
    assert {to_hex(p.get_facecolor()) for p in axes.patches} == {"#111111"}
    assert [text.get_text() for text in axes.texts] == ["9"]  # what is cut has its number
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    spreads = [sorted(line.get_ydata()) for line in axes.lines[:2]]
    assert spreads == [[0.25, 0.75], [0.5, 1.0]]


def test_diverged_cells_are_crossed() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    bar_picture._draw_panel(axes, Panel("p", {"a": (bar(0.5, None, diverged=True),)}), COLORS)
    assert "x" in [line.get_marker() for line in axes.lines]


def test_kinds_have_hues_and_variants_shades() -> None:
    bars = tuple(
        Bar(kind, variant, False, None, None, True)
        for variant in ("it=10", "it=20")
        for kind in ("a", "b")
    )
    colors = bar_picture._colors([Panel("p", {"g": bars[:3]})])
    assert list(colors) == [("it=10", "a"), ("it=10", "b"), ("it=20", "a")]
    assert len(set(colors.values())) == 3
    light, _, dark = colors.values()
    assert sum(bytes.fromhex(light[1:])) > sum(bytes.fromhex(dark[1:]))


# The command


def test_the_command_draws_what_is_measured(tmp_path: Path, capsys) -> None:
    main = load_script("report").main
    where = ["--outputs", str(tmp_path), "--results", str(tmp_path / "none")]
    assert main(["figure", "idspn/2", *where]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: figure idspn/2: nothing measured yet; --print draws the printed bars alone"
    )
    measure(tmp_path, "Baseline", 4, 2, 10, 1e-3)
    measure(tmp_path, "iDSPN", 4, 2, 10, 1e-3)
    assert main(["figure", "idspn/2", *where]) == 0
    path = tmp_path / "figures" / "idspn_2.png"
    assert capsys.readouterr().out == f"picture: {path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")
    other = tmp_path / "other.png"
    assert main(["figure", "idspn/1", "--print", "--to", str(other), *where]) == 0
    assert other.read_bytes().startswith(b"\x89PNG")
    assert main(["figure", "idspn/2", "--scale", "small", *where]) == 2
    capsys.readouterr()
    assert main(["figure", "thesis/3.6", "--print", *where]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: figure thesis/3.6: --print: ") and line.endswith("leave it out")
    for name, reason in (("a.doc", "no picture ends in .doc"), ("other.png/a.png", "cannot be")):
        assert main(["figure", "idspn/1", "--print", "--to", str(tmp_path / name), *where]) == 2
        assert reason in capsys.readouterr().err


def test_without_matplotlib_one_line_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert (
        load_script("report").main(
            ["figure", "idspn/1", "--print", "--to", str(tmp_path / "a.png")]
        )
        == 2
    )
    assert "Matplotlib is missing; pip install" in capsys.readouterr().err
