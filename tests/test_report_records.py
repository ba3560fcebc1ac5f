"""Which records fill which cells, what is kept, and what is still running."""

import json
import re
import shlex
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import write_run

from setexp.errors import ConfigError
from setexp.files import read_json, write_json
from setexp.overrides import axes
from setexp.report.blocks import Measured, blocks
from setexp.report.papers import load_printed
from setexp.report.progress import progress
from setexp.report.records import keep, read_record, read_records, slug
from setexp.report.render import description
from setexp.report.tables import load_table, load_tables, parse_table

N8 = {"dataset.set_size": 8}
SCALARS = st.none() | st.booleans() | st.integers(-9, 99) | st.text("ab /=,.1", max_size=6)
AXES = st.dictionaries(st.sampled_from(["a.b", "a.c", "loss.steps"]), SCALARS)


def found(table_id, outputs):
    records = read_records(outputs.parent / "results", outputs)
    return blocks(load_table(table_id), records, load_tables())


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


def test_a_record_fills_the_cell_with_its_axes_and_no_other(outputs):
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 0.5})
    write_run(outputs, "polygons_fspool", {"dataset.set_size": 128}, 0, {"direct": 0.1})
    (block,) = found("thesis/5.1", outputs)
    filled = {k: block.measured(c).values for k, c in block.table.cells.items()}
    assert {k for k, v in filled.items() if v} == {("FSPool", "n=8")}
    assert filled["FSPool", "n=8"] == (0.5,)


@pytest.mark.parametrize(
    ("variant", "full"),
    [({"source": "procedural"}, False), ({"source": "real"}, True), ({"scale": "small"}, False)],
)
def test_sources_and_scales_never_mix(outputs, variant, full):
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    write_run(outputs, "polygons_fspool", N8, 1, {"direct": 2.0}, **variant)
    several = found("thesis/5.1", outputs)
    cell = several[0].table.cells["FSPool", "n=8"]
    assert sorted(b.measured(cell).values for b in several) == [(1.0,), (2.0,)]
    for block in several:
        assert len({(r.scale, r.source) for r in block.records}) == 1
    assert sorted(b.full for b in several) == [full, True]


COPY, ORIGINAL = (
    "mosaics-1 cifar10 2 per side JPEG copy 905c",
    "mosaics-1 cifar10 2 per side cifar10 ab12",
)
CIFAR = {"dataset": "mosaics_cifar10", "dataset.tiles": 2}


def test_a_copy_of_real_data_stands_apart_and_is_not_the_printed_protocol(outputs):
    write_run(outputs, "mosaics_po_u", {"dataset.tiles": 2}, 0, {"mse": 0.1}, source="real")
    for seed, data in enumerate((COPY, ORIGINAL)):
        write_run(outputs, "mosaics_po_u", CIFAR, seed, {"mse": seed}, source="real", data=data)
    own, copied = found("thesis/4.1", outputs)
    assert (own.copy, own.full, copied.copy, copied.full) == ("", True, "JPEG copy 905c", False)
    assert [r.data for r in own.records] == ["", ORIGINAL]
    assert [r.data for r in copied.records] == [COPY]
    text = " ".join(description(copied, load_printed("thesis/4.1")))
    assert (
        f"real data, JPEG copy 905c: not the printed protocol. Runs done: 1 of 108. Data: {COPY}."
        in text
    )
    assert f"Data: {ORIGINAL}; not noted by 1 runs." in " ".join(
        description(own, load_printed("thesis/4.1"))
    )


def test_seeds_of_a_run_that_had_other_data_stand_apart_and_unknown_data_is_no_third_kind(outputs):
    axes = {"dataset.name": "MUTAG"}
    for seed, data in enumerate((None, "tu-3 MUTAG aa", "tu-3 MUTAG bb", None, "tu-3 MUTAG aa")):
        write_run(outputs, "graphs_bio", axes, seed, {"accuracy": 0.8}, source="real", data=data)
    ptc = {"dataset.name": "PTC_MR"}
    write_run(
        outputs, "graphs_bio", ptc, 0, {"accuracy": 0.6}, source="real", data="tu-3 PTC_MR cc"
    )
    first, second = found("thesis/5.10/bio", outputs)
    assert [(r.seed, r.axes) for r in first.records] == [(s, axes) for s in (0, 1, 3, 4)] + [
        (0, ptc)
    ]
    assert [r.seed for r in second.records] == [2]


def test_a_reduced_run_stands_apart_under_its_extra_axes(outputs):
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    write_run(outputs, "polygons_fspool", N8 | {"trainer.epochs": 3}, 0, {"direct": 2.0})
    full, reduced = found("thesis/5.1", outputs)
    cell = full.table.cells["FSPool", "n=8"]
    assert (full.extra, full.full, full.measured(cell).values) == ({}, True, (1.0,))
    assert (reduced.extra, reduced.full) == ({"trainer.epochs": 3}, False)
    assert reduced.measured(cell).values == (2.0,)


def test_a_blocks_command_survives_a_shell(outputs):
    own = {"pretrained.column": "sigma=0.00", "trainer.report_at": [1, 10]}
    write_run(outputs, "polygons_fspool", N8 | own, 0, {"direct": 2.0})
    (block,) = found("thesis/5.1", outputs)
    _, _, _, table, *overrides = shlex.split(block.command)
    assert table == "table=thesis_5_1"
    assert axes(overrides) == own


def test_a_record_belongs_to_the_run_that_shares_most_axes(outputs):
    every = {"loss.steps": "all"}
    write_run(outputs, "dspn_clevr_boxes", every, 0, {"AP50@10": 0.9})
    write_run(outputs, "dspn_clevr_boxes", every | {"trainer.epochs": 3}, 0, {"AP50@10": 0.8})
    assert [b.extra for b in found("thesis/A.3", outputs)] == [{}, {"trainer.epochs": 3}]
    assert found("thesis/6.2", outputs) == []
    assert found("thesis/A.2", outputs) == []


def test_diverged_and_lacking_seeds_are_counted_and_others_left_out(outputs):
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    write_run(outputs, "polygons_fspool", N8, 1, None)
    write_run(outputs, "polygons_fspool", N8, 2, {"chamfer": 1.0})
    write_run(outputs, "polygons_fspool", N8, 7, {"direct": 9.0})
    (block,) = found("thesis/5.1", outputs)
    assert block.measured(block.table.cells["FSPool", "n=8"]) == Measured((1.0,), 1, 1, 3)
    assert [r.seed for r in block.counted] == [0, 1, 2]
    assert [r.seed for r in block.records] == [0, 1, 2, 7]


def test_of_a_run_that_is_kept_and_repeated_the_later_counts(outputs):
    results = outputs.parent / "results"
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0}, finished="2026-01-02")
    keep([folder], results)
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 2.0}, finished="2026-01-03")
    assert [r.metrics["direct"] for r in read_records(results, outputs)] == [2.0]
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 3.0}, finished="2026-01-01")
    assert [r.metrics["direct"] for r in read_records(results, outputs)] == [1.0]
    assert [r.metrics["direct"] for r in read_records(results)] == [1.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a result record, 'experiment' is missing"),
        ("{}", "not a result record, 'experiment' is missing"),
        ('{"experiment": "a"}', "'axes' is missing"),
        ('{"experiment": "a", "axes": []}', "'axes' is of another type"),
    ],
)
def test_a_broken_record_is_named(tmp_path, text, said):
    path = tmp_path / "a" / "default" / "paper-real-seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        read_records(tmp_path)
    assert str(path) in str(error.value)


def test_a_broken_record_is_left_out_where_somebody_is_warned(outputs):
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    broken = write_run(outputs, "polygons_fspool", N8, 1, {"direct": 1.0}) / "result.json"
    broken.write_text("{")
    said: list[str] = []
    found = read_records(outputs / "none", outputs, warn=said.append)
    assert [record.seed for record in found] == [0]
    (warning,) = said
    assert warning.startswith(f"{broken}: not JSON")


def test_keep_copies_to_the_committed_place(outputs):
    results = outputs.parent / "results"
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0}, dirty=True)
    write_run(outputs, "polygons_fspool", N8, 1, None)
    kept = keep([outputs / "polygons_fspool"], results)
    place = results / "polygons_fspool" / "dataset.set_size=8"
    assert [path for _, path in kept] == [place / f"paper-synthetic-seed{k}.json" for k in (0, 1)]
    assert sorted(p.name for p in place.iterdir()) == [path.name for _, path in kept]
    assert json.loads(kept[0][1].read_text()) == json.loads((folder / "result.json").read_text())
    assert [record.status for record, _ in kept] == ["done", "diverged"]
    assert [record.commit for record, _ in kept] == ["01234567+", "01234567"]
    assert keep([folder], results)[0][1] == kept[0][1], "again: nothing to do"


def test_keep_writes_all_or_nothing(outputs):
    results = outputs.parent / "results"
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    running = outputs / "polygons_fspool" / slug(N8) / "paper-synthetic" / "seed-1"
    running.mkdir()
    (running / "status.json").write_text('{"status": "running"}')
    with pytest.raises(ConfigError, match=r"seed-1: not finished \(status running\)"):
        keep([outputs], results)
    assert not results.exists()
    with pytest.raises(ConfigError, match="no run here"):
        keep([outputs.parent / "elsewhere"], results)


def test_keep_does_not_silently_replace_another_result(outputs):
    results = outputs.parent / "results"
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    ((_, path),) = keep([folder], results)
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 2.0})
    with pytest.raises(ConfigError, match="--replace"):
        keep([folder], results)
    assert read_record(path).metrics["direct"] == 1.0
    keep([folder], results, replace=True)
    assert read_record(path).metrics["direct"] == 2.0


def test_keep_does_not_choose_between_two_results_of_one_run(tmp_path):
    results, outputs = tmp_path / "results", [tmp_path / "one", tmp_path / "two"]
    for folder, value in zip(outputs, (1.0, 2.0), strict=True):
        write_run(folder, "polygons_fspool", N8, 0, {"direct": value})
    for replace in (False, True):
        with pytest.raises(ConfigError, match=r"one/.*two/.* hold different results of one run"):
            keep(outputs, results, replace=replace)
    assert not results.exists()
    assert len(keep([outputs[0], outputs[0]], results)) == 1


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", '{"status": "done"}'])
def test_a_kept_record_that_is_broken_is_one_line(outputs, text):
    results = outputs.parent / "results"
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    ((_, path),) = keep([folder], results)
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: not ")):
        keep([folder], results)
    shutil.rmtree(outputs)
    others = progress(load_table("thesis/5.1"), outputs, results, "paper")
    assert f"broken ({path}: not " in others and "missing: 1,2" in others
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    assert keep([folder], results, replace=True)[0][1] == path
    assert read_record(path).metrics["direct"] == 1.0


def test_the_time_of_a_finished_run_is_read_like_a_metric(outputs):
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    assert read_record(folder / "result.json").metrics == {"direct": 1.0, "seconds": 12.5}
    content = read_json(folder / "result.json") | {"status": "paused"}
    write_json(folder / "result.json", content)
    assert "seconds" not in read_record(folder / "result.json").metrics


def test_progress_tells_the_states_of_seeds(outputs):
    results = outputs.parent / "results"
    write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0})
    keep([outputs], results)
    write_run(outputs, "polygons_random", N8, 1, None)
    folder = outputs / "polygons_fspool" / slug(N8) / "paper-synthetic" / "seed-1"
    folder.mkdir()
    state = {"status": "interrupted", "step": 30, "steps": 100}
    (folder / "status.json").write_text(json.dumps(state))
    (folder.parent / "seed-2").mkdir()
    state = {"status": "failed", "step": 3, "steps": 100, "why": "out of memory\nmore"}
    (folder.parent / "seed-2/status.json").write_text(json.dumps(state))
    lines = progress(load_table("thesis/5.1"), outputs, results, "paper").splitlines()
    assert lines[0] == "thesis/5.1, scale paper, synthetic data: 1 of 36 done"
    failed = "failed at step 3 of 100 (out of memory): 2"
    assert f"  fspool-n_8   done: 0; interrupted at step 30 of 100: 1; {failed}" in lines
    assert "  random-n_8   missing: 0,2; diverged: 1" in lines
    missing = [f"fspool-n_{n}" for n in (2, 4, 16, 32, 64)]
    missing += [f"random-n_{n}" for n in (2, 4, 16, 32, 64)]
    assert "  missing altogether: " + ", ".join(missing) in lines
    only_kept = progress(load_table("thesis/5.1"), outputs.parent / "none", results, "paper")
    assert "1 of 36 done" in only_kept
    assert lines[-1] == "fill: python train.py -m table=thesis_5_1"
    nothing = progress(load_table("thesis/5.1"), outputs, results, "smoke")
    assert "nothing yet" in nothing and nothing.endswith("table=thesis_5_1 scale=smoke\n")


def test_a_full_table_has_nothing_to_fill(outputs):
    table = {"id": "x/1", "seeds": [0], "metric": "m", "columns": {"c": {}}}
    table = parse_table(table | {"rows": {"A": {"experiment": "a"}}})
    said = []
    for seed in (1, 0):  # the first fills nothing
        write_run(outputs, "a", {}, seed, {"m": 1.0})
        said.append("fill:" in progress(table, outputs, outputs / "none", "paper"))
    assert said == [True, False]


def test_a_paused_run_that_goes_on_is_not_said_to_be_paused(outputs):
    folder = write_run(outputs, "polygons_fspool", N8, 0, {"direct": 1.0}, paused=True)
    where = (load_table("thesis/5.1"), outputs, outputs / "none", "paper")
    assert "  fspool-n_8   paused: 0; missing: 1,2" in progress(*where).splitlines()
    write_json(folder / "status.json", {"status": "failed", "why": "out of memory"})
    assert "  fspool-n_8   failed (out of memory): 0; missing: 1,2" in progress(*where).splitlines()
    write_json(folder / "status.json", {"status": "running"})
    assert "  fspool-n_8   running, last written 0 min ago: 0" in progress(*where)


@given(AXES, AXES)
def test_folder_names_are_safe_and_tell_axes_apart(a, b):
    assert re.fullmatch(r"[A-Za-z0-9_.,=+-]{1,100}", slug(a))
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (slug(a) == slug(b)) == same


def test_folder_names_are_readable_and_bounded():
    assert slug({}) == "default"
    assert slug({"loss.steps": "all", "dataset.set_size": 8}) == "dataset.set_size=8,loss.steps=all"
    assert len(slug({"key": "x" * 200})) < 100
    assert slug({"key": "x" * 200}) != slug({"key": "x" * 201})
