"""The folder of one seed's run: claimed, compared with what an earlier run left there, begun."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from setexp.errors import ClaimedError, ConfigError
from setexp.files import claim, clear, read_json, write_json, write_text
from setexp.science import differences

# Holds the job of Slurm that discarded what a run's folder held before.
_DISCARDED_BY = ".discarded"


class RunFolder:
    """The folder of one seed's run.

    Args:
        path: where it is, or will be.
        config: the run's. science: what of it determines the run's numbers.
    """

    def __init__(self, path: Path, config: DictConfig, science: dict[str, Any]) -> None:
        self.path, self.config, self.science = path, config, science

    def claim(self, claims: ExitStack) -> None:
        """Keep it for this process while `claims` is open.

        Raises:
            ClaimedError: another process has it.
            ConfigError: it cannot be written.
        """
        try:
            claimed = claims.enter_context(claim(self.path))
        except OSError as error:
            raise self._unwritable(error) from None
        if not claimed:
            raise ClaimedError(
                f"{self.path}: another process trains it; wait until that ends, or end it"
            )

    def finished(self) -> bool:
        """Whether nothing is left to train, said if so.

        Raises:
            ConfigError: it holds another run.
        """
        if self.discards():
            return False
        before = read_json(self.path / "science.json")
        if changed := "" if before is None else ", ".join(differences(before, self.science)):
            raise ConfigError(
                f"{self.path} holds a run of another config ({changed}); "
                "restart=true discards it, paths.outputs=... keeps both"
            )
        result, until = read_json(self.path / "result.json"), self.config.trainer.until
        if result is None:
            return False
        if result["status"] == "paused" and (until is None or until > result["epochs"]):
            return False
        print(f"{result['status']} already: {self.path}/result.json")
        return True

    def begin(self) -> None:
        """Write down which run it holds, in place of an earlier one if that goes.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            if self.discards():
                clear(self.path)
                write_text(self.path / _DISCARDED_BY, os.environ.get("SLURM_JOB_ID", ""))
            for stale in self.path.glob(".*.unfinished"):  # of a process that was killed
                stale.unlink()
            if not (self.path / "science.json").exists():
                write_json(self.path / "science.json", self.science)
                config = OmegaConf.to_yaml(self.config, resolve=True)
                write_text(self.path / "config.yaml", config)
        except OSError as error:
            raise self._unwritable(error) from None

    def begins(self) -> bool:
        """Whether the run has yet to take its first step."""
        begun = (self.path / "result.json").exists() or (self.path / "checkpoint.pt").exists()
        return not begun or self.discards()

    def discards(self) -> bool:
        """Whether what it holds is discarded; a job that Slurm starts again has done so, and goes
        on."""
        done = self.path / _DISCARDED_BY
        again = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0 and done.exists()
        return self.config.restart and not (
            again and done.read_text() == os.environ.get("SLURM_JOB_ID", "")
        )

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"paths.outputs={self.config.paths.outputs}: cannot write {self.path}: "
            f"{error.strerror}; name another folder"
        )
