"""A Slurm of one node for the tests: its own daemons, key, ports and folder, ended afterwards."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DAEMONS = ("munged", "slurmctld", "slurmd")
# packages put daemons where a user's PATH may not look
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_REQUEUED_AFTER = 5  # seconds that a requeued job waits at least; Slurm's default is 120


class DidNotStart(Exception):
    """The node did not come up."""


def missing() -> list[str]:
    """Programs of Slurm that this machine does not have."""
    return [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=_PATH) is None]


@contextmanager
def local_slurm() -> Iterator[dict[str, str]]:
    """Start the daemons in a temporary folder; variables with which Slurm's commands find them.

    Raises:
        DidNotStart: the node does not come up; what its daemons said.
    """
    started: list[subprocess.Popen[bytes]] = []
    # not pytest's folder: a socket's path has at most 107 letters
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        (folder / "slurm.conf").write_text("\n".join([*_settings(folder), ""]))
        found = {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}

        def start(*command: str) -> None:
            with (folder / f"{command[0]}.out").open("wb") as out:
                started.append(
                    subprocess.Popen(
                        command, env=os.environ | found, cwd=folder, stdout=out, stderr=out
                    )
                )

        try:
            paths = {"socket": "socket", "key-file": "key", "pid-file": "pid"}
            paths |= {"log-file": "log", "seed-file": "seed"}
            start("munged", "-F", "-f", *(f"--{k}={folder}/munge.{v}" for k, v in paths.items()))
            _started(lambda: (folder / "munge.socket").exists(), started, folder)
            start("slurmctld", "-D")
            start("slurmd", "-D")
            _started(lambda: ask(found, "sinfo", "-h", "-o", "%T") == "idle", started, folder)
            if ask(found, "srun", "echo", "up") != "up":
                raise DidNotStart("srun does not run")
            yield found
        finally:
            _end(started, found)


def ask(found: dict[str, str], *command: str) -> str:
    """What one of Slurm's commands prints; nothing where it has no answer in time."""
    try:
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30}
        return str(subprocess.run(command, env=os.environ | found, **how).stdout).strip()
    except subprocess.TimeoutExpired:
        return ""


def _settings(folder: Path) -> list[str]:
    node, user = socket.gethostname().partition(".")[0], getpass.getuser()
    return [
        "ClusterName=test",
        f"SlurmctldHost={node}(127.0.0.1)",
        f"SlurmctldPort={_free_port()}",
        f"SlurmdPort={_free_port()}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"AuthInfo=socket={folder}/munge.socket,cred_expire={_REQUEUED_AFTER}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd.pid",
        # no control groups, no accounting: a container has neither
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "MpiDefault=none",
        "ReturnToService=2",
        "KillWait=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SchedulerParameters=sched_interval=1,bf_interval=1",
        f"NodeName={node} NodeAddr=127.0.0.1 CPUs={min(2, os.cpu_count() or 1)}",
        "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE",
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started(
    ready: Callable[[], bool], started: list[subprocess.Popen[bytes]], folder: Path
) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        if any(p.poll() is not None for p in started) or time.monotonic() > deadline:
            said = [path.read_text(errors="replace").splitlines() for path in folder.glob("*.out")]
            raise DidNotStart("; ".join(lines[-1] for lines in said if lines))
        time.sleep(0.1)


def _end(started: list[subprocess.Popen[bytes]], found: dict[str, str]) -> None:
    if len(started) == len(DAEMONS) and ask(found, "squeue", "-h"):
        ask(found, "scancel", "--user", getpass.getuser())
        deadline = time.monotonic() + 20
        while ask(found, "squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.1)
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
