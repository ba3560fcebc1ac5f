"""Optimisers, learning rates and gradient clipping, for stacked seeds and for one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from setexp.training.settings import Optimizer, Trainer


def make_optimizer(parameters: Iterable[nn.Parameter], trainer: Trainer) -> torch.optim.Optimizer:
    """The optimiser of a run; elementwise, so stacking seeds changes nothing."""
    parameters = list(parameters)
    if trainer.optimizer is Optimizer.adam:
        return torch.optim.Adam(
            parameters,
            lr=trainer.lr,
            weight_decay=trainer.weight_decay,
            fused=all(p.device.type in ("cpu", "cuda") for p in parameters),
        )
    kind = torch.optim.Adamax if trainer.optimizer is Optimizer.adamax else torch.optim.RMSprop
    return kind(parameters, lr=trainer.lr, weight_decay=trainer.weight_decay)


def learning_rate(trainer: Trainer, epoch: int) -> float:
    """Learning rate in an epoch, counted from 0."""
    return trainer.lr * trainer.lr_factor ** sum(epoch >= e for e in trainer.lr_epochs)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float, seeds: int) -> None:
    """Scale gradients to a norm of at most `largest`, separately for each of `seeds` seeds."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = torch.stack([g.reshape(seeds, -1).square().sum(-1) for g in gradients])
    scale: Tensor = (largest / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)
    for g in gradients:
        g.mul_(scale.reshape(seeds, *[1] * (g.dim() - 1)))
