"""Files that are whole or absent, when the disk is full as well, and made by one process."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from setexp.errors import ConfigError
from setexp.files import made_once, read_json, sole_writer, whole, write_bytes


@pytest.mark.parametrize("before", [None, b"old"])
def test_what_does_not_fit_on_the_disk_leaves_nothing_behind(
    before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    if before is not None:
        write_bytes(path, before)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_bytes(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {} if before is None else {path.name: before}
    )


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_json(path) is None
    path.write_text('{"status": "do')
    with pytest.raises(ConfigError, match="result.json: not JSON .*; remove it or restore it"):
        read_json(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_not_finished_leaves_nothing_behind(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "train.tsv"

    def stops() -> None:
        with whole(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        stops()
    assert not list(path.parent.iterdir())
    with whole(path) as unfinished:
        unfinished.write_text("all")
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name] and path.read_text() == "all"


def test_a_second_writer_says_that_it_waits_for_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entered = threading.Event()

    def second() -> None:
        with sole_writer(tmp_path / "train.h5"):
            entered.set()

    with sole_writer(tmp_path / "train.h5"):
        (tmp_path / ".train.h5.1.unfinished").touch()
        (tmp_path / ".train.h5.2.unfinished").mkdir()
        assert capsys.readouterr().out == ""
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
        said = f"waiting for another process that prepares {tmp_path / 'train.h5'}\n"
        assert capsys.readouterr().out == said
    assert entered.wait(5)
    thread.join()
    assert [item.name for item in tmp_path.iterdir()] == [".train.h5.lock"]


def test_what_cannot_be_read_is_not_called_unwritable(tmp_path: Path) -> None:
    path, gone = tmp_path / "data" / "train.h5", tmp_path / "gone.tsv"
    with pytest.raises(FileNotFoundError, match=r"gone\.tsv"), sole_writer(path):
        gone.read_bytes()
    for unwritable in (path, path.parent / "missing" / "part.h5", None):
        message = f"cannot write {path.parent}: No space left on device; make room there"
        with pytest.raises(ConfigError, match=message), sole_writer(path):
            raise OSError(errno.ENOSPC, "No space left on device", unwritable)
    tmp_path.joinpath("file").touch()  # where a folder should be
    below = tmp_path / "file" / "images" / "train.h5"
    message = f"cannot write {below.parent}: Not a directory"
    with pytest.raises(ConfigError, match=message), sole_writer(below):
        pass


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    path, made = tmp_path / "train.h5", []

    def make() -> None:
        made.append(1)
        path.touch()

    threads = [threading.Thread(target=made_once, args=(path, make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1] and made_once(path, make) == path
