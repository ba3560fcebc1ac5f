"""What evaluations during training say about a whole run: milestones, and a mean of the last."""

from __future__ import annotations

from collections.abc import Mapping

from setexp.errors import ConfigError
from setexp.training.settings import Trainer


def selected(measured: Mapping[str, float], trainer: Trainer) -> float:
    """The metric that weights are chosen by.

    Raises:
        ConfigError: it is not measured.
    """
    name = str(trainer.select_metric)
    if name not in measured:
        raise ConfigError(f"trainer.select_metric={name}: evaluated are {', '.join(measured)}")
    return measured[name]


def summarise(
    report: Mapping[str, float], measured: Mapping[str, float], trainer: Trainer, epoch: int
) -> dict[str, float]:
    """A run's report after one more evaluation during training.

    Args:
        report: what was reported before; an average that goes on is "NAME_mean_so_far", so that a
            paused run does not pass for a finished one.
        measured: metrics after `epoch` epochs.

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
        last = epoch + every > trainer.epochs
        for name, value in measured.items():
            before = report.pop(f"{name}_mean_so_far", 0.0)
            mean = before + (value - before) / count
            report[f"{name}_mean" if last else f"{name}_mean_so_far"] = mean
    return report
