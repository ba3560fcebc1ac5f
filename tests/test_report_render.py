"""Rendering of hand-made records; numbers worked out by hand."""

import re
from decimal import Decimal
from pathlib import Path

import pytest
from report_runs import write_run
from smoke_runs import load_script

from setexp.report.blocks import Measured, blocks
from setexp.report.compare import compare, ours, seeds
from setexp.report.papers import Column, Number, load_printed
from setexp.report.records import read_record, read_records
from setexp.report.render import WIDTH, Grid, beside, grid, table_text
from setexp.report.tables import load_table, load_tables

N16 = {"dataset.set_size": 16}
PERCENT = Column("%", "higher", 0.01)
HUNDREDTHS = Column("hundredths", "lower", 0.01)
COUNT = Column("count", "none", 1.0)
ALL = Column("%", "higher", 0.01, exact=True)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


def text_of(table_id, outputs):
    table, records = load_table(table_id), read_records(outputs.parent / "none", outputs)
    return table_text(table, load_printed(table_id), blocks(table, records, load_tables()))


def lines_of(table_id, outputs, row, column):
    """What stands under a column from a row's label on: one cell's lines by their kind."""
    table, printed = load_table(table_id), load_printed(table_id)
    found = blocks(table, read_records(outputs.parent / "none", outputs), load_tables())
    shown = grid(table, printed, found[0])
    at, cell = shown.headers.index(column), {}
    start = next(i for i, line in enumerate(shown.lines) if line[0] == row)
    for line in shown.lines[start:]:
        if line[0] not in (row, ""):
            break
        cell[line[1]] = line[at]
    return cell


def test_mean_deviation_and_ratio_by_hand(outputs):
    for seed, value in enumerate((0.0036, 0.0037, 0.0038)):
        write_run(outputs, "polygons_random", N16, seed, {"hungarian": value})
    assert lines_of("thesis/5.3", outputs, "Random", "n=16") == {
        "paper": "0.635",
        "ours": "0.3700 ± 0.0100",  # in hundredths
        "compared": "x0.5827 better",  # 0.370 / 0.635
        "seeds": "3 of 3",
    }


def test_deviation_in_printed_standard_deviations_by_hand(outputs):
    for seed, value in enumerate((0.03, 0.04, 0.05)):
        metrics = {"APinf": value, "AP1": value - 0.009, "AP0.5": value - 0.039, "AP0.125": 0.0}
        write_run(outputs, "dspn_clevr_state_mlp", {}, seed, metrics, source="real")
    cells = {
        name: lines_of("thesis/6.4", outputs, "MLP baseline", name)
        for name in ("APinf", "AP1", "AP0.5", "AP0.25", "AP0.125")
    }
    assert cells["APinf"]["ours"] == "4.00 ± 1.00"
    assert [cells[name]["compared"] for name in cells] == [
        "+0.8 sd within",  # (4.0 - 3.6) / 0.5
        "+4.0 sd better",  # (3.1 - 1.5) / 0.4
        "-2.3 sd within",  # (0.1 - 0.8) / 0.3
        "",
        "same",  # 0.0 ± 0.0 is printed
    ]
    assert cells["AP0.25"]["ours"] == "no such metric"
    assert cells["AP0.25"]["seeds"] == "0 of 6, 3 lacking"
    assert cells["APinf"]["seeds"] == "3 of 6"


def test_a_milestone_may_not_be_reached_and_hours_on_other_hardware_are_not_judged(outputs):
    metrics = {"accuracy_mean": 0.9927, "epochs_to_0.98": 141}
    write_run(outputs, "clevr_questions_fspool", {}, 0, metrics, source="real")
    columns = ("Epochs to 98.00%", "Epochs to 99.00%", "Time for 350 epochs")
    first, last, hours = (lines_of("thesis/5.9", outputs, "FSPool", c) for c in columns)
    assert (first["ours"], first["compared"]) == ("141.0", "+0.0 sd within")
    assert (last["ours"], last["seeds"]) == ("not reached", "0 of 10, 1 lacking")
    assert hours["compared"] == "x0.0003946 other hardware"  # 12.5 seconds of 8.8 hours


def test_one_run_is_read_at_several_inner_steps(outputs):
    metrics = {"AP50@10": 0.9, "AP50@20": 0.95, "AP50_plus_one@10": 0.99}
    write_run(outputs, "dspn_clevr_boxes", {}, 0, metrics, source="real")
    read = [lines_of("thesis/A.2", outputs, f"Ours ({k} iters)", "AP50")["ours"] for k in (10, 20)]
    assert read == ["90.00", "95.00"]
    assert lines_of("thesis/6.2", outputs, "Ours (10 iters)", "AP50")["ours"] == "99.00"


def test_a_gain_is_a_difference_of_the_same_seeds(outputs):
    wanted, metric = "idspn/prose/relation-network", "AP0.125_first@40"
    for seed, values in enumerate(((0.80, 0.76), (0.83, 0.80), (0.9, None))):
        for experiment, value in zip(("clevr_idspn_relation", "clevr_idspn"), values, strict=True):
            metrics = None if value is None else {metric: value}
            write_run(outputs, experiment, {}, seed, metrics, source="real")
    assert lines_of(wanted, outputs, "iDSPN with relation network", "AP0.125 gain") == {
        "paper": "3.5",
        "ours": "3.50 ± 0.71",  # of 4 and 3 percentage points
        "compared": "same",
        "seeds": "2 of 3, 1 diverged",
    }


def test_diverged_seeds_are_shown(outputs):
    write_run(outputs, "polygons_random", N16, 0, {"direct": 0.99951})
    write_run(outputs, "polygons_random", N16, 1, None)
    write_run(outputs, "polygons_fspool", N16, 0, None)
    cell = lines_of("thesis/5.1", outputs, "Random", "n=16")
    assert (cell["ours"], cell["seeds"]) == ("99.9510", "1 of 3, 1 diverged")
    assert cell["compared"] == "same"
    cell = lines_of("thesis/5.1", outputs, "FSPool", "n=16")
    assert (cell["ours"], cell["seeds"]) == ("diverged", "0 of 3, 1 diverged")
    assert "Runs done: 1 of 36, 2 diverged." in text_of("thesis/5.1", outputs)


def test_a_paused_run_fills_the_cells_it_has_reached(outputs):
    name = "mnist_classify_max"
    write_run(outputs, name, {}, 0, {"accuracy_ep1": 0.6}, source="real", paused=True)
    both = {"accuracy_ep1": 0.8, "accuracy_ep10": 0.9, "accuracy": 0.95}
    write_run(outputs, name, {}, 1, both, source="real")
    (block,) = blocks(load_table("thesis/5.7"), read_records(outputs, outputs), load_tables())
    read = {c: block.measured(cell) for (r, c), cell in block.table.cells.items() if r == "Max"}
    assert read["1ep random init"] == Measured((0.6, 0.8), diverged=0, lacking=0, wanted=6)
    assert read["10ep random init"] == Measured((0.9,), diverged=0, lacking=0, wanted=6)
    assert block.tally == "1 of 72, 1 paused"


def test_a_mean_is_over_the_seeds_that_ended_well_and_their_number_is_shown(outputs):
    axes = {"dataset.element_dim": 2, "dataset.set_size": 32, "decoder.steps": 20}
    for seed, value in enumerate((0.02, None, 1e30, 0.04, None)):
        metrics = None if value is None else {"hungarian": value}
        write_run(outputs, "multisets_idspn_sum", axes, seed, metrics)
    cell = lines_of("idspn/6", outputs, "iDSPN+mom+Sum n=32 it=20", "d=2")
    assert cell["ours"] == "3.33e+29 ± 5.77e+29"  # huge, but finite: shown as it is
    assert cell["seeds"] == "3 of 8, 2 diverged"
    write_run(outputs, "multisets_idspn_sum", axes, 2, None)
    cell = lines_of("idspn/6", outputs, "iDSPN+mom+Sum n=32 it=20", "d=2")
    assert (cell["ours"], cell["seeds"]) == ("3.00e-2 ± 1.41e-2", "2 of 8, 3 diverged")
    assert lines_of("idspn/6", outputs, "iDSPN+mom+Sum n=32 it=20", "d=4")["ours"] == "not run"
    assert "Runs done: 2 of 1200, 3 diverged." in text_of("idspn/6", outputs)


def test_rows_that_are_not_run_take_one_line(outputs):
    write_run(outputs, "dspn_mnist", {}, 0, {"chamfer": 1e-4}, source="real")
    lines = text_of("thesis/6.1", outputs).splitlines()
    assert [line.split("  ")[0] for line in lines if " paper " in line] == [
        "MLP baseline", "RNN baseline", "Ours",
    ]  # fmt: skip
    assert sum(line.strip().startswith("ours  ") for line in lines) == 1
    assert "rows without it are not run" in " ".join(lines)


def test_a_stand_in_is_named_and_gets_no_verdict(outputs):
    write_run(outputs, "dspn_clevr_boxes_mlp", {}, 0, {"AP50": 0.5}, source="procedural")
    text = text_of("thesis/A.2", outputs)
    assert "Scale paper, procedural data, a stand-in for the paper's: not the printed" in text
    assert lines_of("thesis/A.2", outputs, "MLP baseline", "AP50")["compared"] == "-15.7 sd"


def test_what_is_not_run_says_so(outputs):
    text = text_of("thesis/6.1", outputs)
    assert "Not run yet. Command: `python train.py -m table=thesis_6_1`" in text
    assert re.search(r"Ours +paper +0\.09 ± 0\.01\n", text)
    assert " ours " not in text
    write_run(outputs, "dspn_mnist", {}, 0, {"chamfer": 1e-4}, source="real", dirty=True)
    text = text_of("thesis/6.1", outputs)
    assert re.search(r"Ours +paper +0\.09 ± 0\.01\n +ours +0\.100\n +compared +\+1\.0 sd", text)
    assert re.search(r"RNN baseline +paper +0\.49 ± 0\.19\nOurs ", text)
    assert "Commit 01234567+. Machine: Some GPU (Linux, 2 cores)." in text


@pytest.mark.parametrize("table", load_tables(), ids=lambda t: t.id)
def test_tables_fit_a_terminal_and_markdown_is_rectangular(table, outputs):
    printed = load_printed(table.id)
    for run in table.runs:
        metrics = {c.metric: 0.98765 for c in table.cells.values()}
        for seed in table.seeds[:-1]:
            write_run(outputs, run.experiment, run.axes, seed, metrics, source="real")
        write_run(outputs, run.experiment, run.axes, table.seeds[-1], None, source="real")
    text = text_of(table.id, outputs)
    assert max(map(len, text.splitlines())) <= WIDTH
    (block,) = blocks(table, read_records(outputs.parent / "none", outputs), load_tables())
    lines = grid(table, printed, block).markdown().splitlines()
    if table.sweeps:  # nothing is printed: a column for each curve, a line for each value
        assert {line.count("|") for line in lines} == {len(printed.columns) * len(printed.rows) + 2}
        return
    assert {line.count("|") for line in lines} == {len(printed.columns) + 3}
    assert sum(" paper " in line for line in lines) == len(printed.rows)


def test_columns_that_do_not_fit_follow_below():
    wide = Grid(["", "a", "b", "c"], [["row", "1" * 9, "2" * 9, "3" * 9]], 1)
    first, second = wide.text(26).split("\n\n")
    assert first.splitlines()[1] == "row  111111111  222222222"
    assert second.splitlines() == ["     c", "row  333333333"]
    assert Grid(["a|b"], [["c"]], 1).markdown() == "| a\\|b |\n| --- |\n| c |"


@pytest.mark.parametrize(
    ("printed", "column", "value", "expected"),
    [
        (Number(Decimal("5.0"), Decimal("0.5")), PERCENT, 0.065, ("+3.0 sd", "within")),
        (Number(Decimal("5.0"), Decimal("0.5")), PERCENT, 0.034, ("-3.2 sd", "worse")),
        (Number(Decimal("5.0"), Decimal("0.5")), HUNDREDTHS, 0.034, ("-3.2 sd", "better")),
        (Number(Decimal("5.0"), Decimal("0.0")), PERCENT, 0.06, ("x1.2", "better")),
        (Number(Decimal("99.8"), Decimal("0.0")), PERCENT, 0.996, ("x0.998", "worse")),
        (Number(Decimal("5.00")), PERCENT, 0.0501, ("", "same")),
        (Number(Decimal("5.00")), PERCENT, 0.0502, ("", "same")),
        (Number(Decimal("5.00")), PERCENT, 0.0503, ("x1.006", "better")),
        (Number(Decimal("5.00")), HUNDREDTHS, 0.10, ("x2", "worse")),
        (Number(Decimal("0.000")), HUNDREDTHS, 4e-6, ("", "same")),
        (Number(Decimal("0.000")), HUNDREDTHS, 6e-6, ("", "worse")),
        (Number(Decimal("100")), COUNT, 150.0, ("x1.5", "other")),
        (Number(Decimal("4110")), COUNT, 4111.0, ("x1", "other")),
        (Number(Decimal("4110")), COUNT, 4110.0, ("", "same")),
        (Number(Decimal("25.5")), COUNT, 25.56, ("", "same")),
        (Number(Decimal("100")), PERCENT, 0.998, ("", "same")),
        (Number(Decimal("100")), ALL, 0.998, ("x0.998", "worse")),
        (Number(Decimal("100")), ALL, 1.0, ("", "same")),
        (Number(Decimal("5.0")), PERCENT, float("nan"), ("not finite", "worse")),
        (None, PERCENT, 0.5, ("", "")),
    ],
)
def test_verdicts(printed, column, value, expected):
    assert compare(printed, column, [value]) == expected


def test_numbers_that_would_not_fit_or_are_not_finite():
    one = Number(Decimal("1.0"))
    assert ours(Measured((3.21e9, 3.21e9), 0, 0, 2), COUNT, one) == "3.21e+09 ± 0.00"
    assert ours(Measured((float("nan"), 1.0), 0, 0, 2), COUNT, one) == "nan ± nan"
    assert ours(Measured((), 0, 0, 2), COUNT, one) == "not run"
    assert ours(Measured((12.3456, 12.3456), 0, 0, 2), COUNT, None) == "12.3 ± 0"
    small = Number(Decimal("6.0e-5"), exponent=True)
    assert ours(Measured((1.234e-5, 1.234e9), 0, 0, 2), COUNT, small) == "6.17e+08 ± 8.73e+08"
    assert ours(Measured((1e-5, 2e-5, 3e-5), 0, 0, 2), COUNT, small) == "2.00e-5 ± 1.00e-5"
    assert seeds(Measured((), 0, 0, 2)) == ""


def test_runs_side_by_side(outputs):
    one = write_run(outputs, "polygons_fspool", N16, 0, {"direct": 1.25e-6, "chamfer": 0.5})
    two = write_run(outputs, "polygons_random", {}, 1, {"direct": 1.0}, scale="small", dirty=True)
    records = [read_record(folder / "result.json") for folder in (one, two)]
    rows = [re.split(r" {2,}", line) for line in beside(records).splitlines()]
    assert rows[0] == ["", "polygons_fspool", "polygons_random"]
    cells = {row[0]: row[1:] for row in rows[1:]}
    assert cells["axes"] == ["dataset.set_size=16", "-"]
    assert cells["scale"] == ["paper", "small"]
    assert cells["commit"] == ["01234567", "01234567+"]
    assert cells["direct"] == ["1.25e-06", "1"]
    assert cells["chamfer"] == ["0.5", "-"]


def test_the_command_line(outputs, capsys):
    script = load_script("report")
    folder = write_run(outputs, "polygons_fspool", N16, 0, {"direct": 1e-6}, dirty=True)
    where = ["--outputs", str(outputs), "--results", str(outputs.parent / "results")]
    assert script.main(["table", "thesis/5.1", *where]) == 0
    assert "Runs done: 1 of 36" in capsys.readouterr().out
    assert script.main(["keep", str(folder), *where]) == 0
    assert "(from changed files, commit 01234567+)" in capsys.readouterr().out
    assert script.main(["status", "thesis/5.1", *where]) == 0
    assert "done: 0; missing: 1,2" in capsys.readouterr().out
    here = ["--rows", "Random", "--columns", "n=[24]"]
    assert script.main(["table", "thesis/5.1", *here, *where]) == 0
    assert not re.search(r"^FSPool +paper", capsys.readouterr().out, re.MULTILINE)
    assert script.main(["status", "thesis/5.1", *here, *where]) == 0
    assert "nothing yet" in capsys.readouterr().out
    assert script.main(["table", "thesis/5.1", "--rows", "Rnd", *where]) == 2
    assert "rows=Rnd: 'Rnd' matches no label" in capsys.readouterr().err
    assert script.main(["beside", str(folder), str(folder / "result.json")]) == 0
    assert "1e-06  " in capsys.readouterr().out
    page = outputs.parent / "results.md"
    readme = outputs.parent / "README.md"
    readme.write_text("# A\n<!-- tables:begin -->\nold\n<!-- tables:end -->\n")
    assert script.main(["page", "--page", str(page), "--readme", str(readme), *where]) == 0
    assert "thesis/5.1" in page.read_text()
    assert "(docs/results.md#thesis_5_1)" in readme.read_text()
    capsys.readouterr()
    assert script.main(["table", "thesis/9.9", *where]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (folder / "result.json").write_text("{")
    assert script.main(["table", "thesis/5.1", *where]) == 0  # as kept
    said = capsys.readouterr()
    assert "Runs done: 1 of 36" in said.out
    assert said.err.startswith(f"warning: left out: {folder / 'result.json'}: not JSON")
    (kept,) = (outputs.parent / "results").rglob("*.json")
    kept.write_text("{")
    assert script.main(["page", "--page", str(page), "--readme", str(readme), *where]) == 2
    assert script.main(["keep", str(folder), *where]) == 2
    with pytest.raises(SystemExit):
        script.main(["beside", "--help"])
    assert "folder of kept records; default" in " ".join(capsys.readouterr().out.split())


def test_a_one_shot_decoder_stands_beside_every_number_of_inner_steps(outputs):
    one = write_run(outputs, "dspn_clevr_state", {}, 0, {"APinf@10": 0.5, "APinf@20": 0.75})
    two = write_run(outputs, "dspn_clevr_state_mlp", {}, 0, {"APinf": 0.25, "loss": 1.0})
    records = [read_record(folder / "result.json") for folder in (one, two)]
    rows = [re.split(r" {2,}", line) for line in beside(records).splitlines()]
    cells = {row[0]: row[1:] for row in rows[1:]}
    assert cells["APinf@10"] == ["0.5", "0.25"]
    assert cells["APinf@20"] == ["0.75", "0.25"]
    assert cells["loss"] == ["-", "1"]
    assert "APinf" not in cells
