"""Losses that are not finite, and runs that raise: what is said, kept and gone on with."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import (
    assert_same_run,
    done,
    failure,
    only,
    read,
    signal_at,
    train,
    weights,
)
from torch import Tensor

from setexp.datasets.polygons import Polygons
from setexp.losses.direct import DirectLoss
from setexp.sets import Batch, SetBatch
from setexp.training import checkpoint, loop
from setexp.training.randomness import derive

POLYGONS = "experiment=polygons_fspool"


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make one batch of one seed's first epoch NaN."""

    def at(seed: int, batch: int) -> None:
        passes = Polygons.batches

        def batches(
            self: Polygons, split: str, size: int, generator: torch.Generator, **how: Any
        ) -> Iterator[Batch]:
            spoiled = generator.initial_seed() == derive(seed, "train", 0)
            first = how.get("start", 0)
            for index, item in enumerate(passes(self, split, size, generator, **how), first):
                if spoiled and index == batch:
                    sets = SetBatch(item.input.x * torch.nan, item.input.mask)
                    yield Batch(sets, sets, item.aux)
                else:
                    yield item

        monkeypatch.setattr(Polygons, "batches", batches)

    return at


@pytest.mark.parametrize("experiment", ["polygons_fspool", "polygons_mlp_hungarian"])
def test_a_huge_learning_rate_stops_the_run(experiment: str, tmp_path: Path) -> None:
    text = failure(tmp_path, f"experiment={experiment}", "trainer.lr=1e30", "seeds=[4]")
    assert "seed 4" in text and "step 2" in text and "\n" not in text
    assert f"data seed {derive(4, 'train', 0)}" in text
    folder = only(tmp_path) / "seed-4"
    record = read(folder / "result.json")
    assert (record["status"], record["metrics"]) == ("diverged", None)
    assert record["why"] == text and record["failed_at_step"] == 2
    assert read(folder / "status.json") == {"status": "diverged"}
    state = checkpoint.load(folder / "checkpoint.pt")
    assert state["step"] == 0
    assert all(value.isfinite().all() for value in state["model"].values())


def test_the_first_bad_step_is_named_though_losses_are_read_rarely(
    tmp_path: Path, spoil: Callable[[int, int], None]
) -> None:
    spoil(0, 4)
    text = failure(tmp_path, POLYGONS, "trainer.log_every=50")
    assert "step 5" in text and f"data seed {derive(0, 'train', 0)}" in text
    assert read(only(tmp_path) / "seed-0/result.json")["failed_at_step"] == 5


def test_healthy_seeds_of_a_stack_finish_with_their_own_numbers(
    tmp_path: Path, spoil: Callable[[int, int], None]
) -> None:
    expected = train(tmp_path / "alone", POLYGONS, "seeds=[0,2]")
    spoil(1, 3)
    text = failure(tmp_path / "stack", POLYGONS, "seeds=[0,1,2]")
    assert "seed 1" in text and "step 4" in text and "\n" not in text
    folder = only(tmp_path / "stack")
    for seed in (0, 2):
        assert_same_run(folder / f"seed-{seed}", expected / f"seed-{seed}")
    assert read(folder / "seed-1/result.json")["status"] == "diverged"
    assert checkpoint.load(folder / "seed-1/checkpoint.pt")["step"] <= 3


def test_seeds_after_a_diverged_one_still_run(
    tmp_path: Path, spoil: Callable[[int, int], None]
) -> None:
    spoil(0, 1)
    failure(tmp_path, POLYGONS, "seeds=[0,1]", "trainer.stack=0")
    folder = only(tmp_path)
    assert read(folder / "seed-0/result.json")["status"] == "diverged"
    assert read(folder / "seed-1/result.json")["status"] == "done"


def test_a_diverged_seed_is_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure(tmp_path, POLYGONS, "trainer.lr=1e30")
    train(tmp_path, POLYGONS, "trainer.lr=1e30")
    assert "diverged already" in capsys.readouterr().out


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite; the square root's gradient at zero is not."""
    forward = DirectLoss.forward

    def broken(self: DirectLoss, prediction: SetBatch, target: SetBatch) -> Tensor:
        return forward(self, prediction, target) + (prediction.x * 0).square().sum().sqrt()

    monkeypatch.setattr(DirectLoss, "forward", broken)
    text = failure(tmp_path, POLYGONS, "trainer.steps=1")
    assert "not finite after step 1" in text
    model = weights(only(tmp_path) / "seed-0")
    assert all(value.isfinite().all() for value in model.values())


def test_metrics_that_are_not_finite_are_a_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: DirectLoss, prediction: SetBatch, target: SetBatch) -> Tensor:
        return prediction.x.sum((0, -1, -2)) * (1.0 if torch.is_grad_enabled() else torch.inf)

    monkeypatch.setattr(DirectLoss, "forward", broken)
    text = failure(tmp_path, POLYGONS, "trainer.steps=1")
    assert "direct is" in text and "seed 0" in text
    assert read(only(tmp_path) / "seed-0/result.json")["status"] == "diverged"


def test_a_run_that_raises_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its second step, since a failing first batch is a mistake of the config."""
    steps, right = iter("ab"), DirectLoss.forward

    def broken(self: DirectLoss, prediction: SetBatch, target: SetBatch) -> Tensor:
        if torch.is_grad_enabled() and next(steps) == "b":
            raise RuntimeError("out of memory")
        return right(self, prediction, target)

    monkeypatch.setattr(DirectLoss, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, POLYGONS)
    state = read(only(tmp_path) / "seed-0/status.json")
    assert state == {"status": "failed", "step": 1, "steps": 16, "why": "out of memory"}


def test_a_paused_run_that_went_on_and_was_interrupted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record stays that of the pause."""
    folder = train(tmp_path, POLYGONS, "trainer.until=1") / "seed-0"
    shutil.copy(folder / "result.json", tmp_path / "paused.json")
    with signal_at(monkeypatch, 2, POLYGONS), pytest.raises(SystemExit):
        train(tmp_path, POLYGONS)
    assert read(folder / "status.json")["status"] == "interrupted"
    assert read(folder / "result.json") == read(tmp_path / "paused.json")


def test_ctrl_c_in_a_final_evaluation_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "measure_final", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, POLYGONS)
    state = read(only(tmp_path) / "seed-0/status.json")
    assert state == {"status": "interrupted", "step": 16, "steps": 16}


def test_a_final_evaluation_that_raises_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = loop.measure_final, 0

    def broken(*args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("out of memory")
        return measure(*args, **kwargs)

    monkeypatch.setattr(loop, "measure_final", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, POLYGONS, "seeds=[0,1]")
    first, second = (only(tmp_path) / f"seed-{seed}" for seed in (0, 1))
    assert read(first / "status.json") == {"status": "done"}
    state = read(second / "status.json")
    assert state == {"status": "failed", "why": "out of memory", "step": 16, "steps": 16}
    assert not done(second)


def test_what_was_measured_before_a_run_diverged_is_kept(tmp_path: Path) -> None:
    later = ("trainer.lr_factor=1e30", "trainer.lr_epochs=[1]")
    overrides = (POLYGONS, "trainer.epochs=3", "trainer.report_at=[1]", *later)
    first = read(train(tmp_path, *overrides, "trainer.until=1") / "seed-0/result.json")
    failure(tmp_path, *overrides)
    record = read(only(tmp_path) / "seed-0/result.json")
    assert (first["status"], record["status"]) == ("paused", "diverged")
    assert first["metrics"] and record["metrics"] == first["metrics"]
