"""A user's mistakes: one line that names key, value and remedy, exit code 2, nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from smoke_runs import command, complaint, entry, only, perform, read, refusal, train

from setexp.command_line import refuse_bad_overrides
from setexp.errors import NonFiniteError, refuse
from setexp.training.loop import Fit

POLYGONS = "experiment=polygons_fspool"


def one_line(text: str, *expected: str) -> None:
    assert "\n" not in text
    assert all(part in text for part in expected), text


# Whole commands

COMMANDS = [
    ([POLYGONS, "trainer.foo=1"], "trainer.foo: unknown key; trainer has epochs, "),
    (["experiment=dspn_mnist", "loss=hungarian"], "set_size=342: a Hungarian loss takes too long"),
]


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS, ids=[text for _, text in COMMANDS])
def test_a_command_with_a_mistake(arguments: list[str], expected: str, tmp_path: Path) -> None:
    result = command(*arguments, "scale=smoke", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and expected in line
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_full_errors_are_tracebacks(tmp_path: Path) -> None:
    arguments = [POLYGONS, "scale=smoke", "device=tpu"]
    result = command(*arguments, cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "ConfigError: device=tpu: " in result.stderr
    assert list(tmp_path.iterdir()) == []


# The same in this process


def test_a_mistake_exits_with_code_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = entry(capsys, POLYGONS, "+dataset.foo=1", f"paths.outputs={tmp_path}")
    assert code == 2
    (line,) = lines
    assert line.startswith("error: dataset.foo: unknown key; Polygons takes set_size, ")


def test_a_diverged_run_exits_with_code_1_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["scale=smoke", "trainer.lr=1e30", "figures=none", f"paths.outputs={tmp_path}"]
    with pytest.raises(NonFiniteError, match=r"^loss of seed 0 \(data seed "):
        perform(POLYGONS, *how)
    assert "/result.json (diverged)\n" in capsys.readouterr().out
    code, lines = entry(capsys, POLYGONS, *how, "restart=true")
    assert code == 1
    (line,) = lines
    assert line.startswith("error: loss of seed 0 (data seed ")


# Commands that are refused before anything is imported


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["experiment=nope"], "error: experiment=nope: unknown; choose one of ban, "),
        (
            [POLYGONS, "decoder=nope"],
            "error: decoder=nope: unknown; choose one of ban_answers, bilstm, ",
        ),
        ([POLYGONS, "trainer=[1]"], "error: trainer=[1]: "),
        (["-m"], "error: experiment=none: choose one"),
        (["-m", POLYGONS, "rows=FSPool"], "error: rows=FSPool: chooses a part of a table"),
        (["-m", "table=thesis_5_3,thesis_5_2"], "error: table=thesis_5_3,thesis_5_2: one table at"),
        (["-m", POLYGONS, "trainer.lr=0.1,fast"], "error: trainer.lr=fast: Value 'fast' of type"),
        ([POLYGONS, "-m", "hidden=8"], "error: hidden=8: options come before all overrides"),
        ([POLYGONS, "decoder=null"], "error: decoder=null: Config group override must be a"),
        ([POLYGONS, "trainer.lr=abc"], "error: trainer.lr=abc: Value 'abc' of type 'str' could"),
        ([POLYGONS, "dataset.foo=1"], "error: dataset.foo: unknown key; dataset has _target_, "),
        ([POLYGONS, "dataset.set_size=2,4"], "error: dataset.set_size=2,4: several values need -m"),
        ([POLYGONS, "trainer.lr"], "error: trainer.lr missing EQUAL at '<EOF>'; write KEY=VALUE"),
        ([POLYGONS, "seeds=[1"], "error: no viable alternative at input '[1'; write KEY=VALUE"),
        (
            ["-m", POLYGONS, "hydra/launcher=nope"],
            "error: hydra/launcher=nope: unknown; ",
        ),
        (["-m", "table=xyz"], "error: table=xyz: unknown; choose one of "),
        (["-m", "table=thesis_6_44"], "error: table=thesis_6_44: unknown; perhaps thesis_6_4, or "),
        (
            ["-m", "table=thesis/6.4"],
            "error: table=thesis/6.4: that is a table's id; ",
        ),
        ([POLYGONS, "hydra/launcher=slurm"], "error: hydra/launcher=slurm: a launcher needs -m"),
        (
            ["-m", POLYGONS, "hydra/launcher=slurm"],
            "error: hydra/launcher=slurm: there is no sbatch",
        ),
        (["--experiment", "polygons_fspool"], "error: --experiment: unknown option; --help lists"),
        ([POLYGONS, "--lr=1"], "error: --lr=1: unknown option; "),
        (["-m", "table=thesis_6_4", "--cfg", "job"], "error: -m, --cfg: --cfg shows the config of"),
        (
            ["-m", "experiment=polygons_fspool,polygons_mlp_chamfer", "dataset.set_size=4"],
            "error: dataset.set_size: cannot be set for several experiments at once",
        ),
        (
            ["-m", "table=perm_optim_2"],
            "error: table=perm_optim_2: printed again as table=thesis_4_3; fill that",
        ),
        ([POLYGONS, "seeds=2"], "error: seeds=2: a list; write seeds=[2]"),
        (
            ["-m", POLYGONS, "seeds=0,1"],
            "error: seeds=0,1: a list; write seeds=[0,1], or seeds=[0],[1] for a job each",
        ),
        ([POLYGONS, "seed=1"], "error: seed: unknown key; perhaps seeds; the config has name, "),
        (
            [POLYGONS, "evaluation.final={val:_val}"],
            "error: evaluation.final={val:_val}: unknown key; evaluation.final has test; "
            "+evaluation.final={val:_val} adds it",
        ),
        (
            [POLYGONS, "evaluation.final.train=_train"],
            "error: evaluation.final.train: unknown key; evaluation.final has test; "
            "+evaluation.final.train=_train adds it",
        ),
        (["-m", POLYGONS, "scale=huge,small"], "error: scale=huge: unknown; choose one of paper"),
    ],
)
def test_refused_at_once(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)  # there may be a cluster
    (line,) = refusal(capsys, *arguments)
    assert line.startswith(expected)


def test_a_table_with_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table").mkdir()
    table = "id: mine/1\nseeds: [0]\nrows: {a: {experimental: x}}\ncolumns: {b: {}}\n"
    (tmp_path / "table/mine.yaml").write_text(table)
    (line,) = refusal(capsys, "-m", "--config-dir", str(tmp_path), "table=mine")
    assert line.startswith("error: table mine/1, rows.a: unknown field 'experimental'")


# Mistakes that show when the parts are put together


def test_parts_that_fail_in_the_first_step(tmp_path: Path) -> None:
    where = ["scale=smoke", "figures=none", f"paths.outputs={tmp_path}"]
    said = complaint(POLYGONS, "decoder=classifier", *where)
    one_line(said, "the first batch failed: ", "do the parts fit each other and the data?")
    assert read(only(tmp_path) / "seed-0/status.json")["status"] == "failed"


def test_memory_that_the_first_batch_lacks_is_no_misfit_of_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Fit, "_step", lacks_memory)
    with pytest.raises(torch.OutOfMemoryError):
        train(tmp_path, POLYGONS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["evaluation.stats=[accuracy]"], "evaluation.stats: accuracy: of each set the task"),
        (["evaluation.curves=[val]"], "evaluation.curves=['val']: name the stats with evaluation."),
        (["evaluation=clevr_state"], "average precision: elements and masks of the "),
        (["trainer.select=best", "trainer.select_metric=accuracy", "evaluation.during=test"],
         "trainer.select_metric=accuracy: evaluated are loss, direct"),
        (["trainer.milestones=[1]", "trainer.select_metric=accuracy", "evaluation.during=test"],
         "trainer.select_metric=accuracy: evaluated are loss, direct"),
        (["trainer.average_from=2", "trainer.steps=9", "evaluation.during=test"],
         "trainer.average_from=2: there are only 1 whole epochs in trainer.steps=9"),
    ],
)  # fmt: skip
def test_an_evaluation_that_does_not_fit_is_refused_before_training(
    given: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "_step", lambda *_: pytest.fail("trained"))
    said = complaint(POLYGONS, "scale=smoke", "figures=none", *given, f"paths.outputs={tmp_path}")
    assert said.startswith(expected)
    assert not list(tmp_path.rglob("checkpoint.pt"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["decoder=mlp", "decoder.set_size=3"], ["decoder.set_size=3", "dataset.set_size=8"]),
        (["device=tpu"], ["device=tpu: no such device; use auto, cpu or cuda"]),
        (["device=meta"], ["device=meta: not supported; use auto, cpu or cuda"]),
        (["dataset.train_size=abc"], ["dataset.train_size='abc'", "Integer"]),
        (["dataset.set_size=1"], ["dataset.set_size=1: a polygon has at least 2 vertices"]),
        (["dataset.element_dim=3"], ["dataset.element_dim=3"]),
        (["encoder.pooling.descending=false"], ["encoder.pooling: the relaxed sort is descending"]),
        (["encoder=resnet34"], ["encoder.image_size", "dataset.image_size"]),
        (["~decoder.hidden"], ["decoder.hidden: missing; FSUnpoolDecoder needs it"]),
        (["decoder.hidden=[]"], ["decoder.hidden=[]: its last width must be"]),
        (["hidden=0"], ["hidden=0: at least 1"]),
        (
            ["+trainer.epoch=3"],
            ["trainer.epoch: unknown key; perhaps epochs, or lr_epochs; trainer has epochs, "],
        ),
        (["+evaluation.foo=3"], ["evaluation.foo: unknown key; evaluation has losses, "]),
        (["+foo=3"], ["foo: unknown key; the config has name, dataset, "]),
        (["decoder=idspn"], ["decoder.set_encoder: missing; DSPN needs it"]),
        (["checkpoint=x.pt"], ["checkpoint=x.pt: only mode=eval reads one"]),
        (["name=../elsewhere"], ["name=../elsewhere: it names a folder"]),
        (["trainer.until=0"], ["trainer.until=0: at least 1"]),
        (["trainer.report_at=[0]"], ["trainer.report_at=[0]: at least 1 each"]),
        (["trainer.report_at=[9]"], ["trainer.report_at=[9]: there are only trainer.epochs=2"]),
        (["trainer.lr=inf"], ["trainer.lr=inf: a finite number"]),
        (["encoder.pooling.n_pieces=0"], ["encoder.pooling.n_pieces=0: at least 1"]),
        (["decoder=mlp", "decoder.hidden=[-3]"], ["decoder: ", "negative dimension -3"]),
    ],
    ids=lambda value: value[0],
)
def test_parts_that_do_not_fit(overrides: list[str], expected: list[str], tmp_path: Path) -> None:
    one_line(complaint(POLYGONS, "scale=smoke", f"paths.outputs={tmp_path}", *overrides), *expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dspn_clevr_state", "decoder.steps=-1"], ["decoder.steps=-1", "at least 0"]),
        (
            ["dspn_clevr_state", "decoder.descent.momentum=2"],
            ["decoder.descent.momentum=2.0"],
        ),
        (["dspn_clevr_state", "trainer.slice=1"], ["trainer.slice=1: DSPN's inner steps depend"]),
        (["dspn_mnist", "evaluation.drop_last=false"], ["evaluation.drop_last=False: DSPN's"]),
        (
            ["dspn_clevr_state", "trainer.eval_batch_size=1"],
            ["trainer.eval_batch_size=1: DSPN's", "decoder.descent.reduction=per_sample"],
        ),
        (["multisets_idspn", "loss.steps=all"], ["loss.steps=all: an implicit gradient"]),
        (
            ["numbering_idspn", "trainer.evaluate_every=9"],
            ["trainer.evaluate_every=9: the first evaluation", "trainer.epochs=2"],
        ),
        (
            ["numbering_idspn", "trainer.average_from=9"],
            ["trainer.average_from=9: there are only trainer.epochs=2"],
        ),
        (["sorting", "hidden=64"], ["hidden=64: no part of this experiment reads it"]),
        (["clevr_idspn", "trainer.slice=1"], ["trainer.slice=1: batch norm needs whole batches"]),
        (
            ["numbering_idspn", "trainer.inner_steps=[5,10]"],
            ["trainer.inner_epochs=[]: trainer.inner_steps=[5, 10] must name one number more"],
        ),
    ],
    ids=lambda value: value[-1],
)
def test_settings_that_would_compute_something_else(
    overrides: list[str], expected: list[str], tmp_path: Path
) -> None:
    experiment, *rest = overrides
    where = f"paths.outputs={tmp_path}"
    one_line(complaint(f"experiment={experiment}", "scale=smoke", where, *rest), *expected)


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    overrides = ["+loss.alpha=1", "loss.cost=cubic", "trainer.lr=-1", "threads=0"]
    lines = complaint(POLYGONS, "scale=smoke", f"paths.outputs={tmp_path}", *overrides).split("\n")
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines[1:])
    assert list(tmp_path.iterdir()) == []


def test_cuda_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = complaint(POLYGONS, "scale=smoke", f"paths.outputs={tmp_path}", "device=cuda")
    assert text == "device=cuda: this machine offers no CUDA device; use device=cpu"


def test_real_clevr_that_is_not_there(tmp_path: Path) -> None:
    arguments = ["experiment=dspn_clevr_state", "scale=smoke", "dataset.source=real"]
    where = [f"paths.data={tmp_path}/data", f"paths.outputs={tmp_path}/outputs"]
    text = complaint(*arguments, *where)
    one_line(text, "dataset.source=real", "scripts/prepare_clevr.py", f"{tmp_path}/data")
    assert list(tmp_path.iterdir()) == []


def test_real_mnist_that_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", refused)
    arguments = ["experiment=dspn_mnist", "scale=smoke", "dataset.source=real"]
    where = [f"paths.data={tmp_path}/data", f"paths.outputs={tmp_path}/outputs"]
    text = complaint(*arguments, *where)
    one_line(text, "dataset.source=real", "no network", "dataset.source=procedural")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("at", ["", "/polygons_fspool", "/polygons_fspool/default/smoke-synthetic"])
def test_a_file_anywhere_in_the_way(at: str, tmp_path: Path) -> None:
    path = Path(f"{tmp_path}/outputs{at}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    text = complaint(POLYGONS, "scale=smoke", f"paths.outputs={tmp_path}/outputs")
    one_line(text, f"paths.outputs={tmp_path}/outputs: cannot write", "name another folder")


# Tables and sweeps


def test_an_unexpected_error_of_a_sweeps_run_is_shown_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launchers show one at the end, of which there may be none."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("setexp.run.execute", broken)
    for mode, shown in (("MULTIRUN", 1), ("RUN", 0)):
        with pytest.raises(RuntimeError, match="out of memory"):
            entry(capsys, POLYGONS, f"hydra.mode={mode}")
        assert capsys.readouterr().err.count("RuntimeError: out of memory") == shown


@pytest.mark.parametrize("mode", ["MULTIRUN", "RUN"])
@pytest.mark.parametrize("masked", [True, False], ids=["tidying up failed", "plain"])
def test_ctrl_c_outside_of_training_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, masked: bool, mode: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            if masked:
                refuse(["of what was cut off"])

    monkeypatch.setattr("setexp.run.execute", interrupted)
    code, lines = entry(capsys, POLYGONS, f"hydra.mode={mode}")
    assert (code, lines) == (130, ["interrupted; the same command goes on"])


def test_a_sweep_fills_every_cell(tmp_path: Path) -> None:
    arguments = ["-m", "experiment=polygons_random", "dataset.set_size=2,4", "scale=smoke"]
    result = command(*arguments, "seeds=[0]", "figures=none", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for size in (2, 4):
        folder = tmp_path / f"outputs/polygons_random/dataset.set_size={size}/smoke-synthetic"
        assert (folder / "seed-0/result.json").exists()


TABLE = """\
id: mine/1
seeds: [0, 1]
metric: hungarian
rows:
  Random: {experiment: polygons_random}
columns:
  n=1: {set: {dataset.set_size: 1}}
  n=2: {set: {dataset.set_size: 2}}
"""


def test_a_table_with_a_failing_cell_fills_the_others_and_skips_them_later(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table/mine.yaml").write_text(TABLE)
    arguments = ["-m", "--config-dir", str(tmp_path), "table=mine", "scale=smoke", "figures=none"]
    first = command(*arguments, cwd=tmp_path)
    assert first.returncode == 1
    mistake = "error: dataset.set_size=1: a polygon has at least 2 vertices"
    assert first.stderr.splitlines().count(mistake) == 1
    assert "Traceback" not in first.stderr
    folder = tmp_path / "outputs/polygons_random/dataset.set_size=2/smoke-synthetic"
    assert {path.name for path in folder.iterdir()} == {"seed-0", "seed-1"}
    second = command(*arguments, cwd=tmp_path)
    assert second.returncode == 1
    assert second.stdout.count("done already: ") == 2


def test_a_sweep_over_a_glob_is_no_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rest = ("trainer.lr=0.1", f"paths.outputs={tmp_path}")
    refuse_bad_overrides(["-m", "experiment=glob(polygons_r*)", *rest])
    (line,) = refusal(capsys, "-m", "experiment=glob(nope*)", *rest)
    assert line == "error: experiment=glob(nope*): matches nothing"


def test_what_a_table_sets_cannot_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Its runs would all be one, in one folder."""
    job = ["experiment=counting_toy", "table=thesis_3_6", "run=l_q_0"]
    code, (line,) = entry(capsys, *job, "dataset.side=0.3", "scale=smoke")
    assert code == 2
    one_line(line, "error: dataset.side: table thesis/3.6 sets it; leave it out, choose a part")


def test_what_several_experiments_share_may_be_set(tmp_path: Path) -> None:
    both = "experiment=polygons_fspool,polygons_mlp_chamfer"
    for swept in ("trainer.lr=0.1,0.2", "dataset.set_size=4,5", "trainer.lr=0.1"):
        refuse_bad_overrides(["-m", both, swept, f"paths.outputs={tmp_path}"])


def test_a_sweep_with_an_unknown_choice(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refusal(capsys, "-m", f"{POLYGONS},nope", "scale=smoke")
    one_line(line, "error: experiment=nope: unknown; choose one of", "polygons_fspool")
    (line,) = refusal(capsys, "-m", POLYGONS, "decoder=mlp,nope", "scale=smoke")
    one_line(line, "error: decoder=nope: unknown; choose one of", "mlp")


def test_a_sweep_where_nothing_can_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (line,) = refusal(capsys, "-m", "table=thesis_5_1", f"paths.outputs={tmp_path}/file/x")
    one_line(line, f"error: paths.outputs={tmp_path}/file/x: cannot write", "name another folder")


def test_a_table_without_a_run_lists_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, (line,) = entry(capsys, "table=thesis_6_1", "scale=smoke")
    assert code == 2
    assert line == (
        "error: table=thesis_6_1: add -m to fill it, or choose a run with run=NAME; there are "
        "mlp_baseline, rnn_baseline, ours"
    )
    code, (line,) = entry(capsys, "table=thesis_6_1", "run=theirs", "scale=smoke")
    assert line.startswith("error: run=theirs: table=thesis_6_1 has no such run; choose another; ")


def test_one_run_of_a_table_is_the_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ["table=thesis_5_1", "run=random-n_4", "scale=smoke", "figures=none", "seeds=[2]"]
    assert entry(capsys, *table, f"paths.outputs={tmp_path}/outputs") == (0, [])
    folder = only(tmp_path / "outputs") / "seed-2"
    arguments = ["experiment=polygons_random", "dataset.set_size=4", "seeds=[2]"]
    own = train(tmp_path / "own", *arguments)
    assert (own / "seed-2/science.json").read_text() == (folder / "science.json").read_text()


def test_helpers_of_these_tests_can_fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A config without mistakes is neither refused nor complained about."""
    checks: list[Callable[[], object]] = [
        lambda: refusal(capsys, POLYGONS),
        lambda: complaint("experiment=polygons_random", "scale=smoke", f"paths.outputs={tmp_path}"),
    ]
    for check in checks:
        with pytest.raises(pytest.fail.Exception):
            check()
