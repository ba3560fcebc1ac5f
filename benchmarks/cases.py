"""What is timed: each case beside the reference, from the configs that `train.py` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reference
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from setexp.build import build
from setexp.config import compose_run, plain
from setexp.datasets.mnist_images import load_mnist
from setexp.sets import Batch, Encoding, SetBatch
from setexp.tasks.predict import Predict
from setexp.training.evaluate import Evaluation
from setexp.training.loop import Fit


@dataclass
class Contender:
    """Something that takes optimiser steps.

    Args:
        name: shown. run: takes `steps` steps, data included. seeds: trained at once by each step.
    """

    name: str
    run: Callable[[], None]
    steps: int
    seeds: int = 1


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
        return reference.loader(TensorDataset(*self.tensors), batch_size)


class Vector(nn.Module):
    """An encoder for inputs that are latent vectors already, made to depend on a parameter."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(latent))

    def forward(self, z: Tensor) -> Encoding:
        return Encoding(z=z + self.offset)


class ReferenceVector(Vector):
    """The same for the reference."""

    def forward(self, z: Tensor) -> reference.Pooled:  # type: ignore[override]
        return z + self.offset, None


def ours(
    name: str,
    overrides: list[str],
    device: torch.device,
    *,
    seeds: int = 1,
    dataset: Any = None,
    encoder: Callable[[], nn.Module] | None = None,
) -> tuple[Contender, Fit]:
    """The training loop's own step on objects built from a config; one run is one epoch."""
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

    fit = Fit(
        lambda _: make_task(),
        [dataset or build(nodes["dataset"], "dataset").to(device)] * seeds,
        Evaluation(),
        OmegaConf.to_object(config.trainer),  # type: ignore[arg-type]
        list(range(seeds)),
        [Path("benchmarks/no-checkpoint")] * seeds,
        device,
        lambda *_: None,  # type: ignore[arg-type,return-value]
    )

    def run() -> None:
        for batches in fit._batches(fit.step // fit.per_epoch):
            fit._step(batches)
        fit._check()

    return Contender(name, run, fit.per_epoch, seeds), fit


def plainly(
    task: reference.Task, batches: DataLoader, lr: float, device: torch.device, is_set: bool
) -> Contender:
    """The reference; one run is one epoch."""
    task.to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=lr)

    def run() -> None:
        for parts in batches:
            parts = [p.to(device) for p in parts]
            target = (parts[-2], parts[-1])
            reference.step(task, optimizer, target if is_set else parts[0], target)

    return Contender("reference", run, len(batches))


def polygons(n: int, loss: str, device: torch.device, compiled: bool) -> Case:
    """Rotating polygons: FSPool's auto-encoder, or an MLP decoder with the Hungarian loss."""
    steps = 100 if n <= 16 else 40
    encoder = reference.Encoder(
        reference.Elements([2, 16, 16]), reference.FSPool(16, 20, False, True), [16, 16, 1]
    )
    if loss == "direct":
        decoder: nn.Module = reference.FSUnpool(1, [16, 16], [16, 2], 20, False)
        task = reference.Task(encoder, decoder, reference.direct, reference.squared)
        experiment = "polygons_fspool"
    else:
        decoder = reference.MLPDecoder(1, [16, 16], n, 2)
        task = reference.Task(encoder, decoder, reference.hungarian, reference.squared)
        experiment = "polygons_mlp_hungarian"
    batches = reference.loader(reference.Polygons(n, 16 * steps), 16)
    overrides = [
        f"experiment={experiment}",
        f"dataset.set_size={n}",
        f"dataset.train_size={16 * steps}",
    ]
    contenders = [
        plainly(task, batches, 1e-3, device, is_set=True),
        ours("one seed", overrides, device)[0],
        ours("16 seeds stacked", overrides, device, seeds=16)[0],
    ]
    if compiled:
        overrides.append("trainer.compile=true")
        contenders += [
            ours("one seed, compiled", overrides, device)[0],
            ours("16 seeds stacked, compiled", overrides, device, seeds=16)[0],
        ]
    # the bar of one seed may be met by compiling; stacked seeds are exact in eager mode alone
    alone = "one seed, compiled" if compiled else "one seed"
    return Case(contenders, {alone: 3.0, "16 seeds stacked": 5.0})


def mnist_fspool(device: torch.device) -> Case:
    """Relaxed-sort auto-encoder of sets of 342 points, batch 8."""
    data = Resident(64, 342, 2, 32, None, device)
    encoder = reference.Encoder(
        reference.Elements([2, 32, 32]), reference.FSPool(32, 20, True, True), [32, 32, 16]
    )
    decoder = reference.FSUnpool(16, [32, 32], [32, 2], 20, True)
    task = reference.Task(encoder, decoder, reference.direct, reference.squared)
    overrides = ["experiment=mnist_fspool"]
    return Case(
        [
            plainly(task, data.loader(8), 1e-3, device, is_set=True),
            ours("one seed", overrides, device, dataset=data)[0],
        ],
        {"one seed": 2.0},
        smaller={"one seed": 3.0},
    )


def mnist_classify(device: torch.device) -> Case:
    """Hard-sort classifier of MNIST's sets, batch 8, data included; digits are procedural."""
    images, labels, _ = load_mnist("", "procedural", train=True, count=800)
    encoder = reference.Encoder(
        reference.Elements([2, 32, 32]), reference.FSPool(32, 20, True, False), [32, 32, 16]
    )
    task = reference.Classifier(encoder, [16, 16, 10]).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    batches = reference.loader(reference.Digits(images, labels), 8)

    def run() -> None:
        for parts in batches:
            x, mask, label = (p.to(device) for p in parts)
            reference.step(task, optimizer, (x, mask), label)

    overrides = [
        "experiment=mnist_classify_fspool",
        "dataset.source=procedural",
        "dataset.train_size=800",
        "dataset.test_size=1",
    ]
    return Case(
        [
            Contender("reference", run, len(batches)),
            ours("one seed", overrides, device)[0],
            ours("16 seeds stacked", overrides, device, seeds=16)[0],
        ],
        {"one seed": 2.0, "16 seeds stacked": 4.0},
    )


def permuting(
    encoder: reference.Permutation,
    data: Dataset,
    batch_size: int,
    lr: float,
    overrides: list[str],
    device: torch.device,
) -> Case:
    """Permutation-optimisation told the order, data included."""
    task = reference.Permuting(encoder).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=lr)
    batches = reference.loader(data, batch_size)

    def run() -> None:
        for given, target in batches:
            reference.step(task, optimizer, given.to(device), target.to(device))

    overrides = [*overrides, f"trainer.batch_size={batch_size}"]
    return Case(
        [
            Contender("reference", run, len(batches)),
            ours("one seed", overrides, device)[0],
            ours("4 seeds stacked", overrides, device, seeds=4)[0],
        ],
        {"one seed": 1.5},
    )


def sorting(n: int, device: torch.device) -> Case:
    """Sorting n numbers, batch 64."""
    cost = reference.PairCost(1, 16, 1)
    encoder = reference.Permutation(nn.Identity(), cost, [n], 6, 4)
    overrides = ["experiment=sorting", f"dataset.set_size={n}", "dataset.train_size=256"]
    return permuting(encoder, reference.Unsorted(n, 256), 64, 0.1, overrides, device)


def sorting_1024(device: torch.device) -> Case:
    """Sorting 1024 numbers, batch 8: its time and memory; in slices, memory is no larger."""
    cost = reference.PairCost(1, 16, 1)
    encoder = reference.Permutation(nn.Identity(), cost, [1024], 6, 4)
    overrides = ["experiment=sorting", "dataset.set_size=1024", "dataset.train_size=4"]
    case = permuting(encoder, reference.Unsorted(1024, 4), 4, 0.1, overrides, device)
    sliced = ours(
        "one seed, slices of 1",
        [*overrides, "trainer.batch_size=4", "trainer.slice=1"],
        device,
    )[0]
    return Case([*case.contenders[:2], sliced], {})


def mosaics(device: torch.device) -> Case:
    """MNIST in 3 x 3 tiles, batch 32, data included; digits are procedural."""
    images, _, _ = load_mnist("", "procedural", train=True, count=640)
    elements, cost = reference.Tiles(1, 10, 64), reference.PairCost(64 * 25, 64, 2)
    encoder = reference.Permutation(elements, cost, [3, 3], 4, 4)
    overrides = [
        "experiment=mosaics_po_u",
        "dataset.source=procedural",
        "dataset.tiles=3",
        "dataset.train_size=640",
        "dataset.test_size=1",
    ]
    data = reference.Puzzles(images.unsqueeze(1), 3, 0.1307, 0.3081)
    case = permuting(encoder, data, 32, 1e-3, overrides, device)
    return Case(case.contenders[:2], case.bars)  # convolutions do not stack


def counting_toy(device: torch.device, compiled: bool) -> Case:
    """The counting module on the toy task, batch 1024, data included."""
    steps, n, side, noise = 4, 10, 0.5, 0.2
    task = reference.Counter(n).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    batches = reference.loader(reference.Squares(n, side, noise, 1024 * steps), 1024)
    drawn = [next(iter(batches))] * steps

    def run(data: Iterable[Sequence[Tensor]]) -> None:
        for parts in data:
            boxes, weight, label = (p.to(device) for p in parts)
            reference.step(task, optimizer, (boxes, weight), label)

    overrides = [
        "experiment=counting_toy",
        f"dataset.side={side}",
        f"dataset.noise={noise}",
        f"dataset.train_size={1024 * steps}",
    ]
    contenders = [
        Contender("reference", lambda: run(batches), steps),
        Contender("reference without its data", lambda: run(drawn), steps),
        ours("one seed", overrides, device)[0],
        ours("21 seeds stacked", overrides, device, seeds=21)[0],
    ]
    if compiled:
        overrides.append("trainer.compile=true")
        contenders += [
            ours("one seed, compiled", overrides, device)[0],
            ours("21 seeds stacked, compiled", overrides, device, seeds=21)[0],
        ]
    return Case(contenders, {"one seed": 5.0})


def dspn_flops(layers: list[tuple[int, int, int]], steps: int) -> float:
    """Matrix products of a DSPN's set encoder in one optimiser step.

    Each inner step and layer has six: one forward, one for the inner gradient, and each of these
    two is differentiated for both of its factors. The target's encoding has three.
    """
    return sum(2.0 * rows * wide * narrow for rows, wide, narrow in layers) * (6 * steps + 3)


def dspn_mnist(device: torch.device) -> Case:
    """DSPN as an auto-encoder of sets of 342 points; loss on all eleven sets."""
    data = Resident(64, 342, 2, 32, None, device)
    encoder = reference.Encoder(
        reference.Elements([3, 256, 256, 64]),
        reference.FSPool(64, 20, False, False),
        mask_channel=True,
        divide=True,
    )
    task = reference.Task(
        encoder,
        reference.DSPN(342, 2, 10, 800.0),
        reference.chamfer,
        reference.huber,
        all_steps=True,
        mask_channel=True,
    )
    rows = 32 * 342
    layers = [(rows, 3, 256), (rows, 256, 256), (rows, 256, 64)]
    return Case(
        [
            plainly(task, data.loader(32), 0.01, device, is_set=True),
            ours("one seed", ["experiment=dspn_mnist"], device, dataset=data)[0],
        ],
        {"one seed": 1.5},
        dspn_flops(layers, 10),
        (rows, 256, 256),
    )


def dspn_state(images: bool, device: torch.device) -> Case:
    """DSPN with a relation network, objects of a scene from its image or from a vector."""
    given = torch.rand(64, 3, 128, 128) if images else torch.randn(64, 512) * 0.1
    data = Resident(64, 10, 18, 3, given, device)
    inverted = reference.Encoder(
        reference.Pairs([19, 512, 512]),
        reference.FSPool(512, 20, False, False),
        mask_channel=True,
        divide=True,
    )
    task = reference.Task(
        reference.ImageEncoder(512) if images else ReferenceVector(512),
        reference.DSPN(10, 18, 10, 800.0, inverted),
        reference.hungarian,
        reference.huber,
        mask_channel=True,
        representation=0.1,
    )
    mine, fit = ours(
        "one seed",
        ["experiment=dspn_clevr_state"],
        device,
        dataset=data,
        encoder=None if images else lambda: Vector(512),
    )
    # the pair layer is applied to elements, once as first and once as second of a pair
    flops = dspn_flops([(320, 19, 1024), (3200, 512, 512)], 10)
    if images:
        flops += 3 * forward_flops(fit.learner.module(0).encoder, given[:32].to(device))
    return Case(
        [plainly(task, data.loader(32), 3e-4, device, is_set=False), mine],
        {"one seed": 1.5},
        flops,
        (3200, 512, 512),
    )


def multisets(device: torch.device) -> Case:
    """Random multisets, 8 elements of 8 features: iDSPN beside the unrolled DSPN."""
    sets = ["dataset.set_size=8", "dataset.element_dim=8", "dataset.train_size=512"]

    def network() -> reference.Encoder:
        return reference.Encoder(reference.Elements([8, 512, 512]), reference.SortPool(512, 8))

    def mine(name: str, experiment: str, steps: int) -> Contender:
        overrides = [f"experiment={experiment}", f"decoder.steps={steps}", *sets]
        return ours(name, overrides, device)[0]

    decoder = reference.IDSPN(network(), reference.LearnedRows(8, 8), 20, regulariser=0.1)
    task = reference.Task(network(), decoder, reference.hungarian, reference.huber)
    data = TensorDataset(torch.randn(512, 8, 8), torch.ones(512, 8))
    unrolled, implicit = "multisets_dspn", "multisets_idspn"
    layers = [(1024, 8, 512), (1024, 512, 512)]
    return Case(
        [
            mine("DSPN", unrolled, 20),
            mine("iDSPN", implicit, 20),
            plainly(task, reference.loader(data, 128), 1e-3, device, is_set=True),
        ],
        {"iDSPN": 2.0},
        idspn_flops(layers, 20),
        (1024, 512, 512),
        {
            "iDSPN": (mine("", implicit, 10), mine("", implicit, 40), 0.05),
            "DSPN": (mine("", unrolled, 10), mine("", unrolled, 40), None),
        },
    )


def refiner(device: torch.device) -> Case:
    """A set refiner network on circles, printed widths but for what goes to and from pictures."""
    printed = ["experiment=sslr_circles_srn", "dataset.train_size=64", "trainer.inner_epochs=[]"]
    narrow = ["encoder.widths=[8,8,16,64]", "task.picture.widths=[8,8,8]"]

    def mine(gradient: str, steps: int) -> Contender:
        own = [f"decoder.gradient={gradient}", f"trainer.inner_steps=[{steps}]"]
        return ours(gradient, [*printed, *narrow, *own], device)[0]

    return Case(
        [mine("unrolled", 20), mine("implicit", 20)],
        {},
        growth={kind: (mine(kind, 10), mine(kind, 40), None) for kind in ("unrolled", "implicit")},
    )


def numbering(device: torch.device) -> Case:
    """iDSPN numbers 64 elements within their 4 classes, on the simplex."""
    overrides = ["experiment=numbering_idspn", "dataset.train_size=512"]
    mine, fit = ours("one seed", overrides, device)
    batches = list(fit.datasets[0].batches("train", 512, torch.Generator(device),
                                       shuffle=False, drop_last=False))  # fmt: skip
    data = TensorDataset(batches[0].input.x, *batches[0].target)
    decoder = reference.IDSPN(
        reference.Encoder(reference.Elements([68, 256, 256]), reference.SortPool(256, 64)),
        reference.NoiseRows(64, 64),
        20,
        clip=40.0,
        simplex=True,
    )
    encoder = reference.Encoder(reference.Elements([4, 256, 256]), reference.SortPool(256, 64))
    task = reference.Numbering(encoder, decoder)
    rows = 128 * 64
    return Case(
        [plainly(task, reference.loader(data, 128), 1e-3, device, is_set=False), mine],
        {"one seed": 3.0},
        idspn_flops([(rows, 68, 256), (rows, 256, 256)], 20),
        (rows, 256, 256),
    )


def idspn_flops(layers: list[tuple[int, int, int]], steps: int) -> float:
    """Matrix products of an iDSPN's set encoder in one optimiser step.

    All inner steps but the last have two: one forward, one for the inner gradient.
    """
    return dspn_flops(layers, 1) + dspn_flops(layers, 0) / 3 * 2 * (steps - 1)


def forward_flops(module: nn.Module, given: Tensor) -> float:
    """Products of one forward pass of an image encoder; its gradient has twice as many."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(given)
    return float(counter.get_total_flops())


CASES: dict[str, Callable[[torch.device, bool], Case]] = {
    "polygons_fspool_8": lambda d, c: polygons(8, "direct", d, c),
    "polygons_fspool_64": lambda d, c: polygons(64, "direct", d, c),
    "polygons_hungarian_8": lambda d, c: polygons(8, "hungarian", d, c),
    "polygons_hungarian_64": lambda d, c: polygons(64, "hungarian", d, c),
    "mnist_fspool": lambda d, c: mnist_fspool(d),
    "mnist_classify": lambda d, c: mnist_classify(d),
    "sorting_80": lambda d, c: sorting(80, d),
    "sorting_1024": lambda d, c: sorting_1024(d),
    "mosaics_3x3": lambda d, c: mosaics(d),
    "counting_toy": counting_toy,
    "dspn_mnist": lambda d, c: dspn_mnist(d),
    "idspn_8": lambda d, c: multisets(d),
    "refiner": lambda d, c: refiner(d),
    "numbering": lambda d, c: numbering(d),
    "dspn_state_vector": lambda d, c: dspn_state(False, d),
    "dspn_state_image": lambda d, c: dspn_state(True, d),
}
