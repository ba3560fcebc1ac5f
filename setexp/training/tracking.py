"""Where a run's numbers go: a file of JSON lines that is the truth, and Weights & Biases."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from setexp.files import write_text
from setexp.training.settings import Tracking, TrackingMode

log = logging.getLogger(__name__)


class Tracker:
    """One seed's curves.

    Whatever W&B does (absent, full disk), the run goes on and `metrics.jsonl` is kept. Where it
    cannot be reached, it works offline.

    Args:
        folder: the run's folder.
        tracking: W&B settings.
        run: name, group, tags and config shown in W&B.
        identity: W&B's id of a run that is resumed; None for a new one.
        step: drop earlier lines beyond this step: a resumed run writes them again.
    """

    def __init__(
        self,
        folder: Path,
        tracking: Tracking,
        run: dict[str, Any],
        *,
        identity: str | None,
        step: int,
    ) -> None:
        self.identity = identity or _new_identity()
        self.path = folder / "metrics.jsonl"
        write_text(self.path, "".join(_lines_up_to(self.path, step)))
        self._wandb: Any = None
        if tracking.mode is not TrackingMode.disabled:
            self._try(lambda: self._start(folder, tracking, run, resumed=identity is not None))

    def log(self, step: int, values: dict[str, float | int]) -> None:
        """Append one line, and show it in W&B."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._wandb is not None:
            self._try(lambda: self._wandb.log(values, step=step))

    def sync(self) -> None:
        """Put all lines on the disk, before a checkpoint that goes on after them."""
        with self.path.open("a") as file:
            os.fsync(file.fileno())

    def picture(self, step: int, name: str, path: Path) -> None:
        """Show a picture in W&B."""
        if self._wandb is not None:
            self._try(lambda: self._show(step, name, path))

    def finish(self, summary: dict[str, Any]) -> None:
        """Close the W&B run with its final metrics."""
        if self._wandb is not None:
            self._try(lambda: self._wandb.summary.update(summary))
        if self._wandb is not None:
            self._try(lambda: self._wandb.finish())

    def _start(
        self, folder: Path, tracking: Tracking, run: dict[str, Any], *, resumed: bool
    ) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        init = partial(
            wandb.init,
            project=tracking.project,
            entity=tracking.entity,
            id=self.identity,
            resume="allow" if resumed else None,
            dir=folder,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
            **run,
        )
        try:
            self._wandb = init(mode=tracking.mode.value)
        except Exception as error:  # no network or no account, which a later upload may have
            if tracking.mode is not TrackingMode.online:
                raise
            self.identity = _new_identity()  # W&B does not let go of the one that it failed with
            self._wandb = init(mode=TrackingMode.offline.value, id=self.identity, resume=None)
            said, place = str(error).split("\n")[0], Path(self._wandb.dir).parent
            log.warning("W&B is offline (%s); wandb sync %s uploads later", said, place)
        if not Path(self._wandb.dir).resolve().is_relative_to(folder.resolve()):
            log.warning("W&B could not write below %s; it uses %s", folder, self._wandb.dir)

    def _show(self, step: int, name: str, path: Path) -> None:
        import wandb

        self._wandb.log({name: wandb.Image(str(path))}, step=step)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B raises must not end a run
            log.warning("W&B is off for the rest of this run: %s", str(error).split("\n")[0])
            self._wandb = None


def _new_identity() -> str:
    return uuid.uuid4().hex[:8]


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Lines of a curve up to a step; a line cut short by a kill is dropped."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break
        if entry["step"] <= step:
            lines.append(line + "\n")
    return lines
