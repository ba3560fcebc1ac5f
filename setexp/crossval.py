"""Cross-validation as one run: all folds at every point of a grid, then the choice of a point.

A fold at a point is a member. Members are seeds' siblings: each has a folder, a checkpoint and
curves of its own, and `Fit` trains those of one shape in one stack, each as it would be trained
alone.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from setexp.build import build, check
from setexp.config import plain
from setexp.errors import ConfigError
from setexp.files import read_json, write_json
from setexp.processes import divided, spread
from setexp.report.records import slug
from setexp.rules import broken_rules
from setexp.training import checkpoint
from setexp.training.loop import Fit, steps_per_epoch
from setexp.training.randomness import derive
from setexp.training.seeds import stackable
from setexp.training.settings import CrossValidation, Evaluation, Tracking, TrackingMode, Trainer
from setexp.training.tracking import Tracker

# Sections whose keys a grid may name, and keys there that all its points share.
_CHOSEN = ("hidden", "latent", "encoder", "decoder", "loss", "task", "trainer")
_SAME = ("trainer.epochs",)


@dataclass(frozen=True)
class Point:
    """One choice of the grid's values, the config with them, and what of it `Fit` needs."""

    values: dict[str, Any]
    nodes: dict[str, Any]
    trainer: Trainer

    def task(self) -> nn.Module:
        """The model, to be trained."""
        return build(self.nodes["task"], "task")


@dataclass(frozen=True)
class Member:
    """A fold at a point, and where it is kept."""

    point: Point
    fold: int
    dataset: Any
    folder: Path


def points(config: DictConfig) -> list[Point]:
    """All points of a config's grid, in its order.

    Raises:
        ConfigError: a key that the config does not have or that all points share, no value, or one
            that cannot be.
    """
    grid = dict(_leaves(plain(config.crossval.grid)))
    for key, values in grid.items():
        section, (parent, _, name) = key.partition(".")[0], key.rpartition(".")
        if section not in _CHOSEN or key in _SAME:
            raise ConfigError(
                f"crossval.grid.{key}: all points share it; a grid has keys of {', '.join(_CHOSEN)}"
            )
        owner = OmegaConf.select(config, parent) if parent else config
        if not OmegaConf.is_dict(owner) or name not in owner:
            raise ConfigError(f"crossval.grid.{key}: the config has no {key}")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"crossval.grid.{key}={values}: name values in a list")
        if not all(isinstance(value, int | float) for value in values):
            raise ConfigError(f"crossval.grid.{key}={values}: name numbers, which are recorded")
        if len(set(values)) < len(values):
            raise ConfigError(f"crossval.grid.{key}={values}: name each value once")
    for key in config.crossval.together:
        if key not in grid:
            raise ConfigError(
                f"crossval.together={key}: no key of the grid; choose of {', '.join(grid)}"
            )
    found = []
    for values in itertools.product(*grid.values()):
        own = copy.deepcopy(config)
        for key, value in zip(grid, values, strict=True):
            try:
                OmegaConf.update(own, key, value)
            except OmegaConfBaseException as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(f"crossval.grid.{key}: {reason}") from None
        nodes = plain(own)
        mistakes = check(nodes["task"], "task") + broken_rules(nodes)
        if mistakes:
            raise ConfigError(f"crossval.grid: {mistakes[0]}")
        trainer: Any = OmegaConf.to_object(own.trainer)
        found.append(Point(dict(zip(grid, values, strict=True)), nodes, trainer))
    return found


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


class Repeat:
    """One cross-validation of one seed.

    Args:
        config: the run's. dataset: of the run. evaluation: its curves are taken.
        folder: holds a folder of each member. device: where everything happens.
    """

    def __init__(
        self,
        config: DictConfig,
        dataset: Any,
        evaluation: Evaluation,
        seed: int,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.config, self.points, self.evaluation = config, points(config), evaluation
        self.settings: CrossValidation = OmegaConf.to_object(config.crossval)  # type: ignore[assignment]
        self.limit, self.seed, self.folder, self.device = config.trainer.stack, seed, folder, device
        self.folds = dataset.folds
        self.members = [
            Member(point, k, dataset.fold(k), folder / "members" / slug(point.values) / f"fold-{k}")
            for point in self.points
            for k in range(self.folds)
        ]

    def train(self) -> dict[str, Any]:
        """Train all members that have not finished.

        Returns:
            What it took: steps of all members, seconds, models in the largest stack, and where and
            from which code each trained.

        Raises:
            NonFiniteError: a member diverged.
            SystemExit: a signal asked to stop; the same command goes on.
        """
        stacks = divided(list(self._stacks()), self.config.processes)
        numbered = [(f"stack {n + 1} of {len(stacks)}", stack) for n, stack in enumerate(stacks)]
        spread(self._train, numbered, self.config)
        done = [read_json(member.folder / "done.json") for member in self.members]
        return {
            "steps": sum(d["steps"] for d in done),
            "seconds": sum(d["seconds"] for d in done),
            "stacked": max(d["of"] for d in done),
            "origins": [origin for d in done for origin in d.get("origins", [])],
        }

    def _train(self, numbered: tuple[str, list[Member]]) -> None:
        """Train a stack."""
        number, members = numbered
        print(f"  {number}: {len(members)} models, {slug(self._shape(members[0]))}")
        fit = self._fit(members)
        fit.train()
        about = {"steps": fit.step, "seconds": fit.seconds / len(members), "of": len(members)}
        for member, earlier in zip(members, fit.earlier, strict=True):
            own = about | {"origins": [*earlier, fit.origin]}
            write_json(member.folder / "done.json", own)

    def choose(self) -> tuple[Point, dict[str, float]]:
        """The selected point and the metrics of the run, from the members' curves."""
        epochs = self.points[0].trainer.epochs
        val, test = (
            np.array(
                [read_curve(m.folder, f"{split}/accuracy", epochs) for m in self.members]
            ).reshape(len(self.points), self.folds, epochs)
            for split in ("val", "test")
        )
        index, metrics = choose(val, test)
        point = self.points[index]
        chosen = {k.rpartition(".")[2]: float(v) for k, v in point.values.items()}
        return point, metrics | chosen

    def _shape(self, member: Member) -> dict[str, Any]:
        """Values of the grid that a stack shares."""
        together = self.settings.together
        return {k: v for k, v in member.point.values.items() if k not in together}

    def _stacks(self) -> Iterator[list[Member]]:
        """Unfinished members that train together: of one shape, at the same step."""
        alike: dict[str, list[Member]] = {}
        for member in self.members:
            if (member.folder / "done.json").exists():
                continue
            step = checkpoint.step_of(member.folder / "checkpoint.pt")
            each = steps_per_epoch(member.dataset, member.point.trainer)
            key = json.dumps([self._shape(member), each, step])
            alike.setdefault(key, []).append(member)
        for members in alike.values():
            with torch.device("meta"):
                task = members[0].point.task()
            most = self.settings.stack if stackable(task, self.limit) else 1
            for i in range(0, len(members), most):
                yield members[i : i + most]

    def _fit(self, members: Sequence[Member]) -> Fit:
        tracking = Tracking(mode=TrackingMode.disabled)
        open_tracker: Callable[[int, str | None, int], Tracker] = lambda i, identity, step: Tracker(  # noqa: E731
            members[i].folder, tracking, {}, identity=identity, step=step
        )
        for member in members:
            member.folder.mkdir(parents=True, exist_ok=True)
        return Fit(
            lambda i: members[i].point.task(),
            [member.dataset for member in members],
            replace(self.evaluation, during=None, final={}),
            members[0].point.trainer,
            [seed_of_fold(self.seed, member.fold) for member in members],
            [member.folder for member in members],
            self.device,
            open_tracker,
        )


def seed_of_fold(seed: int, fold: int) -> int:
    """The seed of a member, which its checkpoint holds, from that of the run."""
    return derive(seed, "fold", fold)


def choose(val: np.ndarray, test: np.ndarray) -> tuple[int, dict[str, float]]:
    """Select a point and an epoch by validation accuracy, and read test accuracy there.

    `accuracy` is of one choice for all folds, the released code's; `accuracy_per_fold` of a choice
    for each fold (Thesis, 5.6.5); `accuracy_by_test` of one by test accuracy, as GIN's authors did.
    The first of equal ones is taken; epochs count from 0.

    Shapes: accuracies (points, folds, epochs) to the point's index and metrics.
    """
    folds, epochs = val.shape[1:]
    of_points, tested = val.mean(1).round(12).ravel(), test.mean(1).ravel()
    best = int(of_points.argmax())
    each = val.swapaxes(0, 1).reshape(folds, -1).argmax(1)
    own = test.swapaxes(0, 1).reshape(folds, -1)[np.arange(folds), each]
    return best // epochs, {
        "accuracy": float(tested[best]),
        "val_accuracy": float(of_points[best]),
        "epoch": float(best % epochs),
        "accuracy_per_fold": float(own.mean()),
        "epoch_per_fold": float((each % epochs).mean()),
        "accuracy_by_test": float(tested.max()),
    }


def read_curve(folder: Path, name: str, epochs: int) -> list[float]:
    """A member's values after each epoch."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    found = [line[name] for line in lines if name in line]
    if len(found) != epochs:
        raise ConfigError(
            f"{folder}: {name} of {len(found)} of {epochs} epochs; delete the folder, and the same "
            "command trains this member again"
        )
    return found
