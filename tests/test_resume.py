"""A run that is stopped and started again ends with the same numbers, to the last bit."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from smoke_runs import (
    assert_same_run,
    curve,
    interrupt,
    only,
    read,
    start,
    train,
    weights,
)

from setexp import provenance
from setexp.training import checkpoint

POLYGONS = ("experiment=polygons_fspool", "evaluation.during=test")
STEPS_PER_EPOCH, STEPS = 8, 16


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds 0 and 1 of a polygon run, trained together in one go."""
    return train(tmp_path_factory.mktemp("undisturbed"), *POLYGONS, "seeds=[0,1]")


@pytest.mark.parametrize("step", [1, 7, STEPS_PER_EPOCH, 9, STEPS])
def test_a_signal_at_any_step(
    step: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = interrupt(monkeypatch, tmp_path, step, *POLYGONS)
    assert abs(state["step"] - step) <= 1
    assert not (only(tmp_path) / "seed-0/result.json").exists()
    folder = train(tmp_path, *POLYGONS)
    assert_same_run(folder / "seed-0", undisturbed / "seed-0")


def test_two_signals_in_one_run(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = interrupt(monkeypatch, tmp_path, 3, *POLYGONS)
    second = interrupt(monkeypatch, tmp_path, 8, *POLYGONS)
    assert 0 < first["step"] < second["step"] < STEPS
    assert_same_run(train(tmp_path, *POLYGONS) / "seed-0", undisturbed / "seed-0")


def test_a_requeued_job_that_was_to_start_over_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm starts it with the arguments that it had; an earlier run is discarded once."""
    train(tmp_path, *POLYGONS)
    first = interrupt(monkeypatch, tmp_path, 9, *POLYGONS, "restart=true")
    assert first["step"] < STEPS
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    second = interrupt(monkeypatch, tmp_path, 1, *POLYGONS, "restart=true")
    assert second["step"] > first["step"]


def test_a_requeued_job_that_had_not_yet_started_over_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does another job's marker, or half of a file that a kill left, count for anything."""
    folder = train(tmp_path, *POLYGONS) / "seed-0"
    finished = (folder / "result.json").stat().st_mtime_ns
    (folder / ".checkpoint.pt.1.unfinished").touch()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train(tmp_path, *POLYGONS, "restart=true")
    again = (folder / "result.json").stat().st_mtime_ns
    assert again > finished and not list(folder.glob("*.unfinished"))
    train(tmp_path, *POLYGONS, "restart=true")
    assert (folder / "result.json").stat().st_mtime_ns == again


def test_a_stack_resumed_alone(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, tmp_path, 10, *POLYGONS, "seeds=[0,1]")
    train(tmp_path, *POLYGONS, "seeds=[1]")
    folder = train(tmp_path, *POLYGONS, "seeds=[0]")
    for seed in (0, 1):
        assert_same_run(folder / f"seed-{seed}", undisturbed / f"seed-{seed}")
        record = read(folder / f"seed-{seed}/result.json")
        assert record["provenance"]["stacked_seeds"] == 1


def test_seeds_alone_resumed_in_a_stack(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        interrupt(monkeypatch, tmp_path, 5, *POLYGONS, f"seeds=[{seed}]")
    folder = train(tmp_path, *POLYGONS, "seeds=[0,1]")
    for seed in (0, 1):
        assert_same_run(folder / f"seed-{seed}", undisturbed / f"seed-{seed}")
    assert read(folder / "seed-0/result.json")["provenance"]["stacked_seeds"] == 2


def test_seeds_at_different_steps_go_on_apart(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, tmp_path, 5, *POLYGONS, "seeds=[1]")
    folder = train(tmp_path, *POLYGONS, "seeds=[0,1]")
    for seed in (0, 1):
        assert_same_run(folder / f"seed-{seed}", undisturbed / f"seed-{seed}")
        record = read(folder / f"seed-{seed}/result.json")
        assert record["provenance"]["stacked_seeds"] == 1


def test_files_that_a_kill_left_behind_do_not_matter(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, tmp_path, 9, *POLYGONS)
    folder = only(tmp_path) / "seed-0"
    whole = (folder / "checkpoint.pt").read_bytes()
    (folder / ".checkpoint.pt.12345").write_bytes(whole[: len(whole) // 2])
    (folder / ".result.json.12345").write_text('{"status": "do')
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "epoch": 1, "train/loss": 0.25}\n{"step": 16, "ep')
    assert_same_run(train(tmp_path, *POLYGONS) / "seed-0", undisturbed / "seed-0")


def test_a_damaged_checkpoint_starts_the_run_over(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    interrupt(monkeypatch, tmp_path, 9, *POLYGONS)
    path = only(tmp_path) / "seed-0/checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    assert_same_run(train(tmp_path, *POLYGONS) / "seed-0", undisturbed / "seed-0")
    assert any("its run starts over" in message for message in caplog.messages)


def test_a_record_names_every_commit_that_took_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(commit: str) -> None:
        monkeypatch.setattr(provenance, "_git", lambda *_: commit)
        provenance.code.cache_clear()

    try:
        for commit, batch in (("first", 3), ("second", 1), ("first", 1), ("second", 1)):
            at(commit)
            interrupt(monkeypatch, tmp_path, batch, *POLYGONS)
        at("third")
        record = read(train(tmp_path, *POLYGONS) / "seed-0/result.json")
    finally:
        provenance.code.cache_clear()
    assert [origin["commit"] for origin in record["earlier"]] == ["first", "second"]
    assert record["provenance"]["commit"] == "third"


@pytest.mark.parametrize("lower", [True, False])
def test_the_best_evaluation_is_reported_after_a_resume(
    lower: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = ["trainer.select=best", "trainer.select_metric=direct", "trainer.lr=0.3"]
    overrides = [*POLYGONS, *best, f"trainer.select_lower={lower}", "trainer.epochs=6"]
    whole = train(tmp_path / "whole", *overrides) / "seed-0"
    interrupt(monkeypatch, tmp_path / "cut", 5 * STEPS_PER_EPOCH + 2, *overrides)
    folder = train(tmp_path / "cut", *overrides) / "seed-0"
    assert_same_run(folder, whole)
    measured = [entry["test/direct"] for entry in curve(folder) if "test/direct" in entry]
    chosen = min(measured) if lower else max(measured)
    assert len(set(measured)) == 6
    assert measured[-1] != chosen, "the last weights are the best: this proves nothing"
    assert read(folder / "result.json")["metrics"]["direct"] == chosen
    other = train(tmp_path / "last", *overrides, "trainer.select=last")
    assert read(other / "seed-0/result.json")["metrics"]["direct"] == measured[-1]


def test_evaluations_do_not_touch_training(undisturbed: Path, tmp_path: Path) -> None:
    folder = train(tmp_path, *POLYGONS, "trainer.evaluate_every=0") / "seed-0"
    expected = weights(undisturbed / "seed-0")
    assert all(torch.equal(value, expected[name]) for name, value in weights(folder).items())
    assert not any("test/direct" in entry for entry in curve(folder))


@pytest.mark.parametrize(
    ("experiment", "epochs"), [("polygons_mlp_hungarian", 30), ("dspn_mnist", 5)]
)
def test_kill_at_a_random_moment(
    experiment: str, epochs: int, tmp_path: Path, data_root: Path
) -> None:
    arguments = [f"experiment={experiment}", "trainer.log_every=1", f"trainer.epochs={epochs}"]
    arguments += ["trainer.evaluate_every=5", f"paths.data={data_root}"]
    expected = train(tmp_path / "whole", *arguments) / "seed-0"
    cut = [*arguments, "scale=smoke", "figures=none", f"paths.outputs={tmp_path / 'cut'}"]
    cut.append("trainer.checkpoint_seconds=0")  # a checkpoint after every step
    kill_once_started(cut, tmp_path)
    assert_same_run(train(tmp_path / "cut", *arguments) / "seed-0", expected)


def kill_once_started(arguments: list[str], folder: Path) -> None:
    """Run a command, and kill it some steps after its first one."""
    moment = random.SystemRandom().uniform(0.0, 0.4)
    print(f"killed {moment} seconds after a step")  # shown where the test fails, to repeat it
    with start(*arguments, cwd=folder) as process:
        deadline = time.monotonic() + 60
        while not any(
            checkpoint.step_of(path) > 0 for path in folder.glob("cut/*/*/*/seed-0/checkpoint.pt")
        ):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, f"finished within {moment} seconds"
    assert not list(folder.glob("cut/*/*/*/seed-0/result.json"))
