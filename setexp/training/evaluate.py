"""One pass over a split: losses per set, and metrics of all predictions together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from setexp.sets import SetBatch

Metric = Callable[[SetBatch, SetBatch], dict[str, float]]


@dataclass
class Evaluation:
    """What is measured, and where.

    Args:
        losses: per set and averaged over sets, by name.
        metrics: functions of all predicted and true sets of a split, each with its own names.
        at: inner steps whose predictions are read, all from one pass of the longest; each name
            then ends in "@steps". Empty: the final prediction, names unchanged.
        during: split that is read during training; None for none.
        final: splits that are read at the end, with the suffix of their names.
        drop_last: leave an incomplete last batch out, as DSPN's batch-mean objective requires.
    """

    losses: Mapping[str, nn.Module] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    at: Sequence[int] = ()
    during: str | None = None
    final: Mapping[str, str] = field(default_factory=dict)
    drop_last: bool = False


@torch.no_grad()
def evaluate(
    task: nn.Module,
    dataset: Any,
    split: str,
    evaluation: Evaluation,
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """Measure a task on one pass over a split; the device is read once, at the end."""
    task.eval()
    steps = max(evaluation.at) if evaluation.at else None
    sums: dict[str, Tensor] = {}
    count = 0
    kept: list[tuple[SetBatch, SetBatch]] = []
    passes = dataset.batches(
        split, batch_size, generator, shuffle=False, drop_last=evaluation.drop_last
    )
    for batch in passes:
        outcome = task(batch, steps=steps)
        values = {} if evaluation.at else {"loss": outcome.loss}
        for label, prediction in read_at(outcome.prediction, evaluation.at):
            for name, loss in evaluation.losses.items():
                values[name + label] = loss(prediction, batch.target)
        for name, value in values.items():
            total = value.double().sum()
            sums[name] = sums[name] + total if name in sums else total
        count += len(outcome.loss)
        if evaluation.metrics:
            kept.append((outcome.prediction, batch.target))
    measured = {name: float(total) / count for name, total in sums.items()}
    if evaluation.metrics:
        prediction = SetBatch(*(torch.cat(parts, 1) for parts in zip(*(p for p, _ in kept))))
        target = SetBatch(*(torch.cat(parts) for parts in zip(*(t for _, t in kept))))
        for label, at in read_at(prediction, evaluation.at):
            final = SetBatch(at.x[-1], at.mask[-1])
            for metric in evaluation.metrics.values():
                measured |= {name + label: v for name, v in metric(final, target).items()}
    return measured


def read_at(prediction: SetBatch, at: Sequence[int]) -> list[tuple[str, SetBatch]]:
    """Predictions (1, B, N, D) after each of the inner steps `at`, or the final one."""
    if not at:
        return [("", SetBatch(prediction.x[-1:], prediction.mask[-1:]))]
    return [(f"@{t}", SetBatch(prediction.x[t : t + 1], prediction.mask[t : t + 1])) for t in at]
