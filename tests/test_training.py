"""Training runs: what they record, when they stop, what they refuse."""

import gc
import shutil
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from smoke_runs import (
    complaint,
    config,
    curve,
    done,
    only,
    perform,
    read,
    train,
    weights,
)
from torch import Tensor

from setexp import experiment, provenance, together
from setexp.config import compose_run, plain
from setexp.datasets.polygons import Polygons
from setexp.errors import ConfigError
from setexp.experiment import Experiment
from setexp.ops.descent import Descent
from setexp.training import checkpoint, loop
from setexp.training.optimise import inner_steps, learning_rate, within
from setexp.training.precision import check_precision
from setexp.training.randomness import derive, own_draws
from setexp.training.settings import Precision, Trainer

POLYGONS = "experiment=polygons_fspool"


def test_a_result_record_says_what_was_measured_and_how(tmp_path: Path) -> None:
    started = time.monotonic()
    folder = train(tmp_path, POLYGONS, "dataset.set_size=4", "seeds=[3]")
    assert folder == tmp_path / "polygons_fspool/dataset.set_size=4/smoke-synthetic"
    record = read(folder / "seed-3/result.json")
    expected = {
        "experiment": "polygons_fspool",
        "axes": {"dataset.set_size": 4},
        "scale": "smoke",
        "source": "synthetic",
        "seed": 3,
        "status": "done",
        "steps": 16,
        "epochs": 2.0,
    }
    assert {key: record[key] for key in expected} == expected
    assert record["metrics"].keys() == {"loss", "direct", "chamfer", "hungarian"}
    assert record["parameters"] == sum(v.numel() for v in weights(folder / "seed-3").values())
    command = "python train.py experiment=polygons_fspool dataset.set_size=4 scale=smoke seeds=[3]"
    assert record["provenance"]["command"] == command
    known = {"commit", "device", "machine", "compiled", "versions", "seconds"}
    assert known <= record["provenance"].keys()
    # tenths of a second, of which a fast machine needs none
    assert 0 <= record["provenance"]["seconds"] < time.monotonic() - started + 0.05
    assert read(folder / "seed-3/status.json") == {"status": "done"}
    assert (folder / "seed-3/config.yaml").exists()


def test_new_files_of_code_are_no_committed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"rev-parse": "commit", "status": "", "ls-files": "decoders/mine.py"}
    monkeypatch.setattr(provenance, "_git", lambda *arguments: said[arguments[0]])
    assert provenance.code.__wrapped__()["dirty"] is True
    said["ls-files"] = ""
    assert provenance.code.__wrapped__()["dirty"] is False


def test_a_picture_that_fails_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("setexp.experiment.draw", full)
    folder = train(tmp_path, POLYGONS) / "seed-0"
    assert read(folder / "result.json")["status"] == "done"
    said = capsys.readouterr().err
    assert "No space left" in said and f"mode=eval checkpoint={folder}/checkpoint.pt" in said


def test_mistakes_in_figures_show_before_training(tmp_path: Path) -> None:
    place = ("scale=smoke", f"paths.outputs={tmp_path}")
    assert "pictures=0" in complaint(POLYGONS, *place, "figures.polygons.pictures=0")
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("checkpoint.pt"))


def test_pictures_draw_what_the_seed_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def figure(task: Any, data: Any, folder: Path, generator: torch.Generator) -> list[Path]:
        drawn.append(generator.initial_seed())
        return []

    monkeypatch.setattr(experiment, "build", lambda *_: {"figure": figure})
    for seed in (3, 3, 4):
        experiment.draw({}, torch.nn.Identity(), None, tmp_path, seed, torch.device("cpu"))
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_figure_that_fails_costs_no_seed_its_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (POLYGONS, "scale=smoke", "seeds=[0,1]", f"paths.outputs={tmp_path}")
    monkeypatch.delattr("setexp.figures.polygons.RotatingPolygon.__call__")
    perform(*arguments, "figures=polygons")
    assert all(done(only(tmp_path) / f"seed-{seed}") for seed in (0, 1))
    assert capsys.readouterr().err.count("pictures: not drawn") == 2


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "checkpoint.pt")

    place = ("scale=smoke", "figures=none", f"paths.outputs={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr("setexp.training.checkpoint.save", full)
        text = complaint(POLYGONS, *place)
    assert "No space left on device: 'checkpoint.pt'; make room" in text and "\n" not in text
    assert read(only(tmp_path) / "seed-0/status.json")["status"] == "failed"
    perform(POLYGONS, *place)
    assert done(only(tmp_path) / "seed-0")


def test_a_disk_too_full_for_the_status_is_named_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = together.write_json

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "checkpoint.pt")

    def full_for_failures(path: Path, content: Any) -> None:
        full() if content["status"] == "failed" else write(path, content)

    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr(together, "write_json", full_for_failures)
    where = ("scale=smoke", "figures=none", f"paths.outputs={tmp_path}")
    assert "make room" in complaint(POLYGONS, *where)


def test_code_without_its_history_says_which_commit_it_was_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    monkeypatch.setenv("SETEXP_COMMIT", "abc")
    assert provenance.code.__wrapped__()["commit"] == "abc"


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles for a CPU by a C++ compiler")
def test_a_compiled_step_draws_and_learns_what_it_does_otherwise(tmp_path: Path) -> None:
    """The initial sets are noise."""
    base = ["experiment=numbering_idspn", "decoder.steps=1"]
    plainly, compiled = (
        read(train(tmp_path / name, *base, f"trainer.compile={name}") / "seed-0/result.json")
        for name in ("false", "true")
    )
    assert compiled["provenance"]["compiled"] and not plainly["provenance"]["compiled"]
    assert compiled["metrics"] == pytest.approx(plainly["metrics"], rel=1e-5)


def test_a_recorded_command_compiles_where_the_run_did() -> None:
    given = [POLYGONS, "trainer.compile=true", "trainer.log_every=3"]  # the last changes no number
    composed = compose_run(given)
    run = Experiment(composed, plain(composed), given, torch.device("cpu"))
    assert run.command == f"python train.py {POLYGONS} trainer.compile=true"


def test_threads_are_as_many_as_are_asked_for(tmp_path: Path) -> None:
    threads = torch.get_num_threads() + 1
    train(tmp_path, "experiment=polygons_random", f"threads={threads}")
    assert torch.get_num_threads() == threads


def test_a_record_names_the_commit_that_the_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may commit while it trains."""
    now = {"commit": "before"}
    monkeypatch.setattr(provenance, "_git", lambda *_: now["commit"])
    learn = loop.Fit.train

    def train_while_others_commit(self: loop.Fit) -> None:
        now["commit"] = "after"
        learn(self)

    monkeypatch.setattr(loop.Fit, "train", train_while_others_commit)
    provenance.code.cache_clear()
    try:
        folder = train(tmp_path, POLYGONS, "trainer.steps=0") / "seed-0"
    finally:
        provenance.code.cache_clear()
    assert read(folder / "result.json")["provenance"]["commit"] == "before"


def test_curves_have_every_window_and_evaluation(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS, "evaluation.during=test", "trainer.log_every=3") / "seed-0"
    lines = curve(folder)
    training = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in training] == [3, 6, 9, 12, 15]
    assert [line["epoch"] for line in training] == [0, 0, 1, 1, 1]
    assert [line["step"] for line in lines if "test/direct" in line] == [8, 16]
    final = read(folder / "result.json")["metrics"]["direct"]
    assert lines[-1]["test/direct"] == final, "polygons evaluate on the same sets every time"


def test_training_learns_something(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS, "trainer.epochs=20", "trainer.log_every=8") / "seed-0"
    losses = [line["train/loss"] for line in curve(folder)]
    assert losses[-1] < 0.7 * losses[0]


def test_steps_end_a_run_within_an_epoch(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS, "trainer.steps=5") / "seed-0"
    assert read(folder / "result.json")["steps"] == 5
    assert read(folder / "result.json")["epochs"] == 5 / 8


def test_a_pause_beyond_the_last_epoch_is_the_end(tmp_path: Path) -> None:
    record = read(train(tmp_path, POLYGONS, "trainer.until=5") / "seed-0/result.json")
    assert (record["status"], record["epochs"]) == ("done", 2)


def test_one_batch_of_each_split_is_evaluated_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    batches = Polygons.batches

    def noted(self: Polygons, split: str, *args: Any, **how: Any) -> Iterator[Any]:
        for batch in batches(self, split, *args, **how):
            seen.append(split)
            yield batch

    monkeypatch.setattr(Polygons, "batches", noted)
    train(tmp_path, POLYGONS, "trainer.steps=1", "trainer.eval_batch_size=4")
    assert seen[: seen.index("train")] == ["test"]


def test_a_run_without_steps_is_evaluated(tmp_path: Path) -> None:
    folder = train(tmp_path, "experiment=polygons_random") / "seed-0"
    assert read(folder / "result.json")["steps"] == 0
    assert read(folder / "result.json")["metrics"]["hungarian"] > 0


@pytest.mark.parametrize(
    ("experiment", "steps"), [("dspn_clevr_state", 2187), ("clevr_idspn", 547)]
)
def test_an_epoch_of_clevr_has_the_documents_steps(experiment: str, steps: int) -> None:
    trainer = config(f"experiment={experiment}")["trainer"]
    dataset = SimpleNamespace(sizes={"train": 70_000}.get)
    assert loop.steps_per_epoch(dataset, Trainer(**trainer)) == steps


def test_learning_rates_change_at_the_start_of_epochs() -> None:
    trainer = Trainer(lr=8.0, lr_epochs=[2, 3], lr_factor=0.5)
    rates = [learning_rate(trainer, epoch, step=10 * epoch) for epoch in range(5)]
    assert rates == [8.0, 8.0, 4.0, 2.0, 2.0]


def test_learning_rates_warm_up_from_epoch_to_epoch() -> None:
    trainer = Trainer(lr=8.0, lr_warmup_epochs=4, lr_epochs=[5], lr_factor=0.25)
    rates = [learning_rate(trainer, epoch, step=10 * epoch) for epoch in range(7)]
    assert rates == [2.0, 4.0, 6.0, 8.0, 8.0, 2.0, 2.0]


def test_learning_rates_warm_up_and_decay_with_every_step() -> None:
    trainer = Trainer(lr=8.0, lr_warmup=4, lr_decay=0.25, lr_decay_steps=4)
    rates = [learning_rate(trainer, epoch=0, step=step) for step in (0, 1, 2, 3, 4, 6, 8)]
    assert rates[::2] == pytest.approx([2.0, 3.0, 2.0, 0.5])
    assert rates[1] == pytest.approx(4.0 / 2**0.5) and rates[3] == pytest.approx(8.0 / 2**1.5)
    assert rates[5] == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0])
def test_a_part_has_a_learning_rate_of_its_own(tmp_path: Path, factor: float) -> None:
    """The first step of Adam is as long as its learning rate, wherever there is a gradient."""
    overrides = ["trainer.lr_part=encoder.elements", f"trainer.lr_part_factor={factor}"]
    before, after = (
        checkpoint.load(train(tmp_path / more[0], POLYGONS, *more) / "seed-0/checkpoint.pt")[
            "model"
        ]
        for more in (["trainer.epochs=0"], ["trainer.steps=1", *overrides])
    )
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    for name, length in moved.items():
        expected = 1e-3 * (factor if name.startswith("encoder.elements.") else 1)
        assert length == pytest.approx(expected, rel=0.02, abs=1e-9)


def test_a_part_has_no_namesakes() -> None:
    assert within("encoder.count.f", "encoder.count") and within("encoder.count", "encoder.count")
    assert not within("encoder.counter.f", "encoder.count")


def test_each_step_has_its_own_learning_rate(tmp_path: Path) -> None:
    folder = train(
        tmp_path, POLYGONS, "trainer.lr=1.0", "trainer.lr_warmup=4", "trainer.lr_decay=0.25",
        "trainer.lr_decay_steps=8", "trainer.log_every=2", "trainer.steps=8",
    )  # fmt: skip
    logged = [line["train/lr"] for line in curve(folder / "seed-0") if "train/lr" in line]
    trainer = Trainer(lr=1.0, lr_warmup=4, lr_decay=0.25, lr_decay_steps=8)
    assert logged == [learning_rate(trainer, 0, step) for step in (1, 3, 5, 7)]


def test_inner_steps_change_at_the_start_of_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(inner_steps=[5, 9, 7], inner_epochs=[1, 3])
    assert [inner_steps(trainer, epoch) for epoch in range(5)] == [5, 9, 9, 7, 7]
    assert inner_steps(Trainer(), 0) is None
    taken = []
    step = Descent.step

    def counted(self: Descent, rows: Tensor, slope: Tensor, buffer: Tensor | None) -> object:
        taken.append(torch.is_grad_enabled())  # evaluations need no gradient
        return step(self, rows, slope, buffer)

    monkeypatch.setattr(Descent, "step", counted)
    schedule = ["trainer.inner_steps=[2,3]", "trainer.inner_epochs=[1]"]
    arguments = ["experiment=dspn_mnist", "dataset.source=procedural", "trainer.evaluate_every=0"]
    folder = train(tmp_path, *arguments, *schedule, "trainer.stack=0")
    record = read(folder / "seed-0/result.json")
    assert record["epochs"] == 2
    assert sum(taken) == record["steps"] // 2 * (2 + 3)


def test_evaluations_during_training_take_no_more_inner_steps_than_training(
    tmp_path: Path, data_root: Path
) -> None:
    schedule = ["trainer.inner_steps=[1,3,4]", "trainer.inner_epochs=[1,2]", "trainer.epochs=3"]
    arguments = ["experiment=dspn_mnist", f"paths.data={data_root}", "evaluation.at=[2,3,6]"]
    folder = train(tmp_path, *arguments, *schedule) / "seed-0"
    names = [sorted(key for key in line if "@" in key) for line in curve(folder)]
    later = ["test/chamfer@2", "test/chamfer@3"]
    assert [found for found in names if found] == [["test/chamfer@1"], later, later]
    assert {"chamfer@2", "chamfer@3", "chamfer@6"} <= read(folder / "result.json")["metrics"].keys()


def test_the_schedule_reaches_the_optimiser(tmp_path: Path) -> None:
    schedule = ["trainer.lr_epochs=[1]", "trainer.lr_factor=0.0"]
    once = train(tmp_path / "a", POLYGONS, "trainer.epochs=1") / "seed-0"
    frozen = train(tmp_path / "b", POLYGONS, *schedule) / "seed-0"
    after = weights(frozen)
    assert all(torch.equal(value, after[name]) for name, value in weights(once).items())
    assert curve(frozen)[-1]["train/lr"] == 0.0


def test_evaluations_average_over_sets_not_over_batches(tmp_path: Path) -> None:
    """16 sets in batches of 16, and of 7, 7 and 2."""
    arguments = [POLYGONS, "trainer.epochs=1"]
    whole = train(tmp_path / "a", *arguments, "trainer.eval_batch_size=16") / "seed-0"
    parts = train(tmp_path / "b", *arguments, "trainer.eval_batch_size=7") / "seed-0"
    a, b = (read(folder / "result.json")["metrics"] for folder in (whole, parts))
    assert a == pytest.approx(b, rel=1e-5)


def test_evaluations_may_leave_an_incomplete_batch_out(tmp_path: Path, data_root: Path) -> None:
    """Of 16 sets in batches of 7, the first 14 count."""
    arguments = ["experiment=mnist_sum", f"paths.data={data_root}", "trainer.steps=0"]
    arguments += ["trainer.eval_batch_size=7"]
    metrics = [
        read(train(tmp_path / name, *arguments, *given) / "seed-0/result.json")["metrics"]
        for name, given in (
            ("left_out", ["dataset.test_size=16", "evaluation.drop_last=true"]),
            ("never_there", ["dataset.test_size=14"]),
            ("all", ["dataset.test_size=16", "evaluation.drop_last=false"]),
        )
    ]
    assert metrics[0] == metrics[1] != metrics[2]


def test_derived_seeds_differ_by_purpose_and_leave_the_global_state() -> None:
    purposes = [("weights",), ("train", 0), ("train", 1), ("test", "evaluate"), ("train", 10)]
    assert len({derive(seed, *p) for seed in range(20) for p in purposes}) == 100
    before = torch.get_rng_state()
    with own_draws(3, torch.device("cpu")):
        a = torch.rand(3)
    with own_draws(3, torch.device("cpu")):
        assert torch.equal(torch.rand(3), a)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seeds", ["[0]", "[0,1]"])
def test_a_finished_run_holds_no_memory(
    seeds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU, another run may need it, long before Python looks for cycles."""
    kept: list[weakref.ref[Any]] = []

    class Watched(loop.Fit):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            kept.extend(map(weakref.ref, (self, *self.datasets, self.learner)))
            kept.extend(map(weakref.ref, self.parameters.values()))

    monkeypatch.setattr(together, "Fit", Watched)
    gc.collect()
    gc.disable()
    try:
        train(tmp_path, POLYGONS, f"seeds={seeds}")
    finally:
        gc.enable()
    assert kept and not any(reference() for reference in kept)


# Finished and changed runs


def test_finished_seeds_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(tmp_path, POLYGONS, "seeds=[0]")
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "seed-0").iterdir()}
    capsys.readouterr()
    train(tmp_path, POLYGONS, "seeds=[0,1]")
    assert f"done already: {folder}/seed-0/result.json" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in (folder / "seed-0").iterdir()}
    assert done(folder / "seed-1")


def test_a_folder_of_another_config_is_refused_and_can_be_discarded(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS, "trainer.steps=1")
    renamed = tmp_path / "polygons_fspool/default"
    shutil.copytree(folder.parent, renamed)
    arguments = [POLYGONS, "scale=smoke", "figures=none", f"paths.outputs={tmp_path}"]
    text = complaint(*arguments)
    assert "trainer.steps: 1 -> None" in text and "restart=true" in text
    assert text.count("->") == 1, "only what differs is named"
    assert "\n" not in text
    assert read(renamed / "smoke-synthetic/seed-0/result.json")["steps"] == 1
    perform(*arguments, "restart=true")
    assert read(renamed / "smoke-synthetic/seed-0/result.json")["steps"] == 16


def test_where_and_how_may_change_between_two_starts(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS, "seeds=[0]")
    same = ["trainer.log_every=5", "trainer.checkpoint_seconds=1", "trainer.stack=0", "threads=1"]
    assert train(tmp_path, POLYGONS, "seeds=[0]", *same) == folder


def test_other_data_in_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, POLYGONS)
    monkeypatch.setattr(Polygons, "fingerprint", "polygons-2")
    arguments = [POLYGONS, "scale=smoke", "figures=none", f"paths.outputs={tmp_path}"]
    assert "data: polygons-1 -> polygons-2" in complaint(*arguments)


# Arithmetic


@pytest.mark.parametrize(("precision", "rounds"), [("float32", False), ("tf32", True)])
def test_float32_is_rounded_to_tf32_where_it_is_asked_for(
    precision: str, rounds: bool, tmp_path: Path, tf32: tuple[Any, Any]
) -> None:
    """PyTorch would round in convolutions without being asked."""
    for flag in tf32:
        flag.allow_tf32 = not rounds
    train(tmp_path, POLYGONS, "trainer.steps=1", f"trainer.precision={precision}")
    assert [flag.allow_tf32 for flag in tf32] == [rounds, rounds]
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cudnn.rnn.fp32_precision


def test_bf16_that_a_gpu_would_imitate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Old GPU")
    check_precision(Precision.float32, torch.device("cuda"))
    with pytest.raises(ConfigError, match="trainer.precision=bf16: Old GPU has no bf16"):
        check_precision(Precision.bf16, torch.device("cuda"))
    check_precision(Precision.bf16, torch.device("cpu"))
