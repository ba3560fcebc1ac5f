"""From a composed config to finished runs: check, build, train, evaluate, record."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import nn

from setexp import pretrained
from setexp.build import build, check
from setexp.config import compose_run, jobs, plain, unknown_keys, unread_widths
from setexp.errors import ClaimedError, ConfigError, NonFiniteError, listed, refuse
from setexp.evaluate_saved import evaluate_saved
from setexp.experiment import Experiment
from setexp.overrides import axes
from setexp.processes import set_up
from setexp.report.tables import config_name
from setexp.rules import broken_rules, rules_broken_by_data
from setexp.together import train
from setexp.training.optimise import within
from setexp.training.settings import OPERATIONAL

# Overrides that hold for a run whose weights another one needs, too.
_FOR_BOTH = re.compile(
    r"(seeds|device|threads|processes|paths\..+|tracking\..+"
    rf"|dataset\.({'|'.join(OPERATIONAL['dataset'])}))="
)
# Seconds between looks at a run that another process trains.
_PATIENCE = 10.0


class FailedRun(CompactHydraException):
    """A run of a multirun failed: what Hydra ends with, without a traceback."""


Command = tuple[DictConfig, list[str]]  # a composed config and the overrides that led to it


def run(config: DictConfig) -> None:
    """Run a command's config: a table's run, a training or an evaluation.

    A user's mistake is printed as one line, exit code 2; a diverged run likewise, exit code 1, and
    Ctrl-C, exit code 130. HYDRA_FULL_ERROR=1 shows the traceback instead. In a multirun the error
    is raised as well, so that the launcher knows, and the other jobs go on.
    """
    overrides = list(HydraConfig.get().overrides.task)
    try:
        others: list[Command] = []
        of_table = bool(config.table)
        if of_table:
            (config, overrides), *others = _table_runs(config, overrides)
        execute(config, overrides, *others, prerequisites=of_table)
    except (ConfigError, NonFiniteError, KeyboardInterrupt) as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        if _interrupted(error):  # in an evaluation, or while data are drawn
            print("interrupted; the same command goes on", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        print(f"error: {error}", file=sys.stderr)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise FailedRun(f"a run failed: {error}") from None
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except Exception:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            traceback.print_exc()  # launchers keep it to themselves, or may be gone by now
        raise


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error: what it cuts off may fail in turn while it tidies up."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _table_runs(config: DictConfig, overrides: list[str]) -> list[Command]:
    """Config and overrides of each run of a table's job: the table's, then the command line's."""
    found, table = jobs(config), plain(config.table)["id"]
    named = {run.name: [run] for runs in found.values() for run in runs}
    chosen = found.get(config.run) or named.get(config.run)
    if chosen is None:
        name = config_name(table)
        said = f"table={name}: add -m to fill it, or choose a run with run=NAME"
        if config.run is not None:
            said = f"run={config.run}: table={name} has no such run; choose another"
        raise ConfigError(f"{said}; there are {listed(found)}")
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
        if experiment.config.mode == "eval":
            evaluate_saved(experiment)
            continue
        if prerequisites and any(
            experiment.run_of(seed).begins() for seed in experiment.config.seeds
        ):
            train_first(*command)
        found.append(experiment)
    train(found)


def _experiment(config: DictConfig, overrides: list[str]) -> Experiment:
    """What a config describes, checked and built, in a process that is set up for it."""
    nodes = plain(config)
    refuse(_mistakes(config, nodes, overrides))
    refuse(_mistakes_of_model(nodes))
    experiment = Experiment(config, nodes, overrides, set_up(config))
    refuse(rules_broken_by_data(nodes, experiment.dataset, experiment.evaluation))
    return experiment


def _mistakes(config: DictConfig, nodes: dict[str, Any], overrides: list[str]) -> list[str]:
    """What shows without building anything."""
    mistakes, own = unknown_keys(nodes) + unread_widths(config, overrides), axes(overrides).keys()
    for part in ("dataset", "task", "evaluation", "figures"):
        mistakes += check(nodes[part], part, own)
    return mistakes + broken_rules(nodes, parts=not mistakes)


def _mistakes_of_model(nodes: dict[str, Any]) -> list[str]:
    """What shows when a model without numbers is built: constructors refuse what does not fit."""
    with torch.device("meta"):
        task = build(nodes["task"], "task")
        build(nodes["figures"], "figures")
    part, slice_of = nodes["trainer"]["lr_part"], nodes["trainer"]["slice"]
    mistakes = []
    if slice_of and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in task.modules()):
        mistakes.append(f"trainer.slice={slice_of}: batch norm needs whole batches; set it to null")
    if part is not None and not any(within(name, part) for name, _ in task.named_parameters()):
        mistakes.append(f"trainer.lr_part={part}: the task has no parameters of that name")
    return mistakes
