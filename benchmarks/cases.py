"""What is timed: each case beside the reference, from the configs that `train.py` runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from contenders import (
    Case,
    Contender,
    ReferenceVector,
    Resident,
    Vector,
    in_processes,
    ours,
    plainly,
)
from reference import counting, descent, permutation, sets
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from setexp.build import build
from setexp.config import compose_run, plain
from setexp.datasets.mnist_images import load_mnist


def both_ways(
    overrides: list[str], device: torch.device, compiled: bool, counts: Sequence[int]
) -> list[Contender]:
    """Stacks of so many seeds and, where it is asked for, the same compiled; and stacks divided
    among as many processes as this one has threads."""
    contenders = []
    for how in (False, True)[: 1 + compiled]:
        make = partial(seeds_of, [*overrides, f"trainer.compile={how}"], device)
        for count in counts:
            contenders.append(make(range(count)))
            contenders += divided("seeds", make, count, how, device)
    return contenders


def seeds_of(overrides: list[str], device: torch.device, seeds: Sequence[int]) -> Contender:
    """Seeds of a config, stacked if there are several."""
    name = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds stacked"
    name += ", compiled" if "trainer.compile=True" in overrides else ""
    return ours(name, overrides, device, seeds=seeds)[0]


def divided(
    what: str,
    make: Callable[[Sequence[int]], Contender],
    count: int,
    compiled: bool,
    device: torch.device,
) -> list[Contender]:
    """So many of them in as many processes as there are threads here, if there are several."""
    processes = min(count, torch.get_num_threads())
    if device.type != "cpu" or processes == 1:
        return []
    name = f"{count} {what}, {processes} processes" + (", compiled" if compiled else "")
    return [in_processes(name, make, count, processes)]


def polygons(n: int, loss: str, device: torch.device, compiled: bool) -> Case:
    """Rotating polygons: FSPool's auto-encoder, or an MLP decoder with the Hungarian loss."""
    steps = 100 if n <= 16 else 40
    encoder = sets.Encoder(
        sets.Elements([2, 16, 16]), sets.FSPool(16, 20, False, True), [16, 16, 1]
    )
    if loss == "direct":
        decoder: nn.Module = sets.FSUnpool(1, [16, 16], [16, 2], 20, False)
        task = sets.Task(encoder, decoder, sets.direct, sets.squared)
        experiment = "polygons_fspool"
    else:
        decoder = sets.MLPDecoder(1, [16, 16], n, 2)
        task = sets.Task(encoder, decoder, sets.hungarian, sets.squared)
        experiment = "polygons_mlp_hungarian"
    batches = sets.loader(sets.Polygons(n, 16 * steps), 16)
    overrides = [
        f"experiment={experiment}",
        f"dataset.set_size={n}",
        f"dataset.train_size={16 * steps}",
    ]
    contenders = [
        plainly(task, batches, 1e-3, device, is_set=True),
        *both_ways(overrides, device, compiled, (1, 16)),
    ]
    how = ", compiled" if compiled else ""
    return Case(contenders, {f"one seed{how}": 3.0, contenders[-1].name: 5.0})


def mnist_fspool(device: torch.device) -> Case:
    """Relaxed-sort auto-encoder of sets of 342 points, batch 8."""
    data = Resident(64, 342, 2, 32, None, device)
    encoder = sets.Encoder(
        sets.Elements([2, 32, 32]), sets.FSPool(32, 20, True, True), [32, 32, 16]
    )
    decoder = sets.FSUnpool(16, [32, 32], [32, 2], 20, True)
    task = sets.Task(encoder, decoder, sets.direct, sets.squared)
    overrides = ["experiment=mnist_fspool"]
    return Case(
        [
            plainly(task, data.loader(8), 1e-3, device, is_set=True),
            ours("one seed", overrides, device, dataset=data)[0],
        ],
        {"one seed": 2.0},
        smaller={"one seed": 3.0},
    )


def mnist_classify(device: torch.device, compiled: bool) -> Case:
    """Hard-sort classifier of MNIST's sets, batch 8, data included; digits are procedural.

    References pad to the batch's largest set, or to 342; the experiment to a multiple of 32.
    """
    images, labels, _ = load_mnist("", "procedural", train=True, count=800, seed=0)
    encoder = sets.Encoder(
        sets.Elements([2, 32, 32]), sets.FSPool(32, 20, True, False), [32, 32, 16]
    )
    task = sets.Classifier(encoder, [16, 16, 10]).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    batches = sets.loader(sets.Digits(images, labels), 8)

    def run(whole: bool) -> None:
        for x, mask, label in batches:
            n = x.shape[1] if whole else int(mask.sum(1).max())
            given = (x[:, :n].to(device), mask[:, :n].to(device))
            sets.step(task, optimizer, given, label.to(device))

    how = ", compiled" if compiled else ""
    overrides = [
        "experiment=mnist_classify_fspool",
        "dataset.source=procedural",
        "dataset.train_size=800",
        "dataset.test_size=1",
    ]
    mine = both_ways(overrides, device, compiled, (1, 16))
    return Case(
        [
            Contender("reference", partial(run, False), len(batches)),
            Contender("reference, padded to 342", partial(run, True), len(batches)),
            *mine,
        ],
        {f"one seed{how}": 2.0, mine[-1].name: 4.0},
    )


def permuting(
    encoder: permutation.Permutation,
    data: Dataset,
    batch_size: int,
    lr: float,
    overrides: list[str],
    device: torch.device,
    compiled: bool,
) -> Case:
    """Permutation-optimisation told the order, data included."""
    task = permutation.Permuting(encoder).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=lr)
    batches = sets.loader(data, batch_size)

    def run() -> None:
        for given, target in batches:
            sets.step(task, optimizer, given.to(device), target.to(device))

    overrides = [*overrides, f"trainer.batch_size={batch_size}"]
    return Case(
        [
            Contender("reference", run, len(batches)),
            *both_ways(overrides, device, compiled, (1,)),
        ],
        {"one seed, compiled" if compiled else "one seed": 1.5},
    )


def sorting(n: int, device: torch.device, compiled: bool) -> Case:
    """Sorting n numbers, batch 64."""
    cost = permutation.PairCost(1, 16, 1)
    encoder = permutation.Permutation(nn.Identity(), cost, [n], 6, 4)
    overrides = ["experiment=sorting", f"dataset.set_size={n}", "dataset.train_size=256"]
    data = permutation.Unsorted(n, 256)
    return permuting(encoder, data, 64, 0.1, overrides, device, compiled)


def sorting_1024(device: torch.device) -> Case:
    """Sorting 1024 numbers, batch 4: its time and memory, and those of slices of one set."""
    cost = permutation.PairCost(1, 16, 1)
    encoder = permutation.Permutation(nn.Identity(), cost, [1024], 6, 4)
    overrides = ["experiment=sorting", "dataset.set_size=1024", "dataset.train_size=4"]
    case = permuting(encoder, permutation.Unsorted(1024, 4), 4, 0.1, overrides, device, False)
    sliced = ours(
        "one seed, slices of 1",
        [*overrides, "trainer.batch_size=4", "trainer.slice=1"],
        device,
    )[0]
    return Case([*case.contenders, sliced], {})


def mosaics(device: torch.device, compiled: bool) -> Case:
    """MNIST in 3 x 3 tiles, batch 32, data included; digits are procedural."""
    images, _, _ = load_mnist("", "procedural", train=True, count=640, seed=0)
    elements, cost = (
        permutation.Tiles(1, 10, 64),
        permutation.PairCost(64 * 25, 64, 2),
    )
    encoder = permutation.Permutation(elements, cost, [3, 3], 4, 4)
    overrides = [
        "experiment=mosaics_po_u",
        "dataset.source=procedural",
        "dataset.tiles=3",
        "dataset.train_size=640",
        "dataset.test_size=1",
    ]
    data = permutation.Puzzles(images.unsqueeze(1), 3, 0.1307, 0.3081)
    return permuting(encoder, data, 32, 1e-3, overrides, device, compiled)


def counting_toy(device: torch.device, compiled: bool) -> Case:
    """The counting module on the toy task, batch 1024, data included."""
    steps, n, side, noise = 4, 10, 0.5, 0.2
    task = counting.Counter(n).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    batches = sets.loader(counting.Squares(n, side, noise, 1024 * steps), 1024)
    drawn = [next(iter(batches))] * steps

    def run(data: Iterable[Sequence[Tensor]]) -> None:
        for parts in data:
            boxes, weight, label = (p.to(device) for p in parts)
            sets.step(task, optimizer, (boxes, weight), label)

    overrides = [
        "experiment=counting_toy",
        f"dataset.side={side}",
        f"dataset.noise={noise}",
        f"dataset.train_size={1024 * steps}",
    ]
    contenders = [
        Contender("reference", lambda: run(batches), steps),
        Contender("reference without its data", lambda: run(drawn), steps),
        *both_ways(overrides, device, compiled, (1, 21)),
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
    encoder = sets.Encoder(
        sets.Elements([3, 256, 256, 64]),
        sets.FSPool(64, 20, False, False),
        mask_channel=True,
        divide=True,
    )
    task = sets.Task(
        encoder,
        descent.DSPN(342, 2, 10, 800.0),
        sets.chamfer,
        sets.huber,
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
    inverted = sets.Encoder(
        sets.Pairs([19, 512, 512]),
        sets.FSPool(512, 20, False, False),
        mask_channel=True,
        divide=True,
    )
    task = sets.Task(
        sets.ImageEncoder(512) if images else ReferenceVector(512),
        descent.DSPN(10, 18, 10, 800.0, inverted),
        sets.hungarian,
        sets.huber,
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
    small = ["dataset.set_size=8", "dataset.element_dim=8", "dataset.train_size=512"]

    def network() -> sets.Encoder:
        return sets.Encoder(sets.Elements([8, 512, 512]), sets.SortPool(512, 8))

    def mine(name: str, experiment: str, steps: int) -> Contender:
        overrides = [f"experiment={experiment}", f"decoder.steps={steps}", *small]
        return ours(name, overrides, device)[0]

    decoder = descent.IDSPN(network(), descent.LearnedRows(8, 8), 20, regulariser=0.1)
    task = sets.Task(network(), decoder, sets.hungarian, sets.huber)
    data = TensorDataset(torch.randn(512, 8, 8), torch.ones(512, 8))
    unrolled, implicit = "multisets_dspn", "multisets_idspn"
    layers = [(1024, 8, 512), (1024, 512, 512)]
    return Case(
        [
            mine("DSPN", unrolled, 20),
            mine("iDSPN", implicit, 20),
            plainly(task, sets.loader(data, 128), 1e-3, device, is_set=True),
        ],
        {"iDSPN": 2.0},
        idspn_flops(layers, 20),
        (1024, 512, 512),
        growth={
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


def numbering(device: torch.device, compiled: bool) -> Case:
    """iDSPN numbers 64 elements within their 4 classes, on the simplex."""
    overrides = ["experiment=numbering_idspn", "dataset.train_size=512"]
    dataset = build(plain(compose_run(overrides))["dataset"], "dataset").to(device)
    batches = list(dataset.batches("train", 512, torch.Generator(device),
                                   shuffle=False, drop_last=False))  # fmt: skip
    data = TensorDataset(batches[0].input.x, *batches[0].target)
    decoder = descent.IDSPN(
        sets.Encoder(sets.Elements([68, 256, 256]), sets.SortPool(256, 64)),
        descent.NoiseRows(64, 64),
        20,
        clip=40.0,
        simplex=True,
    )
    encoder = sets.Encoder(sets.Elements([4, 256, 256]), sets.SortPool(256, 64))
    task = descent.Numbering(encoder, decoder)
    rows = 128 * 64
    contenders = [
        plainly(task, sets.loader(data, 128), 1e-3, device, is_set=False),
        *both_ways(overrides, device, compiled, (1,)),
    ]
    return Case(
        contenders,
        {contenders[-1].name: 3.0},
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


GRAPHS = [
    "experiment=graphs_bio",
    "readout@encoder.readout=fspool",
    "dataset.source=procedural",
    f"paths.data={tempfile.gettempdir()}/setexp-benchmark",
]


def folds(device: torch.device, compiled: bool, which: Sequence[int]) -> Contender:
    """Folds of a cross-validation on graphs like MUTAG's, stacked if several; one epoch."""
    data = build(plain(compose_run(GRAPHS))["dataset"], "dataset").to(device)
    name = "one fold" if len(which) == 1 else f"{len(which)} folds stacked"
    name += ", compiled" if compiled else ""
    overrides = [*GRAPHS, f"trainer.compile={compiled}"]
    return ours(name, overrides, device, seeds=which, datasets=[data.fold(k) for k in which])[0]


def graphs(device: torch.device, compiled: bool) -> Case:
    """GIN with FSPool, an epoch of MUTAG's size and its curves, beside padded batches."""
    from reference.graphs import epoch

    mine = [folds(device, how, [0]) for how in (False, True)[: 1 + compiled]]
    data = build(plain(compose_run(GRAPHS))["dataset"], "dataset")
    reference = Contender("reference", epoch(data, device), mine[0].steps)
    return Case([reference, *mine], {mine[-1].name: 2.0})


def graph_folds(device: torch.device, compiled: bool) -> Case:
    """Ten folds together beside one, an epoch and its curves, per fold."""
    contenders = [folds(device, False, [0])]
    for how in (False, True)[: 1 + compiled]:
        contenders.append(folds(device, how, range(10)))
        contenders += divided("folds", partial(folds, device, how), 10, how, device)
    return Case(contenders, {contenders[-1].name: 5.0})


CASES: dict[str, Callable[[torch.device, bool], Case]] = {
    "polygons_fspool_8": lambda d, c: polygons(8, "direct", d, c),
    "polygons_fspool_64": lambda d, c: polygons(64, "direct", d, c),
    "polygons_hungarian_8": lambda d, c: polygons(8, "hungarian", d, c),
    "polygons_hungarian_64": lambda d, c: polygons(64, "hungarian", d, c),
    "mnist_fspool": lambda d, c: mnist_fspool(d),
    "mnist_classify": mnist_classify,
    "sorting_80": lambda d, c: sorting(80, d, c),
    "sorting_1024": lambda d, c: sorting_1024(d),
    "mosaics_3x3": mosaics,
    "counting_toy": counting_toy,
    "dspn_mnist": lambda d, c: dspn_mnist(d),
    "idspn_8": lambda d, c: multisets(d),
    "refiner": lambda d, c: refiner(d),
    "numbering": numbering,
    "dspn_state_vector": lambda d, c: dspn_state(False, d),
    "dspn_state_image": lambda d, c: dspn_state(True, d),
    "graphs": graphs,
    "graph_folds": graph_folds,
}
