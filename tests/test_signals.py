"""Signals with and without a launcher's handler, and a run's folder while a process holds it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from smoke_runs import ROOT, assert_same_run, complaint, done, signal_at, train

from setexp.files import claim
from setexp.training.signals import StopRequest

POLYGONS = "experiment=polygons_fspool"


@pytest.fixture
def handle() -> Iterator[Callable[[int, Any], None]]:
    """Installer of a launcher's handler; what was there before comes back."""
    before: dict[int, Any] = {}

    def install(number: int, handler: Any) -> None:
        before[number] = signal.signal(number, handler)

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_handler_that_returns_lets_the_run_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handle: Callable[[int, Any], None]
) -> None:
    """Submitit's on SIGTERM: Slurm requeues a job that it ends, not one that ends by itself."""
    seen = []
    handle(signal.SIGTERM, lambda number, frame: seen.append(number))
    undisturbed = train(tmp_path / "undisturbed", POLYGONS)
    with signal_at(monkeypatch, 5, POLYGONS):
        signalled = train(tmp_path / "signalled", POLYGONS)
    assert seen == [signal.SIGTERM]
    assert_same_run(signalled / "seed-0", undisturbed / "seed-0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_without_a_launcher_a_signal_ends_the_run(
    number: int, handle: Callable[[int, Any], None]
) -> None:
    own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    handle(number, own)  # these tests may run in the background themselves
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.event is not None
        with pytest.raises(SystemExit) as caught:
            stop.hand_over()
    assert caught.value.code == 128 + number


def test_a_signal_that_a_shell_ignores_is_ignored(handle: Callable[[int, Any], None]) -> None:
    """Of a script's background jobs, whose Ctrl-C is meant for the script."""
    handle(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.event is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_every_signal_reaches_the_launchers_handler(handle: Callable[[int, Any], None]) -> None:
    seen = []
    handle(signal.SIGUSR2, lambda number, frame: seen.append(number))
    with StopRequest() as stop:
        for count in (1, 2):
            assert stop.event is None
            os.kill(os.getpid(), signal.SIGUSR2)
            assert len(seen) == count - 1, "not before the checkpoint"
            stop.hand_over()
            assert len(seen) == count


def test_slurms_warning_is_not_forgotten_at_the_time_limit(
    handle: Callable[[int, Any], None],
) -> None:
    """SIGTERM within the same step; submitit requeues on SIGUSR2 alone."""
    seen = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        handle(number, lambda number, frame: seen.append(number))
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        stop.hand_over()
    assert seen == [signal.SIGUSR2]


# A folder that another process trains


def held(folder: Path) -> subprocess.Popen[str]:
    """A process that holds a folder until its input ends."""
    code = "import sys; from pathlib import Path; from setexp.files import claim\n"
    code += "with claim(Path(sys.argv[1])) as free: print(free, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    return process


@pytest.mark.parametrize("extra", [[], ["restart=true"]])
def test_a_folder_in_use_is_refused_until_its_process_is_killed(
    extra: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "polygons_fspool/default/smoke-synthetic/seed-0"
    arguments = [POLYGONS, "scale=smoke", "figures=none", f"paths.outputs={tmp_path}", *extra]
    with held(folder) as process:
        text = complaint(*arguments)
        assert text == f"{folder}: another process trains it; wait until that ends, or end it"
        assert [path.name for path in folder.iterdir()] == [".claim"]
        with claim(folder) as free:
            assert not free
        process.kill()
        process.communicate()
    with claim(folder) as free:
        assert free
    assert done(train(tmp_path, POLYGONS, *extra) / "seed-0")


def test_restart_discards_nothing_before_all_seeds_can_be_trained(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS)
    before = (folder / "seed-0/result.json").read_text()
    with held(folder / "seed-1") as process:
        arguments = [POLYGONS, "scale=smoke", "seeds=[0,1]", f"paths.outputs={tmp_path}"]
        assert "another process trains it" in complaint(*arguments, "restart=true")
        process.communicate("")
    assert (folder / "seed-0/result.json").read_text() == before
    assert (folder / "seed-0/checkpoint.pt").exists()


def test_a_finished_run_lets_go_of_its_folder(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS) / "seed-0"
    with held(folder) as process:
        process.communicate("")
