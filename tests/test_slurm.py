"""Tables on a Slurm of one node, started by the test: filled, preempted, gone on with."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import DidNotStart, ask, local_slurm, missing
from smoke_runs import ROOT, assert_same_run, command, only, outcome, start, train

from setexp.files import write_json
from setexp.report.progress import progress
from setexp.report.tables import load_table

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"Slurm is not on this machine: no {', '.join(missing())}"
)

# one core and no GPU; what the preset asks for otherwise is not on every machine
LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]
LAUNCHER += ["hydra.launcher.gpus_per_node=null", "hydra.launcher.mem_gb=null"]
TABLE = ["-m", "table=thesis_5_1", "scale=smoke", "figures=none", "seeds=[0]", *LAUNCHER]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """Variables with which commands find a Slurm of two cores."""
    try:
        with local_slurm() as found:
            yield found | {"PYTHONPATH": str(ROOT)}  # jobs start in their launcher's folder
    except DidNotStart as reason:
        pytest.skip(f"Slurm does not start here: {reason}")


def test_jobs_fill_a_table_and_a_failure_stops_none(slurm: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "polygons_fspool/dataset.set_size=4/smoke-synthetic/seed-0/science.json"
    write_json(other, {"data": "of another config"})
    runs = "run=fspool-n_4,fspool-n_2,random-n_2"
    ended = command(*TABLE, runs, f"paths.outputs={tmp_path}", cwd=tmp_path, **slurm)
    assert ended.returncode == 1, ended.stderr
    assert "holds a run of another config" in ended.stderr
    (log,) = tmp_path.glob("sweeps/*/.submitit/*_0/*_log.err")
    assert log.read_text().startswith(f"error: {other.parent} holds a run of another config")
    states = progress(load_table("thesis/5.1"), tmp_path, tmp_path / "none", "smoke")
    assert "synthetic data: 2 of 36 done" in states
    assert "fspool-n_2   done: 0;" in states and "random-n_2   done: 0;" in states


def test_a_preempted_job_is_requeued_and_ends_with_the_same_numbers(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    # hundreds of steps, each with a checkpoint: time for a signal
    how = ["trainer.epochs=40", "trainer.evaluate_every=0"]
    cut = [*TABLE, "run=fspool-n_2", *how, "trainer.checkpoint_seconds=0"]
    with start(*cut, f"paths.outputs={tmp_path}/cut", cwd=tmp_path, **slurm) as launcher:
        wait_for_steps(tmp_path / "cut", launcher)
        (job,) = ask(slurm, "squeue", "-h", "-t", "RUNNING", "-o", "%A").splitlines()
        ask(slurm, "scancel", "--signal=USR2", job)
        _, errors = outcome(launcher)
    assert launcher.returncode == 0, errors
    assert "Restarts=1 " in ask(slurm, "scontrol", "show", "job", job)
    whole = ["experiment=polygons_fspool", "dataset.set_size=2", "seeds=[0]", *how]
    undisturbed = train(tmp_path / "whole", *whole)
    assert_same_run(only(tmp_path / "cut") / "seed-0", undisturbed / "seed-0")


def wait_for_steps(outputs: Path, launcher: subprocess.Popen[str]) -> None:
    """Wait until a run's first losses are on disk."""
    deadline = time.monotonic() + 100
    while not list(outputs.glob("*/*/*/seed-0/metrics.jsonl")):
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
