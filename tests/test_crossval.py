"""Cross-validation: what is selected; folds that train together are folds that train alone."""

from pathlib import Path

import numpy as np
import pytest
from smoke_runs import (
    assert_same_run,
    command,
    complaint,
    config,
    curve,
    interrupt,
    only,
    read,
    smoke,
    train,
)

from setexp.config import compose_run
from setexp.crossval import choose, points, read_curve
from setexp.errors import ConfigError
from setexp.files import write_json
from setexp.rules import broken_rules
from setexp.science import science_of
from setexp.training.loop import Fit
from setexp.training.optimise import learning_rate

SMOKE = ("experiment=graphs_bio", "dataset.name=MUTAG")
FSPOOL = "readout@encoder.readout=fspool"


def arguments(data_root: Path, *overrides: str) -> list[str]:
    return [*SMOKE, f"paths.data={data_root}", *overrides]


def test_choice_by_hand() -> None:
    """Two points, two folds, three epochs."""
    val = np.array([[[0.5, 0.6, 0.7], [0.9, 0.8, 0.3]], [[0.1, 0.9, 0.6], [0.2, 0.5, 0.7]]])
    test = np.array([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [[0.7, 0.8, 0.1], [0.2, 0.3, 0.4]]])
    # means of val: 0.7, 0.7, 0.5 and 0.15, 0.7, 0.65: the first of three equal ones
    index, metrics = choose(val, test)
    assert index == 0
    assert metrics == pytest.approx(
        {
            "accuracy": 0.25,
            "val_accuracy": 0.7,
            "epoch": 0,
            # fold 0: point 1, epoch 1; fold 1: point 0, epoch 0
            "accuracy_per_fold": (0.8 + 0.4) / 2,
            "epoch_per_fold": 0.5,
            "accuracy_by_test": 0.55,
        }
    )


def test_points_are_in_the_order_of_the_grid() -> None:
    found = points(compose_run(["experiment=graphs_bio"]))
    assert [tuple(p.values.values()) for p in found] == [
        (h, b, d) for h in (16, 32) for b in (32, 128) for d in (0.0, 0.5)
    ]
    last = found[-1]
    assert last.nodes["task"]["encoder"]["width"] == 32 and last.trainer.batch_size == 128
    assert last.nodes["task"]["decoder"]["latent"] == 160
    assert last.nodes["task"]["decoder"]["dropout"] == 0.5
    social = points(compose_run(["experiment=graphs_social"]))
    assert [tuple(p.values.values()) for p in social] == [
        (64, b, d) for b in (32, 100) for d in (0.0, 0.5)
    ]


def test_every_50th_epoch_halves_the_learning_rate() -> None:
    """The 50th itself, as in the released code, which counts from 1."""
    trainer = points(compose_run(["experiment=graphs_bio"]))[0].trainer
    rates = [learning_rate(trainer, epoch - 1, 0) for epoch in (1, 49, 50, 99, 100, 499, 500)]
    assert [0.01 / rate for rate in rates] == pytest.approx([1, 1, 2, 2, 4, 2**9, 2**10])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+crossval.grid.decoder.hiden=[3]", "decoder.hiden: the config has no decoder.hiden"),
        ("+crossval.grid.dataset.graphs=[3]", "crossval.grid.dataset.graphs: all points share it"),
        ("+crossval.grid.trainer.epochs=[3]", "crossval.grid.trainer.epochs: all points share it"),
        (
            "+crossval.grid.trainer.optimizer=[adam,adamax]",
            "crossval.grid.trainer.optimizer=['adam', 'adamax']: name numbers",
        ),
        ("crossval.grid.hidden=[]", "crossval.grid.hidden=[]: name values in a list"),
        ("crossval.grid.hidden=[2.5]", "crossval.grid.hidden: Value '2.5'"),
        (
            "crossval.grid.trainer.batch_size=[32,0]",
            "crossval.grid: trainer.batch_size=0: at least 1",
        ),
        (
            "crossval.grid.trainer.batch_size=[32,32]",
            "crossval.grid.trainer.batch_size=[32, 32]: name each value once",
        ),
        ("crossval.together=[foo]", "crossval.together=foo: no key of the grid; choose of hidden,"),
    ],
)
def test_a_bad_grid_is_one_clear_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        points(compose_run(["experiment=graphs_bio", override]))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.until=1", "trainer.until=1: a cross-validation trains all its epochs"),
        ("trainer.steps=1", "trainer.steps=1: a cross-validation trains all its epochs"),
        ("evaluation.curves=[val]", "evaluation.curves=['val']: a cross-validation selects by"),
        ("crossval.stack=0", "crossval.stack=0: at least 1"),
        ("trainer.epochs=0", "trainer.epochs=0: a cross-validation selects one of them"),
        ("trainer.report_at=[1]", "trainer.report_at=[1]: a cross-validation reports its choice"),
        ("evaluation.during=val", "evaluation.during=val: a cross-validation reads its curves"),
        ("pretrained.use=frozen", "pretrained.use=frozen: a cross-validation begins with fresh"),
        (
            "crossval.together=[trainer.batch_size]",
            "crossval.together=trainer.batch_size: points that share a stack",
        ),
        ("+crossval.grid.task.hiden=[3]", "crossval.grid.task.hiden: the config has no task.hiden"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    override: str, said: str, tmp_path: Path, data_root: Path
) -> None:
    where = f"paths.outputs={tmp_path}"
    message = complaint(*arguments(data_root, "scale=smoke", where, override))
    assert said in message and "\n" not in message
    assert not list(tmp_path.rglob("result.json"))


def test_a_cross_validation_selects_no_weights() -> None:
    given = ["evaluation.during=val", "trainer.select_metric=accuracy", "trainer.select=best"]
    mistakes = broken_rules(config(*SMOKE, "scale=smoke", *given))
    assert (
        "trainer.select=best: a cross-validation selects by its curves; set it to last" in mistakes
    )


def test_a_grid_needs_folds() -> None:
    given = ["evaluation.curves=[val,test]", "evaluation.stats=[accuracy]"]
    (mistake,) = broken_rules(
        config("experiment=polygons_fspool", "+crossval.grid.trainer.lr=[0.1,0.01]", *given)
    )
    assert mistake.startswith("crossval.grid={'trainer': {'lr': [0.1, 0.01]}}: setexp.datasets.")
    assert mistake.endswith("Polygons has no folds; leave it out")


def test_null_is_no_cross_validation() -> None:
    """An empty grid adds nothing to that of the experiment."""
    null, empty = (config(*SMOKE, f"crossval.grid={said}") for said in ("null", "{}"))
    assert broken_rules(null) == [] and "crossval" not in science_of(null, "")
    assert empty["crossval"]["grid"]


def test_a_stat_that_there_is_not_is_refused_before_training(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "_step", lambda *_: pytest.fail("trained"))
    where = ["scale=smoke", f"paths.outputs={tmp_path}", "evaluation.stats=[accuracy,foo]"]
    said = complaint(*arguments(data_root, *where))
    assert said == "evaluation.stats: foo: of each set the task measures accuracy"


@pytest.mark.parametrize(
    "overrides",
    [
        ["crossval.grid.hidden=[32]", "crossval.grid.decoder.dropout=[0.5]"],
        [FSPOOL, "crossval.grid.hidden=[16]", "dataset.graphs=60", "trainer.epochs=1"],
    ],
    ids=["base", "fspool"],
)
def test_folds_together_are_folds_alone(
    overrides: list[str], tmp_path: Path, data_root: Path
) -> None:
    """Bit for bit: weights, statistics, optimiser, curves and what is selected."""
    own = arguments(data_root, *overrides)
    together = train(tmp_path / "together", *own) / "seed-0"
    some = train(tmp_path / "some", "crossval.stack=2", *own) / "seed-0"
    alone = train(tmp_path / "alone", "trainer.stack=0", *own) / "seed-0"
    assert_same_run(together, alone)
    assert_same_run(together, some)
    records = [read(folder / "result.json") for folder in (together, some, alone)]
    members = len(list(together.glob("members/*/*")))
    assert [r["provenance"]["stacked_seeds"] for r in records] == [members, 2, 1]


def test_a_command_that_asks_for_one_thread_has_all_of_the_law(
    tmp_path: Path, data_root: Path
) -> None:
    """PyTorch begins with one for each core, and MKL would remember that."""
    own = smoke(*arguments(data_root), "threads=1")
    for size in ("3", "6"):
        where = (f"crossval.stack={size}", f"paths.outputs={tmp_path / size}")
        assert command(*own, *where, cwd=tmp_path, OMP_NUM_THREADS="2").returncode == 0
    assert_same_run(only(tmp_path / "3") / "seed-0", only(tmp_path / "6") / "seed-0")


def test_members_differ(tmp_path: Path, data_root: Path) -> None:
    """Folds in data and weights; points that differ in dropout in what they learn."""
    folder = train(tmp_path, *arguments(data_root)) / "seed-0/members"
    losses = {
        tuple(line["train/loss"] for line in curve(fold) if "train/loss" in line)
        for fold in folder.glob("*/fold-*")
    }
    assert len(losses) == 6


def test_what_is_read_are_the_members_curves(tmp_path: Path, data_root: Path) -> None:
    folder = train(tmp_path, *arguments(data_root)) / "seed-0"
    record = read(folder / "result.json")
    points_ = sorted((folder / "members").iterdir())  # by dropout, as the grid has them
    val, test = (
        np.array(
            [
                [[e[name] for e in curve(point / f"fold-{k}") if name in e] for k in range(3)]
                for point in points_
            ]
        )
        for name in ("val/accuracy", "test/accuracy")
    )
    index, metrics = choose(val, test)
    assert {k: record["metrics"][k] for k in metrics} == metrics
    assert record["metrics"]["dropout"] == (0.0, 0.5)[index]
    assert record["metrics"]["graphs"] == 24


def test_a_null_of_the_config_may_be_in_a_grid() -> None:
    found = points(compose_run(["experiment=graphs_bio", "+crossval.grid.trainer.clip=[1,10]"]))
    assert {point.trainer.clip for point in found} == {1, 10}


def test_a_curve_that_lost_a_line_is_no_curve(tmp_path: Path) -> None:
    lines = [f'{{"step": {k}, "val/accuracy": 0.5}}\n' for k in (1, 2, 4)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(ConfigError, match=r"val/accuracy of 3 of 4 epochs; delete the folder"):
        read_curve(tmp_path, "val/accuracy", 4)


def test_a_second_command_does_nothing_and_a_killed_one_goes_on(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Killed within the second of two stacks: the first is not trained again."""
    own = arguments(data_root, FSPOOL, "crossval.stack=3")
    whole = train(tmp_path / "whole", *own)
    interrupt(monkeypatch, tmp_path / "cut", 16, *own)
    finished = list(only(tmp_path / "cut").rglob("done.json"))
    assert len(finished) == 3
    for path in finished:
        write_json(path, read(path) | {"origins": [{"commit": "before"}]})
    capsys.readouterr()
    folder = train(tmp_path / "cut", *own) / "seed-0"
    assert_same_run(folder, whole / "seed-0")
    assert "stack 1 of 1: 3 models" in capsys.readouterr().out
    assert read(folder / "result.json")["earlier"] == [{"commit": "before"}]
    assert "earlier" not in read(whole / "seed-0/result.json")
    train(tmp_path / "cut", *own)
    assert "done already" in capsys.readouterr().out


def test_switches_of_the_protocol(tmp_path: Path, data_root: Path) -> None:
    """Text instead of code."""
    switches = ["encoder.eps=zero", "dataset.shared_shuffle=true"]
    folder = train(tmp_path, *arguments(data_root, *switches)) / "seed-0"
    assert read(folder / "result.json")["status"] == "done"
    assert config(*SMOKE)["task"]["encoder"]["eps"] == "in_channels"
    assert config(*SMOKE)["dataset"]["shared_shuffle"] is False


def test_members_of_a_stack_share_its_time(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Fit.train

    def slow(self: Fit) -> None:
        learn(self)
        self.seconds = 12.0

    monkeypatch.setattr(Fit, "train", slow)
    folder = train(tmp_path, *arguments(data_root)) / "seed-0"
    members = [read(path)["of"] for path in folder.rglob("done.json")]
    assert max(members) > 1
    stacks = sum(1 / of for of in members)
    assert read(folder / "result.json")["provenance"]["seconds"] == pytest.approx(12 * stacks)


def test_divergence_is_recorded(tmp_path: Path, data_root: Path) -> None:
    from smoke_runs import failure

    said = failure(tmp_path, *arguments(data_root, "trainer.lr=1e30"))
    assert "not finite" in said or "is nan" in said
    record = read(only(tmp_path) / "seed-0/result.json")
    assert record["status"] == "diverged" and record["metrics"] is None
