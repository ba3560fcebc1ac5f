"""Parts of tables: which rows and columns, by label or pattern, for reports and for training."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from smoke_runs import config, entry, perform, refusal

from setexp.command_line import quote_paths
from setexp.config import register
from setexp.errors import ConfigError, listed
from setexp.report.papers import load_printed
from setexp.report.part import part, printed_part
from setexp.report.progress import progress
from setexp.report.tables import load_table

register()


def test_all_rows_and_columns_are_the_table() -> None:
    table, printed = load_table("thesis/6.4"), load_printed("thesis/6.4")
    assert part(table, None, None) == table == part(table, "*", "*")
    assert printed_part(printed, None, None) == printed == printed_part(printed, "*", "*")


def test_labels_and_patterns_choose_cells_and_the_runs_that_fill_them() -> None:
    table = load_table("idspn/5")
    chosen = part(table, "*n=[24] it=10|Baseline n=8*", "d=2")
    models = ("iDSPN+mom", "iDSPN", "Baseline")
    rows = [f"{model} n={n} it=10" for n in (2, 4) for model in models]
    rows += [f"Baseline n=8 it={steps}" for steps in (10, 20, 40)]
    assert list(chosen.cells) == [(row, "d=2") for row in rows]
    assert len(chosen.runs) == 9 and all(run in table.runs for run in chosen.runs)
    assert chosen.size == 9 * 8
    assert part(chosen, "Baseline n=8 it=20", None).runs[0].overrides == [
        "experiment=multisets_dspn", "dataset.element_dim=2", "dataset.set_size=8",
        "decoder.steps=20",
    ]  # fmt: skip
    printed = printed_part(load_printed("idspn/5"), "*n=[24] it=10|Baseline n=8*", "d=2")
    assert [(row, "d=2") for row in printed.rows] == list(chosen.cells)
    assert list(printed.columns) == ["d=2"]


def test_the_command_of_a_part_says_which() -> None:
    table = load_table("idspn/5")
    chosen = part(table, "*n=[24] it=10", "d=2")
    fill = "python train.py -m table=idspn_5 'rows=*n=[24] it=10' columns=d=2"
    assert chosen.command == fill
    nowhere = Path("no such folder")
    assert progress(chosen, nowhere, nowhere, "paper").endswith(f"fill: {fill}\n")
    _, _, *overrides = shlex.split(fill)
    assert sweep(*[o for o in overrides if o != "-m"]) == [run.name for run in chosen.runs]
    finer = part(load_table("thesis/3.6", points=3), "Baseline", None)
    assert finer.command == "python train.py -m table=thesis_3_6 table.points=3 rows=Baseline"


def test_a_run_that_several_rows_read_is_kept_once() -> None:
    table = load_table("thesis/6.4")
    assert [run.name for run in part(table, "Ours (2* iters)|Ours (30 iters)", "AP1").runs] == [
        "ours"
    ]


def test_a_label_is_meant_literally_first() -> None:
    rows = {"a[1]": {"experiment": "a"}, "a1": {"experiment": "b"}}
    from setexp.report.tables import parse_table

    spec = {"id": "x", "seeds": [0], "metric": "m", "rows": rows, "columns": {"c": {}}}
    assert {row for row, _ in part(parse_table(spec), "a[1]", None).cells} == {"a[1]", "a1"}
    assert {row for row, _ in part(parse_table(spec), "a1", None).cells} == {"a1"}


@pytest.mark.parametrize("choose", [part, printed_part])
def test_unknown_labels_are_refused_with_those_that_exist(choose) -> None:
    whole = load_table("idspn/6") if choose is part else load_printed("idspn/6")
    said = "columns=d=2|d=3: 'd=3' matches no label of idspn/6; there are d=2, d=4, d=8, d=16, d=32"
    with pytest.raises(ConfigError, match=re.escape(said)):
        choose(whole, None, "d=2|d=3")
    with pytest.raises(ConfigError, match=r"rows=Sum: .* it=40 and 18 more$"):
        choose(whole, "Sum", None)


def test_long_lists_are_cut() -> None:
    assert listed("abc") == listed("abc", most=3) == "a, b, c"
    assert listed("abc", most=2) == "a, b and 1 more"


# On the command line of train.py


def sweep(*overrides: str) -> list[str]:
    from hydra import compose, initialize_config_dir

    from setexp.config import CONFIGS

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config", quote_paths(list(overrides)), return_hydra_config=True)
        return composed.hydra.sweeper.params["run"].split(",")


def test_a_sweep_over_a_part_has_its_runs() -> None:
    assert sweep("table=idspn_5", "rows=*n=[24] it=10", "columns=d=2") == [
        f"{model}_n_{n}_it_10-d_2" for n in (2, 4) for model in ("idspn_mom", "idspn", "baseline")
    ]
    assert sweep("table=idspn_5", "rows='Baseline n=2 it=10'", 'columns="d=4"') == [
        "baseline_n_2_it_10-d_4"
    ]
    assert len(sweep("table=idspn_5")) == 225


def test_the_part_is_no_axis_of_its_runs(tmp_path, capsys) -> None:
    arguments = ["table=idspn_5", "run=idspn_n_2_it_10-d_2", "rows=iDSPN*", "columns=d=2"]
    more = ["scale=smoke", "seeds=[0]", "figures=none", f"paths.outputs={tmp_path}"]
    assert entry(capsys, *arguments, *more) == (0, [])
    (folder,) = (tmp_path / "multisets_idspn_plain").iterdir()
    assert folder.name == "dataset.element_dim=2,dataset.set_size=2,decoder.steps=10"


def test_seeds_that_a_table_does_not_read_are_trained_and_named(tmp_path, capsys) -> None:
    arguments = ["table=idspn_5", "run=idspn_n_2_it_10-d_2", "scale=smoke", "trainer.steps=0"]
    arguments += ["figures=none", f"paths.outputs={tmp_path}"]
    said = "seeds=[8, 9]: table idspn/5 does not read them, but seeds=[0,1,2,3,4,5,6,7]"
    assert entry(capsys, *arguments, "seeds=[0,9,8]") == (0, [said])
    assert len(list(tmp_path.glob("*/*/*/seed-*/result.json"))) == 3
    assert entry(capsys, *arguments, "seeds=[0,7]") == (0, [])


def test_what_is_refused_on_a_command_line(capsys) -> None:
    (line,) = refusal(capsys, *quote_paths(["-m", "table=idspn_5", "rows=*it=11"]))
    assert line.startswith("error: rows=*it=11: '*it=11' matches no label of idspn/5; there are")
    assert len(line) < 500
    code, (line,) = entry(capsys, "table=idspn_5", "experiment=multisets_idspn")
    assert code == 2 and "table=idspn_5: add -m to fill it" in line and "213 more" in line
    with pytest.raises(ConfigError, match=r"columns=d=2: chooses a part of a table; add -m table="):
        perform("experiment=multisets_idspn", "columns=d=2")
    assert config("rows=null")["rows"] is None
