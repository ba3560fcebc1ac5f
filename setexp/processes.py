"""This process as a config wants it, and several that share the work of a run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from setexp.config import register
from setexp.errors import ConfigError
from setexp.memory import keep_freed_memory
from setexp.training.precision import check_precision, set_float32
from setexp.training.signals import SIGNALS, StopRequest

Part = TypeVar("Part")
Found = TypeVar("Found")

# Seconds between looks at whether a signal came.
_PATIENCE = 0.2
# What takes a process seconds to import.
_IMPORTED = ["setexp.together", "torch._dynamo"]


def set_up(config: DictConfig) -> torch.device:
    """Threads, arithmetic and memory of this process as a config wants them; its device.

    Raises:
        ConfigError: they cannot be had here.
    """
    if config.threads:
        try:
            torch.set_num_threads(config.threads)
        except (RuntimeError, ValueError):
            raise ConfigError(f"threads={config.threads}: more than there can be") from None
    device = device_of(config.device)
    set_float32(config.trainer.precision)
    if config.mode == "train":
        check_precision(config.trainer.precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def device_of(name: str) -> torch.device:
    """The device a command names.

    Raises:
        ConfigError: there is none of that name here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={name}: this machine offers no CUDA device; use device=cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError):
        raise ConfigError(f"device={name}: no such device; use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name}: not supported; use auto, cpu or cuda")
    return device


def divided(groups: Sequence[list[Part]], processes: int) -> list[list[Part]]:
    """Groups, cut where there are fewer of them than processes and they have several members."""
    pieces = -(-processes // max(1, len(groups)))
    return [group[k::pieces] for group in groups for k in range(min(pieces, len(group)))]


def spread(work: Callable[[Part], Found], parts: Sequence[Part], config: DictConfig) -> list[Found]:
    """What `work` returns of each part: here one after the other, or with `config.processes` above
    one so many at a time, each in a process of its own with its share of the threads.

    A signal to stop is handed on; the parts that it ends are done again if the process goes on.

    Raises:
        Exception: the first part's that failed, when all have ended.
        SystemExit: a signal asked to stop, and all parts have.
    """
    count = min(config.processes, len(parts))
    if count < 2:
        return [work(part) for part in parts]
    todo, found = list(range(len(parts))), dict[int, Any]()
    running: dict[Connection, _Running] = {}
    with StopRequest() as stop:
        try:
            told = False
            while todo or running:
                while todo and len(running) < count and not stop.event:
                    number = todo.pop(0)
                    place = min({*range(count)} - {one.place for one in running.values()})
                    process, result = _begin((work, parts[number]), config, count, place)
                    running[result] = _Running(number, place, process)
                ready = wait(list(running), _PATIENCE)
                for connection in [c for c in running if c in ready]:
                    number, _, process = running.pop(connection)
                    outcome = _outcome(connection, process)
                    if stop.event and isinstance(outcome, _EndedEarly):
                        todo.append(number)
                    else:
                        found[number] = outcome
                if stop.event and not told:
                    for one in running.values():
                        one.process.terminate()
                    told = True
                if stop.event and not running:
                    stop.hand_over()
                    told = False
        finally:
            for one in running.values():
                one.process.kill()
    outcomes = [found[number] for number in range(len(parts))]
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


class _Running(NamedTuple):
    """A process: the number of its part, its line of the terminal."""

    number: int
    place: int
    process: BaseProcess


class _EndedEarly(ConfigError):
    """A process ended without a result."""


def _begin(
    task: tuple[Callable[[Any], Any], Any], config: DictConfig, count: int, place: int
) -> tuple[BaseProcess, Connection]:
    """A process at work on a part, and where its result will arrive."""
    own = OmegaConf.merge(config, {"threads": max(1, torch.get_num_threads() // count)})
    _serve()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, bytes(ForkingPickler.dumps(task)), own, place)
    process = context.Process(target=_work, args=arguments, daemon=True)
    process.start()
    theirs.close()  # or its end would go unnoticed
    return process, ours


def _serve() -> None:
    """Have a process that forks others: it imports once, and has no thread pools that a fork would
    find locked. No signal to stop ends it, but the end of this process does."""
    forkserver.set_forkserver_preload(_IMPORTED)
    resource_tracker.ensure_running()  # which lets signals through once it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, pickled: bytes, config: DictConfig, place: int) -> None:
    """What such a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the first process tells
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TQDM_POSITION"] = str(place)
    register()
    try:
        set_up(config)
        work, part = pickle.loads(pickled)
        outcome = work(part)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))  # which is lost on the way
        outcome = error
    connection.send(outcome)


def _end_with_parent() -> None:
    """Leave no process behind that still writes into the folders of a killed one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _outcome(connection: Connection, process: BaseProcess) -> Any:
    """What a process that has ended, or is about to, returned or raised."""
    with connection:
        try:
            outcome = connection.recv()
        except EOFError:
            outcome = None
    process.join()
    if process.exitcode:
        return _EndedEarly(
            f"a process of processes=... ended with exit code {process.exitcode}; the same command "
            "goes on"
        )
    return outcome
