"""What evaluations during training say about a whole run: milestones, and a mean of the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from setexp.errors import ConfigError
from setexp.training.settings import Select, Trainer


def selected(measured: Mapping[str, float], trainer: Trainer) -> float:
    """The metric that weights are chosen by.

    Raises:
        ConfigError: it is not measured.
    """
    name = str(trainer.select_metric)
    if name not in measured:
        raise ConfigError(f"trainer.select_metric={name}: evaluated are {', '.join(measured)}")
    return measured[name]


def unreached(trainer: Mapping[str, Any], epochs: int) -> list[str]:
    """What a run of some epochs never comes to, though it is asked for; one sentence each.

    Some of `report_at` may lie beyond the last epoch, where a scale has fewer: not all.

    Args:
        trainer: the fields of a `Trainer`.
    """
    every, report_at, average_from = (
        trainer[key] for key in ("evaluate_every", "report_at", "average_from")
    )
    last = epochs // every * every if every else 0  # evaluation
    only = f"trainer.epochs={epochs}"
    if epochs < trainer["epochs"]:
        only = f"{epochs} whole epochs in trainer.steps={trainer['steps']}"
    found = []
    if min(report_at, default=0) > epochs:
        found.append(f"trainer.report_at={report_at}: there are only {only}; name an earlier one")
    if every and last < (average_from or 0):
        found.append(
            f"trainer.average_from={average_from}: there are only {only}, evaluated every {every}; "
            "name an earlier one, or null"
        )
    if every and not last and (trainer["select"] is Select.best or trainer["milestones"]):
        found.append(
            f"trainer.evaluate_every={every}: the first evaluation comes too late to choose from; "
            f"there are only {only}; evaluate earlier, or train longer"
        )
    return found


def summarise(
    report: Mapping[str, float],
    measured: Mapping[str, float],
    trainer: Trainer,
    epoch: int,
    epochs: int,
) -> dict[str, float]:
    """A run's report after one more evaluation during training.

    Args:
        report: what was reported before; an average that goes on is "NAME_mean_so_far", so that a
            paused run does not pass for a finished one.
        measured: metrics after `epoch` epochs. epochs: those that are trained whole.

    Raises:
        ConfigError: milestones of a metric that is not measured.
    """
    report = dict(report)
    if trainer.milestones:
        sign, reached = -1 if trainer.select_lower else 1, selected(measured, trainer)
        for value in trainer.milestones:
            label = f"epochs_to_{value:g}"
            if label not in report and sign * reached >= sign * value:
                report[label] = epoch
    if trainer.average_from is not None and epoch >= trainer.average_from:
        every = trainer.evaluate_every
        count = epoch // every - (trainer.average_from - 1) // every
        last = epoch + every > epochs
        for name, value in measured.items():
            before = report.pop(f"{name}_mean_so_far", 0.0)
            mean = before + (value - before) / count
            report[f"{name}_mean" if last else f"{name}_mean_so_far"] = mean
    return report
