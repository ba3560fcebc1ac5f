"""One experiment's seeds: models, records, pictures."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from setexp import pretrained
from setexp.build import build
from setexp.crossval import points
from setexp.errors import NonFiniteError
from setexp.files import write_json
from setexp.overrides import arguments, axes, places
from setexp.provenance import code, origin, provenance
from setexp.report.records import run_folder, shell_words, slug
from setexp.report.tables import Run
from setexp.run_folder import RunFolder
from setexp.science import jsonable, science_of
from setexp.training import checkpoint
from setexp.training.loop import Fit
from setexp.training.randomness import derive, for_run
from setexp.training.seeds import stackable
from setexp.training.settings import Evaluation, Use
from setexp.training.tracking import Tracker

log = logging.getLogger(__name__)


class RunResult(NamedTuple):
    """What came of a seed's run.

    Args:
        metrics: measured at the end, or before it diverged; None where nothing was.
        size: steps, parameters and what else a record says beside the metrics.
        seconds: it took, shared by `stacked` seeds that trained together.
        why: it diverged; None where it did not.
        paused: it ended before its last step.
    """

    metrics: dict[str, float] | None
    size: dict[str, Any]
    seconds: float
    stacked: int
    why: str | None = None
    paused: bool = False

    @property
    def status(self) -> str:
        """One word for it."""
        return "diverged" if self.why is not None else "paused" if self.paused else "done"


class Experiment:
    """One experiment's seeds: models, records, pictures."""

    def __init__(
        self,
        config: DictConfig,
        nodes: dict[str, Any],
        overrides: list[str],
        device: torch.device,
    ) -> None:
        self.config, self.nodes = config, nodes
        self.overrides, self.device = overrides, device
        self.dataset = build(nodes["dataset"], "dataset").to(device)
        self.evaluation = evaluation_of(nodes["evaluation"])
        code()  # is noted before it can change
        self.axes, self.places = axes(overrides), places(overrides)
        settings = [f"experiment={config.name}", *arguments(overrides)]
        settings += [f"scale={config.scale}"] if config.scale != "paper" else []
        # no axes, since what they decide is elsewhere in a run's folder, or rounding
        settings += [place for place in self.places if place.startswith("dataset.source=")]
        settings += ["trainer.compile=true"] if config.trainer.compile else []
        self.command = f"python train.py {shell_words(settings)}"

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is built anew, with data of its own."""
        return Experiment, (self.config, self.nodes, self.overrides, self.device)

    def folder_of(self, seed: int) -> Path:
        """Where a seed's run writes."""
        outputs, run = Path(self.config.paths.outputs), Run("", self.config.name, self.axes, ())
        return run_folder(run, seed, outputs, self.config.scale, self.dataset.source)

    def about(self, seed: int) -> dict[str, Any]:
        """What a record says of the run that it is of."""
        return {
            "experiment": self.config.name,
            "axes": self.axes,
            "scale": self.config.scale,
            "source": self.dataset.source,
            "data": self.dataset.fingerprint,
            "seed": seed,
        }

    def pending(self, claims: ExitStack) -> list[int]:
        """Seeds that have no result yet; all folders are this process's while `claims` is open.

        Raises:
            ConfigError: a seed's folder cannot be used.
        """
        for seed in self.config.seeds:
            self._weights_of(seed)  # before anything is written
        if self.nodes["crossval"]["grid"]:
            points(self.config)
        for seed in self.config.seeds:
            self.run_of(seed).claim(claims)
        return [seed for seed in self.config.seeds if not self.run_of(seed).finished()]

    def run_of(self, seed: int) -> RunFolder:
        """The folder of a seed's run."""
        science = science_of(self.nodes, self.dataset.fingerprint)
        return RunFolder(self.folder_of(seed), self.config, science)

    @property
    def splits(self) -> list[str]:
        """Splits that a run reads."""
        how = self.evaluation
        during = [] if how.during is None else [how.during]
        return list(dict.fromkeys(["train", *during, *how.curves, *how.final]))

    def stacks(self) -> bool:
        """Whether several runs may share a process: their model is small enough, and can."""
        with torch.device("meta"):
            task = build(self.nodes["task"], "task")
        fits = stackable(task, self.config.trainer.stack)
        return fits and not getattr(self.dataset, "ragged", False)

    def kind(self) -> str:
        """What runs must have in common to train as one stack: all but numbers of their data."""
        scalars = getattr(self.dataset, "scalars", ())
        dataset = {k: v for k, v in self.nodes["dataset"].items() if k not in scalars}
        return json.dumps(jsonable(self.nodes | {"dataset": dataset}), sort_keys=True)

    def step_of(self, seed: int) -> int:
        """Where a seed goes on; see `checkpoint.step_of`."""
        return checkpoint.step_of(self.folder_of(seed) / "checkpoint.pt")

    def announce(self, seeds: Sequence[int]) -> None:
        """Say what is going to be trained."""
        said = f"{self.command} seeds={list(seeds)} [{self.dataset.source} data, {self.device}]"
        print(said.replace(", ", ","))

    def task(self, seed: int) -> nn.Module:
        """A seed's model before its first step, or to be resumed."""
        task, weights = build(self.nodes["task"], "task"), self._weights_of(seed)
        for part in pretrained.parts(self.nodes["pretrained"]):
            if weights is not None:
                pretrained.load(task, part, weights)
            if self.nodes["pretrained"]["use"] is Use.frozen:
                task.get_submodule(part).requires_grad_(False)
        return task

    def _weights_of(self, seed: int) -> Path | None:
        """Folder of the run that a seed's first weights come from; None where it needs none."""
        run = self.run_of(seed)
        begun = (run.path / "checkpoint.pt").exists() and not run.discards()
        if self.nodes["pretrained"]["use"] is Use.none or begun:
            return None
        where = (Path(self.config.paths.outputs), self.config.scale, self.dataset.source)
        return pretrained.trained(self.nodes["pretrained"], seed, *where, self.places)

    def elsewhere(self, origins: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of where, and from which code, steps were taken, what is not here and now, once each."""
        here = origin(self.device)
        return [o for i, o in enumerate(origins) if o != here and o not in origins[:i]]

    def tracker(self, seed: int, folder: Path, identity: str | None, step: int) -> Tracker:
        """A seed's curves."""
        about = {
            "name": f"{self.config.name}-{slug(self.axes)}-s{seed}",
            "group": self.nodes["tracking"]["group"] or self.config.name,
            "job_type": f"{self.config.scale}-{self.dataset.source}",
            "tags": [self.config.scale, self.dataset.source],
            "config": {**self.nodes, "seed": seed, "axes": self.axes},
        }
        tracking: Any = OmegaConf.to_object(self.config.tracking)
        return Tracker(folder, tracking, about, identity=identity, step=step)

    def record(self, fit: Fit, index: int, failure: str | None) -> list[str]:
        """Final metrics, pictures and result record of one seed; how it diverged, if it did."""
        folder, seed, started = fit.folders[index], fit.seeds[index], time.monotonic()
        tracker = fit.trackers[index]
        metrics: dict[str, float] | None = fit.reports[index] or None  # what was measured so far
        task, paused = None, fit.step < fit.total
        if failure is None and not paused:
            try:
                task, metrics = fit.final(index)
            except NonFiniteError as error:
                failure = str(error)
        module = fit.learner.module(index) if task is None else task
        size = {
            **({"learned": learned} if task is not None and (learned := _learned(task)) else {}),
            **({"earlier": fit.earlier[index]} if fit.earlier[index] else {}),
            "epochs": fit.step / max(fit.per_epoch, 1),
            "steps": fit.step,
            "parameters": sum(p.numel() for p in module.parameters()),
        }
        seconds = fit.seconds + fit.ahead[index] + time.monotonic() - started
        result = RunResult(metrics, size, seconds, fit.learner.count, failure, paused)
        self.write(seed, result)
        if task is not None:
            again = f"{self.command} mode=eval checkpoint={folder}/checkpoint.pt"
            for path in self.pictures(task, folder, seed, again):
                tracker.picture(fit.step, path.stem, path)
        tracker.finish({"metrics": metrics, "status": result.status})
        return [] if failure is None else [failure]

    def pictures(self, task: nn.Module, folder: Path, seed: int, again: str) -> list[Path]:
        """Write pictures; if that fails, print the command that draws them.

        Args:
            again: that command.
        """
        try:
            return draw(self.nodes["figures"], task, self.dataset, folder, seed, self.device)
        except Exception as error:  # whatever it is, other seeds have their results to write
            why = f"{type(error).__name__}: {error}"
            remedy = f"{again} draws them once that is mended; figures=none leaves them out"
            print(f"pictures: not drawn ({why}); {remedy}", file=sys.stderr)
            return []

    def write(self, seed: int, result: RunResult) -> None:
        """Write and print a seed's result record."""
        folder, why = self.folder_of(seed), result.why
        record = self.about(seed) | {
            "status": result.status,
            **({} if why is None else {"why": why, "failed_at_step": result.size["steps"]}),
            "metrics": result.metrics,
            **result.size,
            "provenance": provenance(f"{self.command} seeds=[{seed}]", self.device, result.seconds)
            | {
                "stacked_seeds": result.stacked,
                "processes": self.config.processes,
                "compiled": bool(self.config.trainer.compile),
            },
        }
        write_json(folder / "result.json", record)
        write_json(folder / "status.json", {"status": result.status})
        for name, value in (result.metrics or {}).items():
            print(f"  seed {seed}  {name:<24} {value:.6g}")
        diverged = "" if why is None else " (diverged)"
        print(f"record: {folder}/result.json{diverged}")


def evaluation_of(nodes: dict[str, Any]) -> Evaluation:
    """The section of a config, its parts built."""
    return Evaluation(**{k: build(v, f"evaluation.{k}") for k, v in nodes.items()})


def draw(
    figures: dict[str, Any],
    task: nn.Module,
    dataset: Any,
    folder: Path,
    seed: int,
    device: torch.device,
) -> list[Path]:
    """Pictures of an evaluated task, written to the folder's `pictures`; without the library that
    one needs, there is a warning in its place."""
    pictures: list[Path] = []
    for name, figure in build(figures, "figures").items():
        generator = torch.Generator(device).manual_seed(derive(seed, "figures"))
        try:
            pictures += figure(task, for_run(dataset, seed), folder / "pictures", generator)
        except ImportError as error:
            log.warning("no picture %s: %s; pip install -e '.[plots,tsne]' brings it", name, error)
    for path in pictures:
        print(f"picture: {path}")
    return pictures


def _learned(task: nn.Module) -> dict[str, list[float]]:
    """Functions of one number that parts of a model learned, for charts of them."""
    return {
        name: [round(value, 6) for value in values.tolist()]
        for module in task.modules()
        for name, values in getattr(module, "learned", dict)().items()
    }
