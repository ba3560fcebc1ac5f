"""Who takes part in a benchmark: the training loop's own steps and the reference's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from reference import sets
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.memory import keep_freed_memory
from setexp.sets import Batch, Encoding, SetBatch
from setexp.tasks.predict import Predict
from setexp.training.evaluate import measure_curves
from setexp.training.loop import Fit
from setexp.training.randomness import for_run
from setexp.training.settings import Evaluation


@dataclass
class Contender:
    """Something that takes optimiser steps.

    Args:
        name: shown. run: takes `steps` steps, data included. seeds: trained at once by each step.
        here: in this process, whose memory is measured.
    """

    name: str
    run: Callable[[], None]
    steps: int
    seeds: int = 1
    here: bool = True


@dataclass
class Case:
    """Contenders for the same work; the first is the reference.

    Args:
        bars: least wanted speed-up over the reference, by contender's name.
        smaller: least wanted ratio of the reference's peak memory, by contender's name.
        flops: of the matrix products of one step of one seed; 0 where they do not matter.
        product: rows, inner and columns of the products that dominate.
        growth: fewer and more inner steps of the same, by name, and how much more memory the latter
            may take; None where it is only shown.
    """

    contenders: list[Contender]
    bars: dict[str, float]
    flops: float = 0.0
    product: tuple[int, int, int] = (0, 0, 0)
    smaller: dict[str, float] = field(default_factory=dict)
    growth: dict[str, tuple[Contender, Contender, float | None]] = field(default_factory=dict)


class Resident:
    """Fixed random inputs and target sets, by the interface of `setexp.datasets`.

    Sets are padded: x (B, N, D) in [0, 1], sizes between `least` and N.
    """

    source, fingerprint = "synthetic", "benchmark"

    def __init__(
        self, size: int, n: int, d: int, least: int, given: Tensor | None, device: torch.device
    ) -> None:
        self.size = size
        count = torch.randint(least, n + 1, (size, 1))
        mask = (torch.arange(n) < count).float()
        x = torch.rand(size, n, d) * mask.unsqueeze(-1)
        tensors = (x, mask) if given is None else (given, x, mask)
        self.tensors = tuple(t.to(device) for t in tensors)

    def sizes(self, split: str) -> int:
        """Sets in one pass."""
        return self.size

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator, **_: Any
    ) -> Iterator[Batch]:
        """One pass, always in the same order."""
        for parts in zip(*(t.split(batch_size) for t in self.tensors), strict=True):
            target = SetBatch(*parts[-2:])
            yield Batch(parts[0] if len(parts) == 3 else target, target, {})

    def loader(self, batch_size: int) -> DataLoader:
        """The same sets for the reference."""
        return sets.loader(TensorDataset(*self.tensors), batch_size)


class Vector(nn.Module):
    """An encoder for inputs that are latent vectors already, made to depend on a parameter."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(latent))

    def forward(self, z: Tensor) -> Encoding:
        return Encoding(z=z + self.offset)


class ReferenceVector(Vector):
    """The same for the reference."""

    def forward(self, z: Tensor) -> sets.Pooled:  # type: ignore[override]
        return z + self.offset, None


def ours(
    name: str,
    overrides: list[str],
    device: torch.device,
    *,
    seeds: Sequence[int] = (0,),
    dataset: Any = None,
    datasets: Sequence[Any] | None = None,
    encoder: Callable[[], nn.Module] | None = None,
) -> tuple[Contender, Fit]:
    """The training loop's own step on objects built from a config; one run is one epoch, with the
    curves that are taken after it.

    Args:
        datasets: one of each seed; otherwise `dataset`, or the config's, is that of all.
    """
    config = compose_run(overrides)
    nodes = plain(config)

    def make_task() -> nn.Module:
        if encoder is None:
            return build(nodes["task"], "task")
        node = nodes["task"]
        return Predict(
            encoder=encoder(),
            decoder=build(node["decoder"], "decoder"),
            loss=build(node["loss"], "loss"),
            representation_weight=node["representation_weight"],
        )

    if datasets is None:
        own = dataset or build(nodes["dataset"], "dataset").to(device)
        datasets = [for_run(own, seed) for seed in seeds]
    evaluation = Evaluation(stats=nodes["evaluation"]["stats"],
                            curves=nodes["evaluation"]["curves"])  # fmt: skip
    fit = Fit(
        lambda _: make_task(),
        datasets,
        evaluation,
        OmegaConf.to_object(config.trainer),  # type: ignore[arg-type]
        seeds,
        [Path("benchmarks/no-checkpoint")] * len(seeds),
        device,
        lambda *_: None,  # type: ignore[arg-type,return-value]
    )

    def run() -> None:
        for batches in fit._batches(fit.step // fit.per_epoch):
            fit._step(batches)
        fit._check()
        if evaluation.curves:
            measure_curves(fit.learner, fit.datasets, evaluation, 1000, device)

    return Contender(name, run, fit.per_epoch, len(seeds)), fit


def in_processes(
    name: str, make: Callable[[Sequence[int]], Contender], count: int, processes: int
) -> Contender:
    """So many seeds, divided among processes of one thread each as `processes=...` divides them.

    Args:
        make: what a process does with its seeds; to be pickled.
    """
    context, connections = multiprocessing.get_context("spawn"), []
    for k in range(processes):
        mine, its = context.Pipe()
        own = range(count)[k::processes]
        context.Process(target=_take_turns, args=(its, make, own), daemon=True).start()
        its.close()  # or neither end would notice that the other is gone
        connections.append(mine)
    steps = [connection.recv() for connection in connections]

    def run() -> None:
        for connection in connections:
            connection.send(None)
        for connection in connections:
            connection.recv()

    return Contender(name, run, steps[0], count, here=False)


def _take_turns(
    connection: Connection, make: Callable[[Sequence[int]], Contender], seeds: Sequence[int]
) -> None:
    """What such a process does, until the benchmark is over."""
    keep_freed_memory()
    torch.set_num_threads(1)
    register()
    contender = make(seeds)
    connection.send(contender.steps)
    with suppress(EOFError):
        while True:
            connection.recv()
            contender.run()
            connection.send(None)


def plainly(
    task: sets.Task, batches: DataLoader, lr: float, device: torch.device, is_set: bool
) -> Contender:
    """The reference; one run is one epoch."""
    task.to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=lr)

    def run() -> None:
        for parts in batches:
            parts = [p.to(device) for p in parts]
            target = (parts[-2], parts[-1])
            sets.step(task, optimizer, target if is_set else parts[0], target)

    return Contender("reference", run, len(batches))
