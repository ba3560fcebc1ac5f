"""Several seeds of one model trained together, or one alone, behind one interface.

Law: a seed trained in a stack equals the seed trained alone, bit for bit on a CPU.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._pytree import tree_leaves, tree_map

from setexp.sets import Batch
from setexp.training.compiling import compiled

State = Mapping[str, Tensor]

# Numbers in a batch from which compiled code on a CPU takes seeds one by one: what it makes of
# several such batches does not fit into a core's cache.
_CACHED_NUMEL = 1 << 11

# Modules of PyTorch that cannot be stacked; of an `nn.Transformer`, its attention.
_ALONE = (nn.Conv2d, nn.BatchNorm2d, nn.RNNBase, nn.MultiheadAttention, nn.Dropout)


class Alone:
    """One seed, on the plain path.

    Parameters and buffers are the module's own; losses get a leading seed axis of one.
    """

    def __init__(self, task: nn.Module) -> None:
        self.task = task
        self.count = 1
        self._loss = self._mean_loss

    def compile(self) -> None:
        """Compute losses by compiled code from now on."""
        self._loss = compiled(self._loss)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {k: p for k, p in self.task.named_parameters() if p.requires_grad}

    def losses(self, batches: Sequence[Batch], steps: int | None = None) -> Tensor:
        """Mean loss of the seed's batch, (1,), after so many inner steps."""
        if not self.task.training:
            self.task.train()
        return self._loss(batches[0], steps).unsqueeze(0)

    def _mean_loss(self, batch: Batch, steps: int | None) -> Tensor:
        return self.task(batch, steps=steps).loss.mean()

    @torch.no_grad()
    def stats(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """What the seed's task measures of each set of its batch, by name, when it is evaluated."""
        self.task.eval()
        return [self.task(batches[0]).stats]

    def state(self, index: int) -> dict[str, Tensor]:
        """One seed's state dict."""
        del index
        return self.task.state_dict()

    def load(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Take over one state dict per seed."""
        self.task.load_state_dict(states[0])

    def module(self, index: int) -> nn.Module:
        """One seed's task as a plain module, to be evaluated."""
        del index
        return self.task


class Stacked:
    """Seeds of one model along a leading axis of every parameter and buffer, mapped by `vmap`, or
    given as they are to a model that takes the axis itself (`stacks_itself`)."""

    def __init__(self, tasks: Sequence[nn.Module]) -> None:
        self.count = len(tasks)
        parameters, self.buffers = stack_module_state(list(tasks))
        trained = [k for k, p in tasks[0].named_parameters() if p.requires_grad]
        self.parameters = {k: nn.Parameter(parameters[k].detach()) for k in trained}
        self.buffers |= {k: p.detach() for k, p in parameters.items() if k not in trained}
        self._device = next(iter(parameters.values())).device
        self._one = tasks[0]
        self._skeleton = copy.deepcopy(tasks[0]).to("meta")
        self._losses = self._mean_losses
        self._one_by_one = False
        self._itself = any(getattr(m, "stacks_itself", False) for m in tasks[0].modules())

    def compile(self) -> None:
        """Compute losses by compiled code from now on, which is no longer exact to the last bit."""
        self._losses = compiled(self._losses)
        self._one_by_one = self._device.type == "cpu" and not self._itself

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name, each (S, ...)."""
        return self.parameters

    def losses(self, batches: Sequence[Batch], steps: int | None = None) -> Tensor:
        """Mean loss of each seed's own batch, (S,), after so many inner steps."""
        if not self._skeleton.training:
            self._skeleton.train()
        large = self._one_by_one and max(map(_numbers, batches)) >= _CACHED_NUMEL
        most = 1 if large else self.count
        losses = self._by_shape(batches, lambda p, b, x: self._losses(p, b, x, steps), most)
        return torch.stack(losses) if isinstance(losses, list) else losses

    @torch.no_grad()
    def stats(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """What each seed's task measures of each set of its own batch, by name, when evaluated."""
        self._skeleton.eval()
        stats = self._by_shape(
            batches, lambda p, b, x: self._mapped(_stats, p, b, x, None), self.count
        )
        return stats if isinstance(stats, list) else _unstacked(stats, self.count)

    def _mean_losses(self, p: State, b: State, batch: Batch, steps: int | None) -> Tensor:
        return self._mapped(_loss, p, b, batch, steps)

    def _mapped(
        self, read: Callable[[Any], Any], p: State, b: State, batch: Batch, steps: int | None
    ) -> Any:
        """What is read of the outcomes of seeds whose parameters and batches are stacked."""

        def one(p: State, b: State, batch: Batch) -> Any:
            given = (dict(p), dict(b))
            return read(functional_call(self._skeleton, given, (batch,), {"steps": steps}))

        return (one if self._itself else vmap(one))(p, b, batch)

    def _by_shape(
        self, batches: Sequence[Batch], work: Callable[[State, State, Batch], Any], most: int
    ) -> Any:
        """What comes of all seeds: one stacked value where they are worked on together, or one of
        each; together are at most so many, of batches of one shape."""
        alike: dict[tuple[torch.Size, ...], list[int]] = {}
        for index, batch in enumerate(batches):
            alike.setdefault(_shapes(batch), []).append(index)
        parts = [
            seeds[i : i + most] for seeds in alike.values() for i in range(0, len(seeds), most)
        ]
        if len(parts) == 1:
            return work(self.parameters, self.buffers, stack_batches(batches))
        results: list[Any] = [None] * self.count
        # taken apart once, so that gradients are put together once
        parameters, buffers = (
            {k: v.unbind() for k, v in state.items()} for state in (self.parameters, self.buffers)
        )
        for seeds in parts:
            p, b = (
                {k: torch.stack([v[i] for i in seeds]) for k, v in state.items()}
                for state in (parameters, buffers)
            )
            found = work(p, b, stack_batches([batches[i] for i in seeds]))
            for k, v in b.items():  # running statistics are of copies here
                for index, value in zip(seeds, v, strict=True):
                    buffers[k][index].copy_(value)
            for index, result in zip(seeds, _unstacked(found, len(seeds)), strict=True):
                results[index] = result
        return results

    def state(self, index: int) -> dict[str, Tensor]:
        """One seed's state dict, as the plain module would have it."""
        both = {**self.parameters, **self.buffers}
        return {k: v.detach()[index] for k, v in both.items()}

    def load(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Take over one state dict per seed."""
        with torch.no_grad():
            for name, value in {**self.parameters, **self.buffers}.items():
                value.copy_(torch.stack([s[name] for s in states]))

    def module(self, index: int) -> nn.Module:
        """One seed's task as a plain module, to be evaluated."""
        self._one.load_state_dict(self.state(index))
        return self._one


def stackable(task: nn.Module, limit: float = math.inf) -> bool:
    """Whether a model has parameters, at most `limit`, and the law can hold.

    Some modules of PyTorch become other kernels in a stack or do not work there, and those that
    draw from the global random state, PyTorch's dropout or what says so (`draws`), would draw other
    numbers.
    """
    alone = any(isinstance(m, _ALONE) or getattr(m, "draws", False) for m in task.modules())
    return 0 < sum(p.numel() for p in task.parameters()) <= limit and not alone


def _loss(outcome: Any) -> Any:
    return outcome.loss.mean(-1)


def _stats(outcome: Any) -> Any:
    return outcome.stats


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Batches of S seeds to one with a leading seed axis on every tensor."""

    def stack(first: Any, *others: Any) -> Any:
        return torch.stack([first, *others])

    if all(b.target is b.input for b in batches):  # auto-encoders: stack once
        both = tree_map(stack, *(b.input for b in batches))
        return Batch(both, both, tree_map(stack, *(b.aux for b in batches)))
    return tree_map(stack, *batches)


def _shapes(batch: Batch) -> tuple[torch.Size, ...]:
    return tuple(leaf.shape for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))


def _numbers(batch: Batch) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(batch.input) if isinstance(leaf, Tensor))


def _unstacked(values: Any, count: int) -> list[Any]:
    return [tree_map(lambda t, i=i: t[i], values) for i in range(count)]
