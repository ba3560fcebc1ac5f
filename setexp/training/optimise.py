"""Optimisers, learning rates and gradient clipping, for stacked seeds and for one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from setexp.training.settings import Optimizer, Trainer

_KINDS: dict[Optimizer, Callable[..., Any]] = {
    Optimizer.adam: torch.optim.Adam,
    Optimizer.adamax: torch.optim.Adamax,
    Optimizer.rmsprop: torch.optim.RMSprop,
}
# A CPU's vectors of float32: fused Adam rounds the elements that fill none in another way.
_VECTOR = 16
# PyTorch refuses steps that float32 cannot hold, but takes infinite ones; then the loss tells.
_LARGEST_RATE = 1e30


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], trainer: Trainer, seeds: int
) -> torch.optim.Optimizer:
    """The optimiser of a run; elementwise, so stacking `seeds` seeds changes nothing.

    Groups of parameters have the learning rate times what their "times" says.
    """
    adam = trainer.optimizer is Optimizer.adam
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, p in parameters.items():
        times = trainer.lr_part_factor if within(name, trainer.lr_part) else 1.0
        whole = p.device.type == "cpu" and p.numel() // seeds % _VECTOR == 0
        fused = adam and (whole or p.device.type == "cuda")
        groups.setdefault((times, fused), []).append(p)
    settings = [
        {"params": group, "times": times} | ({"fused": fused} if adam else {})
        for (times, fused), group in groups.items()
    ]
    kind = _KINDS[trainer.optimizer]
    return kind(settings, lr=trainer.lr, weight_decay=trainer.weight_decay)


def state_of_seed(
    optimizer: torch.optim.Optimizer | None,
    parameters: Mapping[str, nn.Parameter],
    seeds: int,
    index: int,
) -> dict[str, dict[str, Tensor]]:
    """A copy of one seed's share of the state, by parameter, as the seed alone would have it."""

    def share(value: Tensor, p: nn.Parameter) -> Tensor:
        return (value[index] if seeds > 1 and value.shape == p.shape else value).clone()

    states = {} if optimizer is None else optimizer.state
    return {
        name: {k: share(v, p) for k, v in states.get(p, {}).items()}
        for name, p in parameters.items()
    }


def load_states(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    states: Sequence[Mapping[str, Mapping[str, Tensor]]],
) -> None:
    """Take over what `state_of_seed` gave for each seed.

    PyTorch knows which of it belongs on the device: a counter of steps there would be read back in
    every step.
    """
    names = {p: name for name, p in parameters.items()}
    joined: dict[int, dict[str, Tensor]] = {}
    in_groups = (p for group in optimizer.param_groups for p in group["params"])
    for place, p in enumerate(in_groups):
        each = [state[names[p]] for state in states]
        if each[0]:
            joined[place] = {
                k: v if len(each) == 1 or k == "step" else torch.stack([e[k] for e in each])
                for k, v in each[0].items()
            }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": joined, "param_groups": groups})


def within(name: str, part: str | None) -> bool:
    """Whether a parameter of this name is of a part of the task."""
    return part is not None and f"{name}.".startswith(f"{part}.")


def learning_rate(trainer: Trainer, epoch: int, step: int) -> float:
    """Learning rate of a step in an epoch, both counted from 0."""
    rate = trainer.lr * _power(trainer.lr_factor, sum(epoch >= e for e in trainer.lr_epochs))
    if trainer.lr_max is not None:
        rate = min(rate, trainer.lr_max)
    warmth = min(1.0, (step + 1) / max(trainer.lr_warmup, 1))
    warmth *= min(1.0, (epoch + 1) / max(trainer.lr_warmup_epochs, 1))
    rate *= warmth * _power(trainer.lr_decay, step / trainer.lr_decay_steps)
    return rate if rate <= _LARGEST_RATE else math.inf


def _power(base: float, exponent: float) -> float:
    """A power that is infinite where Python would raise an error."""
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def inner_steps(trainer: Trainer, epoch: int) -> int | None:
    """Inner steps of the decoder in an epoch; None for the decoder's own number."""
    if not trainer.inner_steps:
        return None
    return trainer.inner_steps[sum(epoch >= e for e in trainer.inner_epochs)]


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float, seeds: int) -> None:
    """Scale gradients to a norm of at most `largest`, separately for each of `seeds` seeds."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    # parameters are added one by one: a reduction over them would round by the number of seeds
    squares: Tensor = sum(_squares(g.reshape(seeds, -1)) for g in gradients)  # type: ignore[assignment]
    scale = (largest / (squares.sqrt() + 1e-6)).clamp(max=1)
    for g in gradients:
        # a lone seed's parameter may have no axes
        g.mul_(scale.reshape([seeds, *[1] * (g.dim() - 1)][: g.dim()]))


def _squares(rows: Tensor) -> Tensor:
    """Sum of squares of each row, one by one: threads would divide the sum of a lone row only."""
    return torch.stack([row.square().sum() for row in rows])
