"""Files that are whole or absent, when the disk is full as well."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from setexp.errors import ConfigError
from setexp.files import read_json, write_bytes


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
    with pytest.raises(OSError, match="No space left on device"):
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
