"""Table configs against the printed tables, and the runs they expand to."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from setexp.errors import ConfigError
from setexp.overrides import axes as axes_of_overrides
from setexp.report.papers import PAPERS, Number, load_printed
from setexp.report.tables import TABLES, Run, load_table, load_tables, parse_table

RUNS = {
    "idspn/2": 21,  # 7 models x 3 sizes of the training split
    "idspn/3": 6,  # iDSPN at two resolutions, Slot Attention with three losses, Slot MLP
    "idspn/4": 45,
    "idspn/5": 225,  # 3 models x 5 set sizes x 3 numbers of inner steps x 5 dimensions
    "idspn/6": 150,  # 2 models
    "idspn/7": 6,  # three poolings, DSPN, another momentum for both
    "idspn/prose/relation-network": 2,  # with and without
    "sslr/1": 2,
    "sslr/2": 2,
    "sslr/3": 4,
    "thesis/3.1": 2,  # with and without the counting module
    "thesis/3.2": 3,
    "thesis/3.6": 160,  # 2 models x 4 sweeps x 21 points, of which 4 are in two sweeps
    "thesis/3.12": 21,
    "thesis/4.1": 36,  # 3 models x 3 data sets x 4 numbers of tiles
    "thesis/4.2": 36,
    "thesis/4.3": 60,  # and the classifier, and what it does with shuffled tiles
    "thesis/4.4": 60,
    "thesis/4.5": 3,  # without and with an LSTM, and an order for it
    "thesis/5.1": 12,  # 2 rows x 6 set sizes
    "thesis/5.2": 24,  # 4 rows x 6 set sizes
    "thesis/5.3": 24,
    "thesis/5.4": 24,  # 4 models x 6 levels of noise; Mean reads the runs of Max
    "thesis/5.5": 24,
    "thesis/5.6": 12,  # 4 poolings x 3 first weights; 1 and 10 epochs read one run
    "thesis/5.7": 12,
    "thesis/5.8": 24,  # those of both
    "thesis/5.9": 6,
    "thesis/5.10/bio": 8,  # 2 readouts x 4 sets of graphs
    "thesis/5.10/bio-epochs": 8,
    "thesis/5.10/bio-stats": 4,
    "thesis/5.10/social": 10,  # 5 sets
    "thesis/5.10/social-epochs": 10,
    "thesis/5.10/social-stats": 5,
    "thesis/6.1": 3,
    "thesis/6.2": 3,  # MLP, RNN, DSPN; 10, 20 and 30 steps read one run
    "thesis/6.3": 3,  # three poolings
    "thesis/6.4": 3,
    "thesis/6.5": 3,
    "thesis/A.1": 18,
    "thesis/A.2": 3,
    "thesis/A.3": 1,
    "thesis/A.4": 1,
    "thesis/prose/number-sorting": 8,  # set sizes
    "thesis/prose/po-vqa-gain": 3,  # those of Table 4.5
    "thesis/prose/proteins-selection": 1,
}
METRICS = {
    "idspn/2": {"set_accuracy"},
    "idspn/4": {"set_accuracy"},
    "idspn/5": {"hungarian"},
    "idspn/6": {"hungarian"},
    "thesis/3.6": {"accuracy"},
    "thesis/3.12": {"accuracy"},
    "thesis/5.1": {"direct"},
    "thesis/5.2": {"chamfer"},
    "thesis/5.3": {"hungarian"},
    "thesis/5.4": {"chamfer"},
    "thesis/5.5": {"chamfer"},
    "thesis/5.7": {"accuracy_ep1", "accuracy_ep10"},
    "thesis/5.8": {"accuracy"},
    "thesis/6.1": {"chamfer"},
}
POLYGONS = {"id": "x", "seeds": [0], "metric": "direct"}


def spec(rows, columns, **more):
    return POLYGONS | {"rows": rows, "columns": columns} | more


def test_every_table_expands_to_its_number_of_runs():
    assert {t.id: len(t.runs) for t in load_tables()} == RUNS
    assert [t.id for t in load_tables()] == list(RUNS), "in the order of documents and numbers"


@pytest.mark.parametrize("table", load_tables(), ids=lambda t: t.id)
def test_labels_seeds_and_configs_are_what_is_printed_and_there(table):
    printed = load_printed(table.id)
    swept = {column: sweep.label for sweep in table.sweeps for column in sweep.values}
    labels = {(row, swept.get(column, column)) for row, column in table.cells}
    assert labels == {(r, c) for r in printed.rows for c in printed.columns}
    assert len(table.seeds) == (printed.runs or 3)
    names = [run.name for run in table.runs]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) for name in names)
    for run in table.runs:
        assert (TABLES.parent / "experiment" / f"{run.experiment}.yaml").is_file()
        assert axes_of_overrides(run.overrides) == run.axes
    if table.id in METRICS:
        assert {cell.metric for cell in table.cells.values()} == METRICS[table.id]


def test_distinct_runs_of_all_tables():
    runs = {(run.experiment, *run.axes.items()) for t in load_tables() for run in t.runs}
    points = 48 + 24  # MNIST auto-encoded and classified
    thesis = 24 + points + 3 + 5 + 5 + 2  # polygons, DSPN's MNIST, boxes, state, loss on all steps
    # numbering: Table 4 reads all runs of Table 2; random multisets
    properties = 12
    permutations = 36 + 60 + 8  # mosaics told their order and not, number sorting
    counting = 160 + 2 + 3 + 21 - 2  # at l = 0.2, two are in two tables
    questions = 3 + 6  # BAN reads questions, too
    graphs, latent = 18, 2 + 2 + 4
    own = counting + permutations + questions + graphs + thesis + latent
    assert len(runs) == own + 45 + 375 + properties


def test_a_run_is_spelled_as_a_command():
    run = {r.name: r for r in load_table("thesis/5.1").runs}["fspool-n_8"]
    assert run.overrides == ["experiment=polygons_fspool", "dataset.set_size=8"]
    assert run.seeds == (0, 1, 2)
    (ours,) = load_table("thesis_A_3").runs
    assert ours.name == "ours"
    assert ours.overrides == ["experiment=dspn_clevr_boxes", "loss.steps=all"]


def test_tables_share_runs_and_read_other_metrics():
    first, fixed = load_table("thesis/6.2"), load_table("thesis/A.2")
    assert first.runs == fixed.runs
    assert first.cells["Ours (20 iters)", "AP95"].metric == "AP95_plus_one@20"
    assert fixed.cells["Ours (20 iters)", "AP80"].metric == "AP80@20"
    assert fixed.cells["MLP baseline", "AP80"].metric == "AP80"
    assert load_table("thesis/6.4").cells["Ours (30 iters)", "AP0.5"].metric == "AP0.5@30"


def test_a_row_is_read_by_the_definition_it_was_printed_with():
    cells = load_table("idspn/3").cells
    assert cells["iDSPN 128x128", "AP1"].metric == "AP1_first@40"
    assert cells["iDSPN 256x256", "APinf"].metric == "APinf_first@40"
    slots = [row for row, _ in cells if row.startswith("Slot")]
    assert {cells[row, "AP1"].metric for row in slots} == {"AP1"}


@pytest.mark.parametrize(
    "value", [8, 0.5, 1e-05, None, True, "all", "1", "true", "a b", "it's", "1,b=2", [1, 2]]
)
def test_overrides_mean_the_same_to_hydra(value):
    run = Run("r", "polygons_fspool", {"dataset.key": value}, (0,))
    assert axes_of_overrides(run.overrides) == {"dataset.key": value}


def test_quoted_rows_are_never_run_and_names_stay_distinct():
    rows = {"A": {"experiment": "a"}, "a": {"experiment": "b"}, "Q": {"quoted": True}}
    runs = parse_table(spec(rows, {"n": {"set": {"k": 1}}, "m": {"set": {"k": 2}}})).runs
    assert [r.experiment for r in runs] == ["a", "a", "b", "b"]
    assert [r.name for r in runs] == ["a-n", "a-m", "a-n.2", "a-m.2"]
    assert parse_table(spec({"Q": {"quoted": True}}, {"n": {}})).runs == ()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (spec({"A": {"experiment": "a", "exp": 1}}, {"n": {}}), "rows.A: unknown field 'exp'"),
        (spec({"A": {}}, {"n": {}}), "(A, n): no experiment"),
        (spec({"A": {"experiment": "a"}}, {"n": {}}, metric=None), "(A, n): no metric"),
        (spec({"A": {"experiment": "a"}}, {"n": {"experiment": "b"}}), "both set experiment"),
        (
            spec({"A": {"experiment": "a", "set": {"k": 1}}}, {"n": {"set": {"k": 2}}}),
            "both set k",
        ),
        (spec({}, {}, seeds=[1, 1]), "seeds=[1, 1]"),
        ({"id": "x"}, "columns is missing"),
    ],
)
def test_a_wrong_table_is_refused_with_the_cell_named(config, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_table(config)


def test_a_gain_reads_two_runs():
    rows = {"A": {"experiment": "a", "minus": "b", "set": {"k": 1}}, "B": {"experiment": "b"}}
    table = parse_table(spec(rows, {"n": {}}))
    assert table.cells["A", "n"].experiments == ("a", "b")
    assert table.cells["B", "n"].experiments == ("b",)
    assert [(r.name, r.experiment, r.axes) for r in table.runs] == [
        ("a", "a", {"k": 1}), ("a-minus", "b", {"k": 1}), ("b", "b", {}),
    ]  # fmt: skip


def test_gains_over_two_others_read_the_runs_of_their_table():
    table = load_table("thesis/prose/po-vqa-gain")
    assert {cell.experiments for cell in table.cells.values()} == {
        ("ban_po_u", "ban"), ("ban_po_u", "ban_lstm"),
    }  # fmt: skip
    read = {(run.experiment, run.seeds) for run in table.runs}
    assert read == {(run.experiment, run.seeds) for run in load_table("thesis/4.5").runs}


def test_unknown_tables_are_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"thesis_9_9\.yaml; there are .*thesis_5_1"):
        load_table("thesis/9.9")
    with pytest.raises(ConfigError, match="there are thesis/3.1"):
        load_printed("thesis/9.9")
    with pytest.raises(ConfigError, match="no document 'novel'"):
        load_printed("novel/1")


def test_printed_numbers_keep_their_decimals():
    polygons = load_printed("thesis/5.1")
    assert [polygons.number("FSPool", c).decimals for c in ("n=2", "n=64")] == [3, 4]
    assert str(polygons.number("FSPool", "n=2")) == "0.000"
    assert polygons.columns["n=2"].scale == 0.01
    boxes = load_printed("thesis/6.2")
    assert str(boxes.number("MLP baseline", "AP95")) == "57.9 ± 7.9"
    assert (boxes.columns["AP95"].scale, boxes.columns["AP95"].direction) == (0.01, "higher")
    assert load_printed("thesis/6.1").columns["Loss"].scale == 0.001
    assert load_printed("thesis/prose/number-sorting").columns["[0, 1]"].exact
    assert not boxes.columns["AP95"].exact


def test_printed_numbers_keep_their_notation():
    number = load_printed("idspn/5").number("iDSPN+mom n=2 it=10", "d=2")
    assert (str(number), number.decimals) == ("6.0e-5 ± 4.0e-5", 6)
    assert number.finer(0.0000123456) == "1.23e-5"
    assert number.finer(12.3456) == "1.23e+1"
    plain = load_printed("thesis/6.2").number("MLP baseline", "AP95")
    assert plain.finer(12.3456) == "12.35"


def test_notes_of_rows_follow_the_tables_own():
    note = load_printed("idspn/3").note
    assert "all images do. Slot MLP: from Locatello et al. (2020). DSPN: from" in note
    assert load_printed("idspn/2").note == ""


def test_notes_of_cells_and_fewer_runs_follow_those_of_rows():
    assert "RN, Epochs to 99.00%: * average over only 8 runs" in load_printed("thesis/5.9").note
    note = load_printed("idspn/5").note
    assert "Baseline n=4 it=40, d=32: 7 runs." in note
    assert "Baseline n=2 it=40, d=32: 2 runs; std printed as nan;" in note


@pytest.mark.parametrize("table", load_tables(), ids=lambda t: t.id)
def test_notes_do_not_speak_of_the_fields_of_a_file(table):
    note = load_printed(table.id).note
    assert not re.search(r"\bnull\b|n_runs|\bwith runs\b", note)


def test_every_printed_table_of_every_document_loads():
    cells = 0
    for path in PAPERS.glob("*.yaml"):
        for table_id in yaml.safe_load(path.read_text())["tables"]:
            printed = load_printed(table_id)
            for row in printed.rows.values():
                assert set(row) <= set(printed.columns)
                cells += sum(isinstance(number, Number) for number in row.values())
    assert cells == 1756


def test_reports_need_neither_torch_nor_hydra():
    modules = ", ".join(f"setexp.report.{m}" for m in ("bar_picture", "progress", "results_page"))
    heavy = {"torch", "hydra", "omegaconf", "matplotlib"}
    code = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True).stdout == "set()\n"
