"""One pass over a split: losses per set, and metrics of all predictions together."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from setexp.errors import ConfigError, NonFiniteError
from setexp.sets import SetBatch
from setexp.training.randomness import derive, own_draws
from setexp.training.seeds import Alone, Stacked
from setexp.training.settings import Evaluation


@torch.no_grad()
def evaluate(
    task: nn.Module,
    dataset: Any,
    split: str,
    evaluation: Evaluation,
    batch_size: int,
    generator: torch.Generator,
    steps: int | None = None,
    batches: int | None = None,
) -> dict[str, float]:
    """Measure a task on one pass over a split; nothing but matchings and boxes waits for the device
    before the end.

    Args:
        steps: most inner steps, though the evaluation may name more; None for those it names, or
            for the decoder's own number.
        batches: how many are read; None for all.

    Raises:
        ConfigError: the evaluation names a stat that the task does not measure.
    """
    task = (copy.deepcopy(task).double() if evaluation.double else task).eval()
    at = list(dict.fromkeys(evaluation.at))
    if at:
        at = at if steps is None else [t for t in at if t <= steps] or [steps]
        steps = max(at)
    sums: dict[str, Tensor] = {}
    count = 0
    targets: list[SetBatch] = []
    kept: dict[str, list[SetBatch]] = {}  # predictions by label
    told: list[dict[str, Tensor]] = []
    passes = dataset.batches(
        split, batch_size, generator, shuffle=False, drop_last=evaluation.drop_last
    )
    for batch in islice(passes, batches):
        outcome = task(batch, steps=steps)
        values = {} if at else {"loss": outcome.loss}
        values |= {name: _stat(outcome.stats, name) for name in evaluation.stats}
        sets = evaluation.losses or evaluation.metrics
        for label, prediction in read_at(outcome.prediction, at) if sets else ():
            for name, loss in evaluation.losses.items():
                values[name + label] = loss(prediction, batch.target)
            if evaluation.metrics:  # copies, so that the other inner steps are not held
                kept.setdefault(label, []).append(SetBatch(*(t[0].clone() for t in prediction)))
        for name, value in values.items():
            total = value.double().sum()
            sums[name] = sums[name] + total if name in sums else total
        count += len(outcome.loss)
        if evaluation.metrics:
            targets.append(batch.target)
        if evaluation.summaries:
            told.append(outcome.stats)
    measured = {name: float(total) / count for name, total in sums.items()}
    for label, predictions in kept.items():
        prediction, target = _joined(predictions), _joined(targets)
        for metric in evaluation.metrics.values():
            measured |= {name + label: v for name, v in metric(prediction, target).items()}
    for summary in evaluation.summaries.values():
        measured |= summary({name: torch.cat([stats[name] for stats in told]) for name in told[0]})
    return measured


def _stat(stats: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in stats:
        known = ", ".join(stats) or "nothing"
        raise ConfigError(f"evaluation.stats: {name}: of each set the task measures {known}")
    return stats[name]


def _joined(batches: Sequence[SetBatch]) -> SetBatch:
    return SetBatch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def measure(
    task: nn.Module,
    dataset: Any,
    split: str,
    evaluation: Evaluation,
    *,
    batch_size: int,
    seed: int,
    when: object,
    device: torch.device,
    **how: int | None,
) -> dict[str, float]:
    """`evaluate` with draws of its own: functions of seed, split and time, not of training's.

    Args:
        how: steps and batches of `evaluate`.

    Raises:
        NonFiniteError: a matching met a prediction that is NaN or infinite.
    """
    generator = torch.Generator(device).manual_seed(derive(seed, split, "evaluate"))
    with own_draws(derive(seed, "evaluate", when), device):
        try:
            return evaluate(task, dataset, split, evaluation, batch_size, generator, **how)
        except NonFiniteError as error:
            raise NonFiniteError(f"evaluation of seed {seed} on {split}: {error}") from None


def measure_curves(
    learner: Alone | Stacked,
    datasets: Sequence[Any],
    evaluation: Evaluation,
    batch_size: int,
    device: torch.device,
) -> list[dict[str, float]]:
    """Mean stats of each seed on each split of `curves`, "val/accuracy"; one pass over them all."""
    splits, generator = evaluation.curves, torch.Generator(device).manual_seed(0)
    passes = [
        d.batches("+".join(splits), batch_size, generator, shuffle=False, drop_last=False)
        for d in datasets
    ]
    found: list[dict[str, list[Tensor]]] = [{name: [] for name in evaluation.stats} for _ in passes]
    for batches in zip(*passes, strict=True):
        for values, stats in zip(found, learner.stats(batches), strict=True):
            for name, parts in values.items():
                parts.append(_stat(stats, name))
    curves: list[dict[str, float]] = []
    for values, dataset in zip(found, datasets, strict=True):
        sizes = [dataset.sizes(split) for split in splits]
        means = {
            f"{split}/{name}": part.mean()
            for name, parts in values.items()
            for split, part in zip(splits, torch.cat(parts).double().split(sizes), strict=True)
        }
        curves.append(dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True)))
    return curves


def measure_final(
    task: nn.Module, dataset: Any, evaluation: Evaluation, **how: Any
) -> dict[str, float]:
    """What a run reports: all final splits; a split's suffix goes before "@steps".

    Args:
        how: batch_size, seed and device of `measure`.

    Raises:
        NonFiniteError: a metric is NaN or infinite.
    """
    measured = {}
    for split, suffix in evaluation.final.items():
        values = measure(task, dataset, split, evaluation, when="final", **how)
        for name, value in values.items():
            stem, at, steps = name.partition("@")
            measured[f"{stem}{suffix}{at}{steps}"] = value
    bad = [f"{name} is {value:g}" for name, value in measured.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteError(f"final evaluation of seed {how['seed']}: {', '.join(bad)}")
    return measured


def read_at(prediction: SetBatch, at: Sequence[int]) -> list[tuple[str, SetBatch]]:
    """Predictions (1, B, N, D) after each of the inner steps `at`, or the final one."""
    if not at:
        return [("", SetBatch(prediction.x[-1:], prediction.mask[-1:]))]
    return [(f"@{t}", SetBatch(prediction.x[t : t + 1], prediction.mask[t : t + 1])) for t in at]
