"""Files that are either whole or absent, written under another name, then renamed; and locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from setexp.errors import ConfigError

_CLAIM = ".claim"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that then stands at `path`, or leaves nothing; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())  # or a crash may leave the name without the content
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # which a full disk does not say
        raise
    finally:
        unfinished.unlink(missing_ok=True)  # half of it may be what fills the disk


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; its folder is made if it is missing."""
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


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
    file = os.open(folder / _CLAIM, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError as error:
        free = error.errno not in (errno.EACCES, errno.EAGAIN)
    try:
        yield free
    finally:
        os.close(file)


def clear(folder: Path) -> None:
    """Remove what a folder holds, but for the file that it is claimed by."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _CLAIM:
            path.unlink()


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Let one process at a time prepare `path`; others say so and wait, then find it finished.

    The lock is the operating system's, so it ends with a killed process. On a file system without
    locks a second writer may repeat work or stop with an error; files stay whole all the same.

    Raises:
        ConfigError: nothing can be written there, be it now or later.
        OSError: what the body reads elsewhere cannot be read; it says which file.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f".{path.name}.lock", "w") as lock:
            if _locked(lock, path):
                for stale in folder.glob(f".{path.name}.*.unfinished"):
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            yield
    except OSError as error:
        named = Path(error.filename or folder)
        if not (named.is_relative_to(folder) or folder.is_relative_to(named)):
            raise  # of a file that is read
        reason = (error.strerror or str(error)).partition("\n")[0]
        raise ConfigError(
            f"cannot write {folder}: {reason}; make room there, or name another folder, "
            "paths.data=..."
        ) from error


def _locked(lock: IO[str], path: Path) -> bool:
    """Whether this process has the lock, for which it may have to wait; False where none are."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that prepares {path}", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def made_once(path: Path, make: Callable[[], object]) -> Path:
    """A file or folder, made first where it is missing; of several processes, one makes it.

    Raises:
        ConfigError: it cannot be written.
        OSError: as `sole_writer`.
    """
    if not path.exists():
        with sole_writer(path):
            if not path.exists():  # another process may have finished while this one waited
                make()
    return path
