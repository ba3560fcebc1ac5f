"""Every setting of the trainer changes what is computed, and what is said of it."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from smoke_runs import config, curve, read, train, weights

from setexp.datasets.polygons import Polygons
from setexp.rules import broken_rules
from setexp.science import differences, science_of
from setexp.training import checkpoint, loop
from setexp.training.settings import Trainer
from setexp.training.tracking import Tracker

POLYGONS = "experiment=polygons_fspool"


@pytest.mark.parametrize(
    "given",
    [
        "trainer.weight_decay=0.5",
        "trainer.clip=1e-4",
        "trainer.precision=bf16",  # tf32 changes nothing on a CPU
        "trainer.optimizer=rmsprop",
        "trainer.lr_epochs=[1] trainer.lr_factor=0.1",
        "trainer.lr_warmup=3",
        "trainer.lr_warmup_epochs=2",
        "trainer.lr_decay=0.1",
        "trainer.lr_max=1e-5",
        "trainer.batch_size=8",
    ],
)
def test_a_setting_changes_what_is_learned(given: str, tmp_path: Path) -> None:
    usual, other = (
        weights(train(tmp_path / name, POLYGONS, *more) / "seed-0")
        for name, more in (("usual", []), ("other", given.split()))
    )
    assert any(not torch.equal(usual[name], other[name]) for name in usual)


def test_clipping_comes_before_the_step(tmp_path: Path) -> None:
    """Adam's first step is as long as its rate, unless gradients are far below its epsilon."""
    given = ["trainer.lr=1", "trainer.clip=1e-12"]
    start, end = (
        weights(train(tmp_path / str(steps), POLYGONS, *given, f"trainer.steps={steps}") / "seed-0")
        for steps in (0, 1)
    )
    moved = torch.cat([(end[name] - start[name]).flatten() for name in start])
    assert 0 < moved.norm() <= 1.01e-4


def test_passes_are_shuffled_and_of_seeds_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[tuple[int, bool]]] = {}
    batches = Polygons.batches

    def noted(self: Polygons, split: str, size: int, generator: torch.Generator, **how: Any) -> Any:
        asked.setdefault(split, []).append((generator.initial_seed(), how["shuffle"]))
        return batches(self, split, size, generator, **how)

    monkeypatch.setattr(Polygons, "batches", noted)
    train(tmp_path, POLYGONS, "trainer.epochs=3")
    train(tmp_path, POLYGONS, "trainer.epochs=3", "seeds=[1]")
    assert len(set(asked["train"])) == len(asked["train"]) == 6
    assert all(shuffle for _, shuffle in asked["train"])
    assert len({seed for seed, _ in asked["test"]}) == 2, "a run is evaluated on sets of its own"
    assert not any(shuffle for _, shuffle in asked["test"])


def test_evaluations_come_when_they_are_due(tmp_path: Path) -> None:
    given = ["trainer.epochs=5", "trainer.evaluate_every=2", "evaluation.during=test"]
    folder = train(tmp_path, POLYGONS, *given) / "seed-0"
    assert [line["epoch"] for line in curve(folder) if "test/direct" in line] == [1, 3]


def test_a_mean_ends_where_training_ends(tmp_path: Path) -> None:
    """In the second of fifty epochs, of which the first is evaluated."""
    given = ["trainer.epochs=50", "trainer.steps=9", "trainer.average_from=1"]
    folder = train(tmp_path, POLYGONS, *given, "evaluation.during=test") / "seed-0"
    (measured,) = [line["test/direct"] for line in curve(folder) if "test/direct" in line]
    assert read(folder / "result.json")["metrics"]["direct_mean"] == measured


def test_a_trial_of_less_than_an_epoch_says_what_it_does_not_measure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = ["trainer.select=best", "trainer.select_metric=direct", "evaluation.during=test"]
    train(tmp_path, POLYGONS, *best, "trainer.steps=1")
    assert "the first evaluation comes too late to choose from" in caplog.text


def test_seeds_that_begin_apart_keep_their_own_time_and_mean(tmp_path: Path) -> None:
    """Each with steps of its own since it last logged."""

    def apart(outputs: Path, seed: int, log_every: int) -> Path:
        given = [f"seeds=[{seed}]", f"trainer.log_every={log_every}", "trainer.until=1"]
        folder = train(outputs, POLYGONS, *given) / f"seed-{seed}"
        state = checkpoint.load(folder / "checkpoint.pt")
        checkpoint.save(folder / "checkpoint.pt", state | {"seconds": 1000.0 * (seed + 1)})
        return folder

    folders = [apart(tmp_path / "stack", seed, every) for seed, every in ((0, 3), (1, 5))]
    alone = apart(tmp_path / "alone", 1, 5)
    train(tmp_path / "stack", POLYGONS, "seeds=[0,1]", "trainer.log_every=3")
    train(tmp_path / "alone", POLYGONS, "seeds=[1]", "trainer.log_every=3")
    assert read(folders[1] / "result.json")["provenance"]["stacked_seeds"] == 2
    assert curve(folders[1]) == curve(alone)
    seconds = [checkpoint.load(folder / "checkpoint.pt")["seconds"] for folder in folders]
    assert 1000 < seconds[0] < 1100 and seconds[1] - seconds[0] == pytest.approx(1000)


def test_a_checkpoint_is_written_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(checkpoint, "save", lambda _, state: saved.append(state["step"]))
    train(tmp_path, POLYGONS, "trainer.steps=3", "trainer.checkpoint_seconds=0")
    assert saved == [0, 1, 2, 3, 3]


def test_the_time_to_a_checkpoint_counts_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, looks = [], itertools.count()  # a second passes with every look at the clock
    clock = SimpleNamespace(monotonic=lambda: float(next(looks)))
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(checkpoint, "save", lambda _, state: saved.append(state["step"]))
    train(tmp_path, POLYGONS, "trainer.steps=8", "trainer.checkpoint_seconds=3")
    assert saved == [0, 4, 8, 8]


def test_curves_are_on_the_disk_before_a_checkpoint_that_goes_on_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    sync, save = Tracker.sync, checkpoint.save
    monkeypatch.setattr(Tracker, "sync", lambda self: (order.append("sync"), sync(self)))
    monkeypatch.setattr(checkpoint, "save", lambda *a: (order.append("save"), save(*a)))
    train(tmp_path, POLYGONS, "trainer.steps=1")
    assert order == ["sync", "save"] * 2


@pytest.mark.parametrize(
    ("experiment", "given", "expected"),
    [
        ("polygons_fspool", "loss.steps=all", "loss.steps: last -> all"),
        ("polygons_fspool", "trainer.weight_decay=0.5", "trainer.weight_decay: 0.0 -> 0.5"),
        ("polygons_fspool", "trainer.clip=1.0", "trainer.clip: None -> 1.0"),
        ("polygons_fspool", "trainer.select=best", "trainer.select: last -> best"),
        ("polygons_fspool", "encoder.pooling.n_pieces=3", "encoder.pooling.n_pieces: 20 -> 3"),
        ("polygons_fspool", "dataset.set_size=4", "dataset.set_size: 8 -> 4"),
        ("polygons_fspool", "evaluation.drop_last=true", "evaluation.drop_last: False -> True"),
        ("graphs_bio", "crossval.stack=3", None),
        ("graphs_bio", "crossval.together=[]", "crossval.together: "),
        ("mnist_classify_sum", "pretrained.use=frozen", "pretrained: None -> "),
    ],
)
def test_what_changes_numbers_is_noted(experiment: str, given: str, expected: str | None) -> None:
    base = f"experiment={experiment}"
    before, after = (science_of(config(base, *more), "") for more in ([], [given]))
    found = differences(before, after)
    assert any(expected in line for line in found) if expected else found == []


NUMBERS = [f.name for f in fields(Trainer) if re.match(r"(int|float)\b", str(f.type))]
LISTS = [f.name for f in fields(Trainer) if str(f.type) == "list[int]"]


@pytest.mark.parametrize(
    ("name", "value", "each"),
    [*((name, -1, "") for name in NUMBERS), *((name, [-1], " each") for name in LISTS)],
)
def test_no_number_of_a_trainer_is_negative(name: str, value: Any, each: str) -> None:
    nodes = config(POLYGONS)
    nodes["trainer"][name] = value
    limit = re.escape(f"trainer.{name}={value}: at least ") + f"[01]{each}"
    assert any(re.fullmatch(limit, said) for said in broken_rules(nodes))
