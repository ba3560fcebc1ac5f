"""Runs divided among processes: the same numbers, whatever ends them."""

import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import assert_same_run, composed, done, only, outcome, read, start, train

from setexp.errors import ConfigError
from setexp.processes import divided, spread

POLYGONS = "experiment=polygons_fspool"
TWO = ("processes=2", "threads=2")


@given(st.lists(st.integers(1, 9), max_size=5), st.integers(1, 6))
def test_groups_are_cut_only_where_processes_would_have_nothing_to_do(
    sizes: list[int], processes: int
) -> None:
    numbers = itertools.count()
    groups = [[next(numbers) for _ in range(size)] for size in sizes]
    parts = divided(groups, processes)
    assert sorted(n for part in parts for n in part) == sorted(n for g in groups for n in g)
    assert all(parts) and all(any({*part} <= {*group} for group in groups) for part in parts)
    assert len(parts) >= min(processes, sum(sizes), sum(min(s, processes) for s in sizes) or 0, 1)
    if len(groups) >= processes:
        assert parts == groups


@pytest.mark.parametrize(
    "overrides",
    [
        [POLYGONS, "seeds=[0,1,2]"],
        ["experiment=graphs_bio"],
        ["experiment=dspn_clevr_state_mlp", "seeds=[0,1]"],  # too large to stack
    ],
    ids=["seeds", "folds", "alone"],
)
def test_numbers_are_those_of_one_process(
    overrides: list[str], tmp_path: Path, data_root: Path
) -> None:
    """In as many threads: a sum may round by their number."""
    own = [*overrides, f"paths.data={data_root}"]
    divided_ = train(tmp_path / "divided", *own, *TWO)
    together = train(tmp_path / "together", *own, "threads=1")
    for folder in together.iterdir():
        assert_same_run(divided_ / folder.name, folder)
        about = read(divided_ / folder.name / "result.json")["provenance"]
        assert about["processes"] == 2


# Far more epochs than a test lasts, and numbers after the first.
EPOCHS = 100_000
ENDLESS = (
    *(POLYGONS, "scale=smoke", "figures=none", "seeds=[0,1]"),
    *(f"trainer.epochs={EPOCHS}", "trainer.report_at=[1]"),
)


def begun(tmp_path: Path, written: str = "metrics.jsonl") -> "subprocess.Popen[str]":
    """A command whose two runs have written a file, by default after some steps."""
    tmp_path.mkdir(exist_ok=True)
    process = start(*ENDLESS, *TWO, f"paths.outputs={tmp_path}", cwd=tmp_path, group=0)
    until = time.monotonic() + 100
    while len(list(tmp_path.glob(f"*/*/*/seed-*/{written}"))) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return process


def test_a_signal_stops_all_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """A terminal's Ctrl-C, which it sends to all of them."""
    with begun(tmp_path / "cut") as process:
        os.killpg(process.pid, signal.SIGINT)
        outcome(process)
    assert process.returncode == 128 + signal.SIGINT
    epochs = []
    for folder in only(tmp_path / "cut").iterdir():
        status = read(folder / "status.json")
        assert status["status"] == "interrupted" and 0 < status["step"] < status["steps"]
        epochs.append(status["step"] * EPOCHS // status["steps"])
    later = (*ENDLESS, "threads=1", f"trainer.until={max(epochs) + 2}")
    undisturbed = train(tmp_path / "whole", *later)
    for folder in train(tmp_path / "cut", *later).iterdir():
        assert_same_run(folder, undisturbed / folder.name)


def test_a_signal_may_come_before_there_are_processes(tmp_path: Path) -> None:
    with begun(tmp_path, "config.yaml") as process:
        os.killpg(process.pid, signal.SIGINT)
        _, said = outcome(process)
    assert process.returncode == 128 + signal.SIGINT, said
    assert "Traceback" not in said


def test_processes_end_with_a_killed_one(tmp_path: Path) -> None:
    """Else they would write into folders that the same command, given again, holds."""
    with begun(tmp_path) as process:
        process.kill()
        process.wait()  # and its pipes close when its processes have ended, too
        outcome(process)
    assert not any(map(done, only(tmp_path).iterdir()))


def work(said: str) -> tuple[str, int]:
    """Work that may fail, or end its process."""
    if said == "die":
        os._exit(7)
    if said == "fail":
        raise ConfigError("one fails")
    return said, os.getpid()


def test_each_part_has_a_process_and_results_are_in_their_order() -> None:
    found = spread(work, ["a", "b", "c"], composed(POLYGONS, *TWO))
    assert [said for said, _ in found] == ["a", "b", "c"]
    assert len({process for _, process in found}) == 3


@pytest.mark.parametrize(
    ("part", "why"), [("fail", "^one fails"), ("die", "exit code 7; the same command goes on")]
)
def test_a_part_that_fails_is_told(part: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        spread(work, ["a", part], composed(POLYGONS, *TWO))
    where = "".join(getattr(caught.value, "__notes__", ()))
    assert ("in work" in where) == (part == "fail")
