"""Files that are either whole or absent: written under another name, then renamed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setexp.errors import ConfigError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # half of it may be what fills the disk
        raise


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable, with a final newline."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; None where the file does not exist.

    Raises:
        ConfigError: the file holds something else.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:  # no JSON, or no text
        raise ConfigError(f"{path}: not JSON ({error}); remove it or restore it") from None


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Keep a folder, made if it is missing, for this process; whether no other one holds it.

    The system lets go of it when the process ends, however it ends. Where the file system knows no
    locks, everybody gets the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".claim", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError as error:
        free = error.errno not in (errno.EACCES, errno.EAGAIN)
    try:
        yield free
    finally:
        os.close(file)
