"""The page of results: a function of configs, print and records, and up to date."""

import random
from pathlib import Path

import pytest
from report_runs import write_run
from smoke_runs import script

from setexp.errors import ConfigError
from setexp.report.records import read_records
from setexp.report.results_page import BEGIN, END, insert, overview, results_page
from setexp.report.tables import load_tables

ROOT = Path(__file__).resolve().parents[1]
N8 = {"dataset.set_size": 8}


@pytest.fixture
def records(tmp_path):
    outputs = tmp_path / "outputs"
    for seed in range(3):
        write_run(outputs, "polygons_fspool", N8, seed, {"direct": 1e-6 * seed})
        write_run(outputs, "polygons_fspool", N8, seed, {"direct": 1e-3}, scale="small")
    write_run(outputs, "polygons_random", N8, 0, None)
    boxes = {"AP50": 0.9}
    write_run(outputs, "dspn_clevr_boxes_mlp", {}, 0, boxes, source="procedural")
    write_run(outputs, "dspn_clevr_boxes_mlp", {}, 1, boxes, source="real")
    for scale in ("paper", "small"):
        few = {"trainer.epochs": 3}
        write_run(outputs, "dspn_clevr_boxes_mlp", few, 0, boxes, source="real", scale=scale)
    return read_records(tmp_path / "results", outputs)


def section(page, table_id):
    return page.partition(f"## {table_id}:")[2].partition('<a id="')[0]


def test_the_page_is_a_function_of_the_records(records):
    tables = load_tables()
    page = results_page(tables, records)
    shuffled = random.Random(0).sample(records, len(records))
    assert results_page(tables, shuffled) == page
    assert results_page(load_tables(), records) == page


def test_every_table_has_a_section_with_its_command(records):
    page = results_page(load_tables(), records)
    for table in load_tables():
        assert f"`{table.command}" in section(page, table.id)
        assert f"(#{table.name})" in page
        assert f'<a id="{table.name}"></a>' in page
    assert "Not run yet." in section(page, "thesis/6.1")
    assert "Not run yet." not in section(page, "thesis/5.1")


def test_blocks_are_apart_and_the_full_protocol_is_first(records):
    text = section(results_page(load_tables(), records), "thesis/A.2")
    heads = [line for line in text.splitlines() if line.startswith("Scale ")]
    assert [head.partition(":")[0] for head in heads] == [
        "Scale paper, real data",
        "Scale paper, procedural data, a stand-in for the paper's",
        "Scale paper, real data, with trainer.epochs=3",
        "Scale small, real data, with trainer.epochs=3",
    ]
    assert "`python train.py -m table=thesis_A_2 trainer.epochs=3`" in heads[2]
    assert all("Runs done: 1 of 18." in head for head in heads)


def test_the_overview_counts_runs_and_cells(records):
    rows = {
        line.split("|")[1].strip(): line
        for line in overview(load_tables(), records).split("\n")[2:-1]
    }
    first = [cell.strip() for cell in rows["[thesis/5.1](#thesis_5_1)"].split("|")]
    assert first[3:6] == [
        "3 of 36, 1 diverged",
        "1 same, 1 diverged, 10 not run",
        "3 small synthetic",
    ]
    mended = [cell.strip() for cell in rows["[thesis/A.2](#thesis_A_2)"].split("|")]
    assert mended[3:6] == [
        "1 of 18",
        "1 within, 4 no such metric, 20 not run",  # (90 - 87.6) / 2.4 = 1
        "1 paper procedural, 1 reduced real, 1 small reduced real",
    ]
    assert rows["[thesis/6.1](#thesis_6_1)"].count("not run yet") == 1


def test_a_value_that_print_has_a_dash_for_is_counted_as_such(tmp_path):
    measured = {"accuracy_mean": 0.97, "epochs_to_0.98": 250}
    write_run(tmp_path, "clevr_questions_janossy", {}, 0, measured, source="real")
    (line,) = (
        line
        for line in overview(load_tables(), read_records(tmp_path / "none", tmp_path)).split("\n")
        if "[thesis/5.9]" in line
    )
    counted = [part.strip() for part in line.split("|")][4].split(", ")
    assert "1 not in print" in counted
    assert "1 within" in counted
    assert "5 quoted" in counted


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    run, file = write_run(tmp_path, "polygons_fspool", N8, 0, {"direct": 1.0}), tmp_path / "file"
    file.write_text("")
    page = ["page", "--results", str(tmp_path / "none"), "--page", f"{file}/page.md"]
    for arguments in (page, ["keep", str(run), "--results", f"{file}/results"]):
        assert script(monkeypatch, "report", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {arguments[-2]} {arguments[-1]}: cannot be written: ")
        assert line.endswith("; name another place")


def test_the_overview_goes_between_its_markers():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = insert(text, "| new |\n")
    assert once == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    assert insert(once, "| new |\n") == once
    assert insert("no markers", "| new |\n") == "no markers"
    for half in (BEGIN, END, f"{END} {BEGIN}"):
        with pytest.raises(ConfigError, match="needs <!-- tables:begin"):
            insert(half, "| new |\n")


def test_the_committed_page_and_readme_are_up_to_date():
    tables, records = load_tables(), read_records()
    remedy = "run: python scripts/report.py page"
    assert (ROOT / "docs" / "results.md").read_text() == results_page(tables, records), remedy
    readme = ROOT / "README.md"
    text = readme.read_text() if readme.exists() else ""
    assert insert(text, overview(tables, records, "docs/results.md")) == text, remedy
