"""Weights & Biases is a view: whatever it does, runs finish and their own curves are complete."""

import builtins
import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from smoke_runs import assert_same_run, curve, interrupt, read, train

from setexp.training import checkpoint
from setexp.training.settings import Tracking, TrackingMode
from setexp.training.tracking import Tracker

POLYGONS = ("experiment=polygons_fspool", "trainer.epochs=1")
OFFLINE = "tracking.mode=offline"


def records(folder: Path) -> Iterator[Any]:
    """What W&B wrote for one offline run: a log of 32 KiB blocks after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def offline_runs(seed: Path) -> list[Path]:
    return sorted((seed / "wandb").glob("offline-run-*"))


def finished(folder: Path) -> list[Any]:
    """All records of a run; W&B's own process may still be writing the last ones."""
    deadline = time.monotonic() + 20
    while True:
        found = list(records(folder))
        if any(record.HasField("exit") for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def history(folder: Path) -> dict[int, dict[str, Any]]:
    """Logged values by step."""
    found = {}
    for record in finished(folder):
        if record.WhichOneof("record_type") == "history":
            items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            values = {key: json.loads(value) for key, value in items.items()}
            found[values["_step"]] = values
    return found


@pytest.fixture
def _quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.mark.usefixtures("_quiet_home")
@pytest.mark.filterwarnings("default")  # W&B's own
def test_offline_runs_are_below_their_seeds_and_resume_with_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = [*POLYGONS, "seeds=[0,1]", OFFLINE]
    state = interrupt(monkeypatch, tmp_path, 10, *overrides)
    folder = train(tmp_path, *overrides)
    assert "W&B" not in caplog.text
    identities = set()
    for seed in (0, 1):
        runs = offline_runs(folder / f"seed-{seed}")
        about = [next(r.run for r in finished(run) if r.HasField("run")) for run in runs]
        assert len(about) == 2 and about[0].run_id == about[1].run_id
        assert about[0].display_name == f"polygons_fspool-trainer.epochs=1-s{seed}"
        assert about[0].run_group == "polygons_fspool"
        identities.add(about[0].run_id)
        parts = [history(run) for run in runs]
        assert max(parts[0]) <= state["step"] < min(parts[1])
        lines = curve(folder / f"seed-{seed}")
        assert sorted(parts[0] | parts[1]) == [line["step"] for line in lines]
        logged = [values["train/loss"] for _, values in sorted((parts[0] | parts[1]).items())]
        assert logged == [line["train/loss"] for line in lines]
    assert len(identities) == 2, "two seeds are two runs"
    assert state["tracker"] in identities


def test_disabled_tracking_does_not_import_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    folder = train(tmp_path, *POLYGONS)
    assert len(curve(folder / "seed-0")) == 4


class Board:
    """A stand-in for wandb that fails where it is told to."""

    def __init__(self, fails: str, folder: Path) -> None:
        self.fails, self.calls = fails, 0
        self.dir = str(folder)
        self.summary = SimpleNamespace(update=lambda values: self._call("summary"))

    def _call(self, name: str) -> None:
        if name == self.fails:
            raise OSError(f"{name}: no space left on device\nsecond line")

    def init(self, **_: Any) -> "Board":
        self._call("init")
        return self

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.calls += 1
        if self.calls == 2:
            self._call("log")

    def finish(self) -> None:
        self._call("finish")

    def __getattr__(self, name: str) -> Any:
        return lambda **_: None


@pytest.mark.parametrize("fails", ["import", "init", "log", "summary", "finish"])
def test_a_failing_board_costs_nothing_but_itself(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = train(tmp_path / "without", *POLYGONS)
    if fails == "import":
        imported = builtins.__import__

        def without_wandb(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "wandb":
                raise ModuleNotFoundError("No module named 'wandb'")
            return imported(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_wandb)
    else:
        monkeypatch.setitem(sys.modules, "wandb", Board(fails, tmp_path))
    folder = train(tmp_path / "with", *POLYGONS, OFFLINE)
    assert_same_run(folder / "seed-0", expected / "seed-0")
    warnings = [m for m in caplog.messages if "W&B is off for the rest of this run" in m]
    assert len(warnings) == 1 and "\n" not in warnings[0]


def test_a_board_that_cannot_be_reached_works_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: dict[str, str] = {}
    board = Board("nowhere", tmp_path)

    def init(mode: str, id: str, **_: Any) -> Board:
        tried[mode] = id
        if mode == "online":
            raise OSError("no network\nsecond line")
        return board

    monkeypatch.setattr(board, "init", init)
    monkeypatch.setitem(sys.modules, "wandb", board)
    train(tmp_path, *POLYGONS, "tracking.mode=online")
    assert [*tried] == ["online", "offline"] and board.calls > 0
    assert len({*tried.values()}) == 2  # W&B keeps the first
    assert (
        f"W&B is offline (no network); wandb sync {tmp_path.parent} uploads later"
        in caplog.messages
    )


def test_a_board_is_told_how_a_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def update(self: Board, values: dict[str, Any]) -> None:
        told.append(values)

    board = Board("nowhere", tmp_path)
    board.summary = SimpleNamespace(update=lambda values: update(board, values))
    monkeypatch.setitem(sys.modules, "wandb", board)
    interrupt(monkeypatch, tmp_path, 2, *POLYGONS, OFFLINE)
    folder = train(tmp_path, *POLYGONS, OFFLINE) / "seed-0"
    assert told[0] == {"status": "interrupted"}
    assert told[1] == {"metrics": read(folder / "result.json")["metrics"], "status": "done"}


def test_pictures_are_shown_at_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    board = Board("nowhere", tmp_path)
    monkeypatch.setattr(board, "log", lambda values, step: shown.append((step, *values)))
    monkeypatch.setattr(board, "Image", str, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", board)
    train(tmp_path, *POLYGONS, OFFLINE, "figures=polygons")
    assert (8, "polygons") in shown and all(step <= 8 for step, *_ in shown)


# The curves themselves


def tracker(folder: Path, step: int, identity: str | None = None) -> Tracker:
    return Tracker(folder, Tracking(mode=TrackingMode.disabled), {}, identity=identity, step=step)


@pytest.mark.parametrize(
    "rest", ["", '{"step": 6, "a": 0.5}\n', '{"step": 6, "a', '{"step": 4, "a": 0.4}', "\x00\x00"]
)
def test_curves_are_cut_at_the_checkpoint(rest: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "a": 0.1}\n{"step": 4, "b": 0.2}\n' + rest)
    tracker(tmp_path, 4).log(5, {"a": 0.3})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    expected = [{"step": 2, "a": 0.1}, {"step": 4, "b": 0.2}, {"step": 5, "a": 0.3}]
    assert [line for line in lines if line != {"step": 4, "a": 0.4}] == expected


def test_a_new_run_starts_an_empty_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "a": 0.1}\n')
    tracker(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_identities_are_new_or_given(tmp_path: Path) -> None:
    assert tracker(tmp_path, 0, "abc").identity == "abc"
    assert tracker(tmp_path, 0).identity != tracker(tmp_path, 0).identity


def test_a_resumed_run_keeps_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = interrupt(monkeypatch, tmp_path, 2, *POLYGONS)
    folder = train(tmp_path, *POLYGONS) / "seed-0"
    assert checkpoint.load(folder / "checkpoint.pt")["tracker"] == state["tracker"]
