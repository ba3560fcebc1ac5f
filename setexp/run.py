"""From a composed config to finished runs: check, build, train, evaluate, record."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import nn

from setexp.build import build, check
from setexp.config import axes, compose_run, plain
from setexp.errors import ConfigError, NonFiniteError
from setexp.files import read_json, write_json, write_text
from setexp.provenance import provenance
from setexp.report.records import axis_text, slug
from setexp.rules import broken_rules
from setexp.training import checkpoint
from setexp.training.evaluate import Evaluation, measure_final
from setexp.training.loop import Fit
from setexp.training.randomness import derive
from setexp.training.seeds import stackable
from setexp.training.settings import Select
from setexp.training.tracking import Tracker

log = logging.getLogger(__name__)

# Sections that determine a run's numbers; the rest is where and how.
_SCIENCE = ("dataset", "encoder", "decoder", "loss", "task", "evaluation", "trainer")
_NOT_SCIENCE = {
    "dataset": ("root", "source"),
    "trainer": ("log_every", "checkpoint_seconds", "stack"),
}


def run(config: DictConfig) -> None:
    """Run a command's config: a table's run, a training or an evaluation.

    A user's mistake is printed as one line, exit code 2; a diverged run likewise, exit code 1.
    HYDRA_FULL_ERROR=1 shows the traceback instead. In a multirun the error is raised as well, so
    that the launcher knows, and the other jobs go on.
    """
    overrides = list(HydraConfig.get().overrides.task)
    try:
        if config.table:
            config, overrides = _table_run(config, overrides)
        execute(config, overrides)
    except (ConfigError, NonFiniteError) as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(f"error: {error}", file=sys.stderr)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None


def _table_run(config: DictConfig, overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """The config and overrides of one run of a table: the table's, then the command line's."""
    from setexp.report.tables import expand

    runs = {r.name: r for r in expand(plain(config.table))}
    if config.run not in runs:
        raise ConfigError(
            f"run={config.run}: add -m to fill the whole table, or name one of {', '.join(runs)}"
        )
    chosen = runs[config.run]
    own = [o for o in overrides if not re.match(r"^(table|run|experiment)=", o)]
    seeds = [f"seeds={list(chosen.seeds)}".replace(" ", "")]
    overrides = [*chosen.overrides, *seeds, *own]
    return compose_run(overrides), overrides


def execute(config: DictConfig, overrides: list[str]) -> None:
    """Check a composed config, build what it names, and train or evaluate.

    Args:
        overrides: those of the command line; they name the run's folder.

    Raises:
        ConfigError: something in the config, the data or the outputs folder does not work.
        NonFiniteError: a seed diverged; the others are finished.
    """
    nodes = plain(config)
    mistakes = [m for part in ("dataset", "task", "evaluation") for m in check(nodes[part], part)]
    # encoder, decoder and loss are checked where the task holds them
    mistakes = [re.sub(r"^task\.(?=encoder|decoder|loss)", "", m) for m in mistakes]
    mistakes += broken_rules(nodes)
    if mistakes:
        raise ConfigError("\nerror: ".join(mistakes))
    with torch.device("meta"):  # constructors refuse what does not fit, at no cost
        build(nodes["task"], "task")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = _device(config.device)
    dataset = build(nodes["dataset"], "dataset").to(device)
    evaluation = _evaluation(nodes["evaluation"])
    mistakes = _splits_without_batch(dataset, evaluation, nodes["trainer"])
    if mistakes:
        raise ConfigError("\nerror: ".join(mistakes))
    if config.mode == "eval":
        _evaluate_only(config, nodes, dataset, evaluation, device)
        return
    experiment = Experiment(config, nodes, overrides, dataset, evaluation, device)
    experiment.run()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={name}: this machine offers no CUDA device; use device=cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except RuntimeError:
        raise ConfigError(f"device={name}: no such device; use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name}: not supported; use auto, cpu or cuda")
    return device


def _splits_without_batch(
    dataset: Any, evaluation: Evaluation, trainer: dict[str, Any]
) -> list[str]:
    needed = [("train", "batch_size")]
    if evaluation.drop_last:
        splits = {evaluation.during, *evaluation.final} - {None}
        needed += [(str(split), "eval_batch_size") for split in sorted(map(str, splits))]
    return [
        f"trainer.{key}={trainer[key]}: only {dataset.sizes(split)} sets in {split}, no full batch"
        for split, key in needed
        if dataset.sizes(split) < trainer[key]
    ]


def _evaluation(nodes: dict[str, Any]) -> Evaluation:
    return Evaluation(**{k: build(v, f"evaluation.{k}") for k, v in nodes.items()})


class Experiment:
    """One experiment's seeds: folders, checks against earlier runs, training, records."""

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

    def run(self) -> None:
        """Train the seeds that have no result yet; several at one step share a process.

        Raises:
            NonFiniteError: some seeds diverged; the others are finished.
        """
        pending = []
        for seed in self.config.seeds:
            folder = self.folder / f"seed-{seed}"
            self._prepare(folder)
            result = read_json(folder / "result.json")
            if result is None:
                pending.append(seed)
            else:
                print(f"{result['status']} already: {folder}/result.json")
        failures = [f for seeds in self._groups(pending) for f in self._fit(seeds)]
        if failures:
            raise NonFiniteError("\nerror: ".join(failures))

    def _prepare(self, folder: Path) -> None:
        """Make a run's folder, or see that it holds the same run."""
        if self.config.restart and folder.exists():
            import shutil

            shutil.rmtree(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / ".writable", "")
            (folder / ".writable").unlink()
        except OSError as error:
            raise ConfigError(
                f"paths.outputs={self.config.paths.outputs}: cannot write {folder}: "
                f"{error.strerror}; name another folder"
            ) from None
        science = {s: self._science(s) for s in _SCIENCE} | {"data": self.dataset.fingerprint}
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
        skipped = _NOT_SCIENCE.get(section, ())
        return _jsonable({k: v for k, v in node.items() if k not in skipped})

    def _groups(self, seeds: Sequence[int]) -> Iterator[list[int]]:
        """Seeds that train together: at the same step, and of a model that is small enough."""
        if not seeds:
            return
        with torch.device("meta"):
            task = build(self.nodes["task"], "task")
        size = sum(p.numel() for p in task.parameters())
        by_step: dict[int, list[int]] = {}
        for seed in seeds:
            by_step.setdefault(self._step_of(seed), []).append(seed)
        for together in by_step.values():
            if 0 < size <= self.config.trainer.stack and stackable(task):
                yield together
            else:
                yield from ([seed] for seed in together)

    def _step_of(self, seed: int) -> int:
        path = self.folder / f"seed-{seed}" / "checkpoint.pt"
        if not path.exists():
            return 0
        try:
            return checkpoint.load(path)["step"]
        except ConfigError as error:  # the same numbers come out of a second start
            log.warning("%s; seed %d starts over", error, seed)
            path.rename(path.with_suffix(".damaged"))
            return 0

    def _fit(self, seeds: list[int]) -> list[str]:
        """Train and record some seeds; how each that diverged did."""
        folders = [self.folder / f"seed-{seed}" for seed in seeds]
        print(
            f"{self.command} seeds={seeds} [{self.dataset.source} data, {self.device}]".replace(
                ", ", ","
            )
        )
        for folder in folders:
            write_json(folder / "status.json", {"status": "running"})
        fit = Fit(
            lambda: build(self.nodes["task"], "task"),
            self.dataset,
            self.evaluation,
            OmegaConf.to_object(self.config.trainer),  # type: ignore[arg-type]
            seeds,
            folders,
            self.device,
            lambda index, identity, step: self._tracker(
                seeds[index], folders[index], identity, step
            ),
        )
        try:
            fit.train()
        except NonFiniteError as error:
            if len(seeds) == 1:
                return self._record(fit, 0, str(error))
            for tracker in fit.trackers:
                tracker.finish({"status": "running"})
            # each goes on alone, which changes nothing for those that are well
            return [failure for seed in seeds for failure in self._fit([seed])]
        except BaseException as error:
            status = "interrupted" if isinstance(error, SystemExit) else "failed"
            for folder, tracker in zip(folders, fit.trackers, strict=True):
                state = {"status": status, "step": fit.step, "steps": fit.total, "why": str(error)}
                write_json(folder / "status.json", state)
                tracker.finish({"status": status})
            raise
        return [failure for i in range(len(seeds)) for failure in self._record(fit, i, None)]

    def _tracker(self, seed: int, folder: Path, identity: str | None, step: int) -> Tracker:
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

    def _record(self, fit: Fit, index: int, failure: str | None) -> list[str]:
        """Final metrics, pictures and result record of one seed; how it diverged, if it did."""
        folder, seed, started = fit.folders[index], fit.seeds[index], time.monotonic()
        tracker = fit.trackers[index]
        metrics: dict[str, float] | None = None
        task = None
        if failure is None:
            try:
                task, metrics = fit.final(index)
            except NonFiniteError as error:
                failure = str(error)
        parameters = sum(p.numel() for p in fit.learner.module(index).parameters())
        record = {
            "experiment": self.config.name,
            "axes": self.axes,
            "scale": self.config.scale,
            "source": self.dataset.source,
            "seed": seed,
            "status": "done" if failure is None else "diverged",
            **({} if failure is None else {"why": failure, "failed_at_step": fit.step}),
            "metrics": metrics,
            "epochs": fit.step / max(fit.per_epoch, 1),
            "steps": fit.step,
            "parameters": parameters,
            "provenance": provenance(
                f"{self.command} seeds=[{seed}]",
                self.device,
                fit.seconds + time.monotonic() - started,
            )
            | {"stacked_seeds": fit.learner.count},
        }
        if task is not None:
            for path in self._figures(task, folder, seed):
                tracker.picture(path.stem, path)
                print(f"picture: {path}")
        write_json(folder / "result.json", record)
        write_json(folder / "status.json", {"status": record["status"]})
        tracker.finish({"metrics": metrics, "status": record["status"]})
        for name, value in (metrics or {}).items():
            print(f"  seed {seed}  {name:<24} {value:.6g}")
        print(f"record: {folder}/result.json")
        return [] if failure is None else [failure]

    def _figures(self, task: nn.Module, folder: Path, seed: int) -> list[Path]:
        pictures = []
        for figure in build(self.nodes["figures"], "figures").values():
            generator = torch.Generator(self.device).manual_seed(derive(seed, "figures"))
            pictures += figure(task, self.dataset, folder / "pictures", generator)
        return pictures


def _evaluate_only(
    config: DictConfig, nodes: dict[str, Any], dataset: Any, evaluation: Evaluation, device: Any
) -> None:
    """`mode=eval checkpoint=PATH`: the final evaluation of saved weights, with other settings."""
    state = checkpoint.load(Path(config.checkpoint), device)
    task = build(nodes["task"], "task").to(device)
    best = nodes["trainer"]["select"] is Select.best and state["best"]
    try:
        task.load_state_dict((best or state)["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"checkpoint={config.checkpoint}: another model: {reason}") from None
    size, seed = config.trainer.eval_batch_size, state["seed"]
    measured = measure_final(task, dataset, evaluation, batch_size=size, seed=seed, device=device)
    path = Path(config.checkpoint).with_name("evaluation.json")
    about = {"source": dataset.source, "seed": seed, "steps": state["step"]}
    write_json(path, about | {"metrics": measured})
    for name, value in measured.items():
        print(f"  {name:<24} {value:.6g}")
    print(f"record: {path}")


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
