"""What the figures show: a few test sets with a task's predictions for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from setexp.errors import ConfigError
from setexp.ops.assignment import assignment
from setexp.ops.costs import Cost, pair_cost
from setexp.sets import Batch, SetBatch

START = "start"  # name of the stage before the first inner step, the same for all inputs
_BOUND = 1e3  # nothing shown is as large; keeps costs finite where a prediction ran away


class Examples(NamedTuple):
    """The first sets of the test split, on the CPU.

    Args:
        input: their inputs, a `SetBatch` or images (B, 3, H, W).
        target: x (B, N, D), mask (B, N).
        prediction: x (T, B, N, D), mask (T, B, N): all inner steps, or T = 1. All numbers are
            finite: an element that is not is absent.
    """

    input: Any
    target: SetBatch
    prediction: SetBatch


def first_batch(dataset: Any, batch_size: int, generator: torch.Generator) -> Batch:
    """The first batch of the test split, smaller where the split is."""
    passes = dataset.batches("test", batch_size, generator, shuffle=False, drop_last=False)
    return next(iter(passes))


@contextmanager
def drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Let code that draws from the global random state draw from a generator instead."""
    device = generator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator, device=device)))
        yield


@torch.no_grad()
def predict(
    task: nn.Module,
    dataset: Any,
    *,
    sets: int,
    batch_size: int,
    steps: int,
    generator: torch.Generator,
) -> Examples:
    """Predictions for the first sets of the test split.

    A whole batch is predicted, of which the first `sets` are kept: DSPN's batch-mean objective
    takes other steps in a batch of another size.

    Args:
        steps: inner steps of the decoder; one-shot decoders take no notice.
    """
    task.eval()
    batch = first_batch(dataset, batch_size, generator)
    with drawn_from(generator):
        prediction = task(batch, steps=steps).prediction
    return Examples(
        _first(batch.input, sets),
        _first(batch.target, sets),
        finite(SetBatch(*(tensor[:, :sets].float().cpu() for tensor in prediction))),
    )


def _first(value: Any, sets: int) -> Any:
    if isinstance(value, SetBatch):
        return SetBatch(*(_first(tensor, sets) for tensor in value))
    return value[:sets].float().cpu()


def finite(sets: SetBatch) -> SetBatch:
    """Sets whose numbers can be compared: elements with NaN or infinity are absent."""
    sound = sets.x.isfinite().all(-1) & sets.mask.isfinite()
    x = torch.where(sound.unsqueeze(-1), sets.x, 0).clamp(-_BOUND, _BOUND)
    return SetBatch(x, torch.where(sound, sets.mask, 0).clamp(-_BOUND, _BOUND))


def checked_steps(steps: Sequence[int]) -> list[int]:
    """Inner steps to show, in order.

    Raises:
        ConfigError: there is none, or one is negative.
    """
    if not steps or min(steps) < 0:
        raise ConfigError(f"figures: steps={list(steps)}: name inner steps from 0 on, [0, 10] say")
    return sorted(steps)


def stages(prediction: SetBatch, steps: Sequence[int]) -> list[tuple[str, SetBatch]]:
    """Predicted sets (B, N, D) worth showing, by name; a one-shot decoder has but one."""
    if len(prediction.x) == 1:
        return [("predicted", SetBatch(prediction.x[0], prediction.mask[0]))]
    return [
        (START if t == 0 else f"step {t}", SetBatch(prediction.x[t], prediction.mask[t]))
        for t in steps
    ]


class Progression:
    """A figure of the test split's first sets, predicted with fewer and more inner steps.

    Args:
        sets: how many sets.
        batch_size: of the batch they are predicted in; see `predict`.
        steps: inner steps to show.

    Raises:
        ConfigError: no inner step is named, or one that is negative.
    """

    def __init__(self, *, sets: int, batch_size: int, steps: Sequence[int]) -> None:
        self.sets, self.batch_size, self.steps = sets, batch_size, checked_steps(steps)

    def predicted(
        self, task: nn.Module, dataset: Any, generator: torch.Generator
    ) -> tuple[Examples, list[tuple[str, SetBatch]]]:
        """What is shown, and the `stages` of its prediction."""
        shown = predict(
            task,
            dataset,
            sets=self.sets,
            batch_size=self.batch_size,
            steps=self.steps[-1],
            generator=generator,
        )
        return shown, stages(shown.prediction, self.steps)


def match(prediction: SetBatch, target: SetBatch) -> Tensor:
    """Row of the target matched to each predicted row, padding included: int64 (B, N).

    The Huber cost of elements with their mask, as in training (Thesis, 6.5.2).
    """
    cost = pair_cost(prediction.with_mask_channel(), target.with_mask_channel(), Cost.huber)
    return assignment(cost)
