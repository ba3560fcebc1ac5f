"""From a composed config to finished runs: check, build, train, evaluate, record."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import nn

from setexp import pretrained
from setexp.build import build, check
from setexp.config import axes, compose_run, jobs, plain, unknown_keys, unread_widths
from setexp.errors import ClaimedError, ConfigError, NonFiniteError, listed
from setexp.experiment import Experiment, draw, other_encoder
from setexp.files import write_json
from setexp.memory import keep_freed_memory
from setexp.provenance import origin
from setexp.rules import broken_rules
from setexp.together import train
from setexp.training import checkpoint
from setexp.training.evaluate import measure_final
from setexp.training.optimise import within
from setexp.training.precision import check_precision, set_float32
from setexp.training.randomness import for_run
from setexp.training.settings import OPERATIONAL, Evaluation, Select

# Overrides that hold for a run whose weights another one needs, too.
_FOR_BOTH = re.compile(
    rf"(seeds|device|threads|paths\..+|tracking\..+|dataset\.({'|'.join(OPERATIONAL['dataset'])}))="
)
# Seconds between looks at a run that another process trains.
_PATIENCE = 10.0


class FailedRun(CompactHydraException):
    """A run of a multirun failed: what Hydra ends with, without a traceback."""


Command = tuple[DictConfig, list[str]]  # a composed config and the overrides that led to it


def run(config: DictConfig) -> None:
    """Run a command's config: a table's run, a training or an evaluation.

    A user's mistake is printed as one line, exit code 2; a diverged run likewise, exit code 1.
    HYDRA_FULL_ERROR=1 shows the traceback instead. In a multirun the error is raised as well, so
    that the launcher knows, and the other jobs go on.
    """
    overrides = list(HydraConfig.get().overrides.task)
    try:
        others: list[Command] = []
        of_table = bool(config.table)
        if of_table:
            (config, overrides), *others = _table_runs(config, overrides)
        execute(config, overrides, *others, prerequisites=of_table)
    except (ConfigError, NonFiniteError) as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(f"error: {error}", file=sys.stderr)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise FailedRun(f"a run failed: {error}") from None
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except Exception:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            traceback.print_exc()  # launchers keep it to themselves, or may be gone by now
        raise


def _table_runs(config: DictConfig, overrides: list[str]) -> list[Command]:
    """Config and overrides of each run of a table's job: the table's, then the command line's."""
    found, table = jobs(config), plain(config.table)["id"]
    named = {run.name: [run] for runs in found.values() for run in runs}
    chosen = found.get(config.run) or named.get(config.run)
    if chosen is None:
        raise ConfigError(
            f"run={config.run}: add -m to fill the whole table, or name one of {listed(found)}"
        )
    own = [
        o for o in overrides if not re.match(r"^(table(\.points)?|rows|columns|run|experiment)=", o)
    ]
    sets = {key for run in chosen for key in run.axes}
    for key in sets & axes(own).keys():
        raise ConfigError(
            f"{key}: table {table} sets it; leave it out, choose a part of the table with rows= "
            "and columns=, or train an experiment of your own"
        )
    commands = []
    for run in chosen:
        seeds = f"seeds={list(run.seeds)}".replace(" ", "")
        command = [*run.overrides, seeds, f"tracking.group={table}", *own]
        commands.append((compose_run(command), command))
    unread = sorted(set(config.seeds) - set(chosen[0].seeds))
    if unread and config.mode == "train" and any(o.startswith("seeds=") for o in own):
        print(f"seeds={unread}: table {table} does not read them, but {seeds}", file=sys.stderr)
    return commands


def train_first(config: DictConfig, overrides: list[str]) -> None:
    """Train the run whose weights this one begins with, at the same place, where it has not
    finished; a process that trains it already is waited for.
    """
    run = pretrained.origin(plain(config.pretrained))
    if run is None:
        return
    own = [*run.overrides, *(o for o in overrides if _FOR_BOTH.match(o)), f"scale={config.scale}"]
    while True:
        try:
            execute(compose_run(own), own)
            return
        except ClaimedError as error:
            print(f"waiting: {error}")
            time.sleep(_PATIENCE)


def execute(
    config: DictConfig, overrides: list[str], *others: Command, prerequisites: bool = False
) -> None:
    """Check a composed config, build what it names, and train or evaluate.

    Args:
        overrides: those of the command line; they name the run's folder.
        others: more of them; runs that differ in numbers of their data alone train as one stack.
        prerequisites: train what a seed's first weights come from before it, where it is missing.

    Raises:
        ConfigError: something in the config, the data or the outputs folder does not work.
        NonFiniteError: a seed diverged; the others are finished.
    """
    found = []
    for command in ((config, overrides), *others):
        experiment = _experiment(*command)
        if experiment is None:
            continue
        if prerequisites and any(experiment.begins(seed) for seed in experiment.config.seeds):
            train_first(*command)
        found.append(experiment)
    train(found)


def _experiment(config: DictConfig, overrides: list[str]) -> Experiment | None:
    """What a config describes, checked and built; None where it was an evaluation, now done."""
    nodes = plain(config)
    mistakes = unknown_keys(nodes) + unread_widths(config, overrides)
    mistakes += [
        m for part in ("dataset", "task", "evaluation", "figures") for m in check(nodes[part], part)
    ]
    # encoder, decoder and loss are checked where the task holds them
    mistakes = [re.sub(r"^task\.(?=encoder|decoder|loss)", "", m) for m in mistakes]
    mistakes += broken_rules(nodes, parts=not mistakes)
    if mistakes:
        raise ConfigError("\nerror: ".join(mistakes))
    with torch.device("meta"):  # constructors refuse what does not fit, at no cost
        task = build(nodes["task"], "task")
        build(nodes["figures"], "figures")
    part, slice_of = nodes["trainer"]["lr_part"], nodes["trainer"]["slice"]
    if slice_of and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.modules()):
        raise ConfigError(
            f"trainer.slice={slice_of}: batch norm needs whole batches; set it to null"
        )
    if part is not None and not any(within(name, part) for name, _ in task.named_parameters()):
        raise ConfigError(f"trainer.lr_part={part}: the task has no parameters of that name")
    if config.threads:
        try:
            torch.set_num_threads(config.threads)
        except (RuntimeError, ValueError):
            raise ConfigError(f"threads={config.threads}: more than there can be") from None
    device = device_of(config.device)
    set_float32(nodes["trainer"]["precision"])
    if config.mode == "train":
        check_precision(nodes["trainer"]["precision"], device)
    if device.type == "cpu":
        keep_freed_memory()
    dataset = build(nodes["dataset"], "dataset").to(device)
    evaluation = _evaluation(nodes["evaluation"])
    mistakes = _splits_without_batch(dataset, evaluation, nodes["trainer"])
    mistakes += _batch_of_one(nodes["task"], dataset, nodes["trainer"])
    if mistakes:
        raise ConfigError("\nerror: ".join(mistakes))
    if config.mode == "eval":
        _evaluate_only(config, nodes, overrides, dataset, evaluation, device)
        return None
    return Experiment(config, nodes, overrides, dataset, evaluation, device)


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


def _splits_without_batch(
    dataset: Any, evaluation: Evaluation, trainer: dict[str, Any]
) -> list[str]:
    needed = [("train", "batch_size")] if trainer["drop_last"] else []
    final = {str(s) for s in (evaluation.during, *evaluation.final) if s is not None}
    for split in sorted(final | set(evaluation.curves)):
        dataset.sizes(split)  # refuses one that it does not have
    if evaluation.drop_last:
        needed += [(split, "eval_batch_size") for split in sorted(final)]
    return [
        f"trainer.{key}={trainer[key]}: only {dataset.sizes(split)} sets in {split}, no full batch"
        for split, key in needed
        if dataset.sizes(split) < trainer[key]
    ]


def _batch_of_one(task: dict[str, Any], dataset: Any, trainer: dict[str, Any]) -> list[str]:
    """Batch norm refuses a lone vector, which would show at the end of the first epoch."""
    if not (task.get("decoder") or {}).get("_target_", "").endswith("AnswerClassifier"):
        return []
    size = trainer["batch_size"]
    last = dataset.sizes("train") % size if not trainer["drop_last"] else 0
    if 1 not in (size, last):
        return []
    return [
        f"trainer.batch_size={size}: batch norm cannot train on a batch of one set, as the last of "
        "an epoch would be; choose another size"
    ]


def _evaluation(nodes: dict[str, Any]) -> Evaluation:
    return Evaluation(**{k: build(v, f"evaluation.{k}") for k, v in nodes.items()})


def _evaluate_only(
    config: DictConfig,
    nodes: dict[str, Any],
    overrides: list[str],
    dataset: Any,
    evaluation: Evaluation,
    device: torch.device,
) -> None:
    """`mode=eval checkpoint=PATH`: the final evaluation of saved weights, with other settings."""
    state = checkpoint.load(Path(config.checkpoint), device)
    checkpoint.check_vocabulary(config.checkpoint, state, dataset)
    if changed := other_encoder(Path(config.checkpoint).parent, nodes):
        raise ConfigError(
            f"checkpoint={config.checkpoint}: another model ({changed}); give the overrides of "
            "its run, whose config.yaml is beside it"
        )
    task = build(nodes["task"], "task").to(device)
    best = nodes["trainer"]["select"] is Select.best and state["best"]
    try:
        task.load_state_dict((best or state)["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint={config.checkpoint}: another model: {reason}; give the overrides "
            "of its run, whose config.yaml is beside it"
        ) from None
    at, steps = evaluation.at, axes(overrides).get("decoder.steps")
    if at and steps is not None and steps not in at:
        print(f"decoder.steps={steps} is not evaluated; add it to evaluation.at={at}")
    size, seed = config.trainer.eval_batch_size, state["seed"]
    own = for_run(dataset, seed)
    measured = measure_final(task, own, evaluation, batch_size=size, seed=seed, device=device)
    if not measured:
        raise ConfigError(
            "mode=eval: nothing is measured at the end of this experiment; name a split, "
            "'+evaluation.final={test: \"\"}'"
        )
    path = Path(config.checkpoint).with_name("evaluation.json")
    about = {
        "experiment": config.name,
        "axes": axes(overrides),
        "scale": config.scale,
        "source": dataset.source,
        "data": dataset.fingerprint,
        "seed": seed,
        "steps": state["step"],
        **origin(device),
    }
    for name, value in measured.items():
        print(f"  {name:<24} {value:.6g}")
    try:
        write_json(path, about | {"metrics": measured})
    except OSError as error:
        raise ConfigError(
            f"checkpoint={config.checkpoint}: cannot write {path}: {error.strerror}; copy the "
            "checkpoint to a folder of your own"
        ) from None
    print(f"record: {path}")
    draw(nodes["figures"], task, dataset, path.parent / "evaluation", seed, device)
