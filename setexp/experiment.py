"""Experiments' seeds: folders, checks against earlier runs, training, records, pictures."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from setexp import pretrained
from setexp.build import build
from setexp.config import axes
from setexp.crossval import Repeat, points
from setexp.errors import ClaimedError, ConfigError, NonFiniteError
from setexp.files import claim, read_json, write_json, write_text
from setexp.provenance import provenance
from setexp.report.records import axis_text, slug
from setexp.training import checkpoint
from setexp.training.evaluate import Evaluation
from setexp.training.loop import Fit
from setexp.training.randomness import derive, for_run
from setexp.training.seeds import stackable
from setexp.training.settings import Use
from setexp.training.tracking import Tracker

log = logging.getLogger(__name__)

# Sections that determine a run's numbers; the rest is where and how.
_SCIENCE = ("dataset", "encoder", "decoder", "loss", "task", "evaluation", "trainer")
_NOT_SCIENCE = {
    "dataset": ("root", "source"),
    "trainer": ("until", "log_every", "checkpoint_seconds", "stack"),
    "crossval": ("stack",),
}
# Settings that came later: with these values a run is what it was before.
_AS_BEFORE: dict[str, dict[str, Any]] = {
    "trainer": {
        "drop_last": True,
        "slice": None,
        "lr_max": None,
        "milestones": [],
        "average_from": None,
    },
    "evaluation": {"curves": [], "double": False, "summaries": {}},
}


class Experiment:
    """One experiment's seeds: folders, checks against earlier runs, models, records."""

    def __init__(
        self,
        config: DictConfig,
        nodes: dict[str, Any],
        overrides: list[str],
        dataset: Any,
        evaluation: Evaluation,
        device: torch.device,
    ) -> None:
        self.config, self.nodes, self.dataset = config, nodes, dataset
        self.evaluation, self.device = evaluation, device
        self.axes = axes(overrides)
        self.command = "python train.py " + " ".join(
            [f"experiment={config.name}", *(f"{k}={axis_text(v)}" for k, v in self.axes.items())]
            + ([f"scale={config.scale}"] if config.scale != "paper" else [])
        )
        folder = Path(config.paths.outputs) / config.name / slug(self.axes)
        self.folder = folder / f"{config.scale}-{dataset.source}"

    def pending(self, claims: ExitStack) -> list[int]:
        """Seeds that have no result yet; their folders are this process's while `claims` is open.

        Raises:
            ConfigError: a seed's folder cannot be used.
        """
        for seed in self.config.seeds:
            self._weights_of(seed)  # before anything is written
        if self.nodes["crossval"]["grid"]:
            points(self.config)
        pending = []
        for seed in self.config.seeds:
            folder = self.folder / f"seed-{seed}"
            self._prepare(folder, claims)
            result = read_json(folder / "result.json")
            if result is None or self._goes_on(result):
                pending.append(seed)
            else:
                print(f"{result['status']} already: {folder}/result.json")
        return pending

    def _goes_on(self, result: dict[str, Any]) -> bool:
        until = self.config.trainer.until
        return result["status"] == "paused" and (until is None or until > result["epochs"])

    def _prepare(self, folder: Path, claims: ExitStack) -> None:
        """Make a run's folder this process's own, or see that it holds the same run."""
        try:
            claimed = claims.enter_context(claim(folder))
            if claimed and self.config.restart:
                shutil.rmtree(folder)
                claimed = claims.enter_context(claim(folder))
        except OSError as error:
            raise ConfigError(
                f"paths.outputs={self.config.paths.outputs}: cannot write {folder}: "
                f"{error.strerror}; name another folder"
            ) from None
        if not claimed:
            raise ClaimedError(
                f"{folder}: another process trains it; wait until that ends, or end it"
            )
        science = {s: self._science(s) for s in _SCIENCE} | {"data": self.dataset.fingerprint}
        if self.nodes["pretrained"]["use"] is not Use.none:
            science["pretrained"] = self._science("pretrained")
        if self.nodes["crossval"]["grid"]:
            science["crossval"] = self._science("crossval")
        before = read_json(folder / "science.json")
        if before is not None and before != science:
            changed = ", ".join(_differences(before, science, ""))
            raise ConfigError(
                f"{folder} holds a run of another config ({changed}); "
                "restart=true discards it, paths.outputs=... keeps both"
            )
        if before is None:
            write_json(folder / "science.json", science)
            write_text(folder / "config.yaml", OmegaConf.to_yaml(self.config, resolve=True))

    def _science(self, section: str) -> Any:
        node = self.nodes[section]
        if not isinstance(node, dict):
            return node
        skipped, before = _NOT_SCIENCE.get(section, ()), _AS_BEFORE.get(section, {})
        kept = {k: v for k, v in node.items() if k not in skipped}
        return _jsonable({k: v for k, v in kept.items() if k not in before or v != before[k]})

    def stacks(self) -> bool:
        """Whether several runs may share a process: their model is small enough, and can."""
        with torch.device("meta"):
            task = build(self.nodes["task"], "task")
        size = sum(p.numel() for p in task.parameters())
        fits = 0 < size <= self.config.trainer.stack and stackable(task)
        return fits and not getattr(self.dataset, "ragged", False)

    def kind(self) -> str:
        """What runs must have in common to train as one stack: all but numbers of their data."""
        scalars = getattr(self.dataset, "scalars", ())
        dataset = {k: v for k, v in self.nodes["dataset"].items() if k not in scalars}
        return json.dumps(_jsonable(self.nodes | {"dataset": dataset}), sort_keys=True)

    def step_of(self, seed: int) -> int:
        """Where a seed goes on."""
        path = self.folder / f"seed-{seed}" / "checkpoint.pt"
        if not path.exists():
            return 0
        try:
            return checkpoint.load(path)["step"]
        except ConfigError as error:  # the same numbers come out of a second start
            log.warning("%s; seed %d starts over", error, seed)
            path.rename(path.with_suffix(".damaged"))
            return 0

    def announce(self, seeds: Sequence[int]) -> None:
        """Say what is going to be trained."""
        said = f"{self.command} seeds={list(seeds)} [{self.dataset.source} data, {self.device}]"
        print(said.replace(", ", ","))

    def cross_validate(self, seed: int) -> list[str]:
        """Train and record the cross-validation of one seed; how it diverged, if it did."""
        folder, started = self.folder / f"seed-{seed}", time.monotonic()
        self.announce([seed])
        own = for_run(self.dataset, seed)
        repeat = Repeat(self.config, own, self.evaluation, seed, folder, self.device)
        tracker = self.tracker(seed, folder, None, 0)
        write_json(folder / "status.json", {"status": "running"})
        failure, cost, metrics, point = None, None, None, repeat.points[0]
        with _early_end_noted([folder], [tracker]):
            try:
                cost = repeat.train()
            except NonFiniteError as error:
                failure = str(error)
        cost = cost or {"steps": 0, "seconds": time.monotonic() - started, "stacked": 1}
        if failure is None:
            point, metrics = repeat.choose()
            metrics |= self.dataset.statistics
        with torch.device("meta"):
            parameters = sum(p.numel() for p in point.task().parameters())
        size = {
            "epochs": point.trainer.epochs,
            "steps": cost["steps"],
            "parameters": parameters,
        }
        status = self._write(seed, metrics, failure, size, cost["seconds"], cost["stacked"])
        tracker.finish({"metrics": metrics, "status": status})
        return [] if failure is None else [failure]

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
        begun = (self.folder / f"seed-{seed}" / "checkpoint.pt").exists()
        if self.nodes["pretrained"]["use"] is Use.none or begun:
            return None
        where = (Path(self.config.paths.outputs), self.config.scale, self.dataset.source)
        return pretrained.trained(self.nodes["pretrained"], seed, *where)

    def tracker(self, seed: int, folder: Path, identity: str | None, step: int) -> Tracker:
        """A seed's curves."""
        table = self.nodes["tracking"]["group"] or self.config.name
        about = {
            "name": f"{self.config.name}-{slug(self.axes)}-s{seed}",
            "group": table,
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
        metrics: dict[str, float] | None = None
        task = None
        status = "done"
        if failure is None and fit.step < fit.total:
            status, metrics = "paused", fit.reports[index]
        elif failure is None:
            try:
                task, metrics = fit.final(index)
            except NonFiniteError as error:
                failure = str(error)
        module = fit.learner.module(index) if task is None else task
        size = {
            **({"learned": learned} if task is not None and (learned := _learned(task)) else {}),
            "epochs": fit.step / max(fit.per_epoch, 1),
            "steps": fit.step,
            "parameters": sum(p.numel() for p in module.parameters()),
        }
        seconds = fit.seconds + time.monotonic() - started
        status = self._write(seed, metrics, failure, size, seconds, fit.learner.count, status)
        if task is not None:
            for path in draw(self.nodes["figures"], task, self.dataset, folder, seed, self.device):
                tracker.picture(path.stem, path)
        tracker.finish({"metrics": metrics, "status": status})
        return [] if failure is None else [failure]

    def _write(
        self,
        seed: int,
        metrics: dict[str, float] | None,
        failure: str | None,
        size: dict[str, Any],
        seconds: float,
        stacked: int,
        status: str = "done",
    ) -> str:
        """Write and print a seed's result record; its status."""
        folder = self.folder / f"seed-{seed}"
        record = {
            "experiment": self.config.name,
            "axes": self.axes,
            "scale": self.config.scale,
            "source": self.dataset.source,
            "data": self.dataset.fingerprint,
            "seed": seed,
            "status": status if failure is None else "diverged",
            **({} if failure is None else {"why": failure, "failed_at_step": size["steps"]}),
            "metrics": metrics,
            **size,
            "provenance": provenance(f"{self.command} seeds=[{seed}]", self.device, seconds)
            | {"stacked_seeds": stacked, "compiled": bool(self.config.trainer.compile)},
        }
        write_json(folder / "result.json", record)
        write_json(folder / "status.json", {"status": record["status"]})
        for name, value in (metrics or {}).items():
            print(f"  seed {seed}  {name:<24} {value:.6g}")
        print(f"record: {folder}/result.json")
        return str(record["status"])


Member = tuple[Experiment, int]  # a seed of an experiment


def train(experiments: Sequence[Experiment]) -> None:
    """Train the seeds of some experiments that have no result yet.

    Those at one step, of experiments that differ in numbers of their data alone, share a process.

    Raises:
        ConfigError: a seed's folder cannot be used.
        NonFiniteError: some seeds diverged; the others are finished.
    """
    with ExitStack() as claims:
        pending = [(one, seed) for one in experiments for seed in one.pending(claims)]
        validated = [(one, seed) for one, seed in pending if one.nodes["crossval"]["grid"]]
        failures = [f for one, seed in validated for f in one.cross_validate(seed)]
        rest = [member for member in pending if member not in validated]
        failures += [f for members in _groups(rest) for f in _fit(members)]
    if failures:
        raise NonFiniteError("\nerror: ".join(failures))


def _groups(pending: Sequence[Member]) -> Iterator[list[Member]]:
    """Those that train together."""
    alike: dict[tuple[str, int], list[Member]] = {}
    for one, seed in pending:
        alike.setdefault((one.kind(), one.step_of(seed)), []).append((one, seed))
    for members in alike.values():
        if members[0][0].stacks():
            yield members
        else:
            yield from ([member] for member in members)


def _fit(members: list[Member]) -> list[str]:
    """Train and record some seeds; how each that diverged did."""
    experiments, seeds = zip(*members, strict=True)
    folders = [one.folder / f"seed-{seed}" for one, seed in members]
    for one in dict.fromkeys(experiments):
        one.announce([seed for other, seed in members if other is one])
    fit = Fit(
        lambda index: experiments[index].task(seeds[index]),
        [for_run(one.dataset, seed) for one, seed in members],
        experiments[0].evaluation,
        OmegaConf.to_object(experiments[0].config.trainer),  # type: ignore[arg-type]
        seeds,
        folders,
        experiments[0].device,
        lambda index, identity, step: experiments[index].tracker(
            seeds[index], folders[index], identity, step
        ),
    )
    for folder in folders:
        write_json(folder / "status.json", {"status": "running"})
    with _early_end_noted(folders, fit.trackers, lambda: {"step": fit.step, "steps": fit.total}):
        try:
            fit.train()
        except NonFiniteError as error:
            if len(members) == 1:
                return experiments[0].record(fit, 0, str(error))
        else:
            if len(members) > 1:
                print(f"{len(members)} runs trained as one stack in {fit.seconds:.1f} s")
            return [f for i, one in enumerate(experiments) for f in one.record(fit, i, None)]
    for tracker in fit.trackers:
        tracker.finish({"status": "running"})
    # each goes on alone, which changes nothing for those that are well
    return [failure for member in members for failure in _fit([member])]


@contextmanager
def _early_end_noted(
    folders: Sequence[Path],
    trackers: Sequence[Tracker],
    progress: Callable[[], dict[str, int]] = dict,
) -> Iterator[None]:
    """Where a signal or an error ends a run, the folders of seeds without a result say so."""
    try:
        yield
    except BaseException as error:
        ended = {"status": "failed", "why": str(error) or type(error).__name__}
        if isinstance(error, SystemExit):
            ended = {"status": "interrupted"}
        for folder, tracker in zip(folders, trackers, strict=True):
            if not (folder / "result.json").exists():
                write_json(folder / "status.json", ended | progress())
                tracker.finish(ended)
        raise


def draw(
    figures: dict[str, Any],
    task: nn.Module,
    dataset: Any,
    folder: Path,
    seed: int,
    device: torch.device,
) -> list[Path]:
    """Pictures of an evaluated task, written to the folder's `pictures`."""
    pictures: list[Path] = []
    for figure in build(figures, "figures").values():
        generator = torch.Generator(device).manual_seed(derive(seed, "figures"))
        pictures += figure(task, for_run(dataset, seed), folder / "pictures", generator)
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


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return getattr(value, "name", value)


def _differences(a: Any, b: Any, path: str) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            d
            for k in sorted(a.keys() | b.keys())
            for d in _differences(a.get(k), b.get(k), f"{path}.{k}".lstrip("."))
        ]
    return [] if a == b else [f"{path}: {a} -> {b}"]
