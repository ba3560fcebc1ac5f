"""The law of stacked seeds: a seed trained in a stack is the seed trained alone, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import EXPERIMENTS, assert_same_run, config, curve, read, train, weights
from torch import nn
from torch.utils._pytree import tree_leaves

from setexp import experiment as experiment_module
from setexp import together
from setexp.build import build
from setexp.experiment import draw
from setexp.sets import Batch, SetBatch
from setexp.training import seeds as seeds_module
from setexp.training.optimise import clip_gradients
from setexp.training.seeds import Alone, Stacked, stackable


def stacks(experiment: str) -> bool:
    nodes = config(f"experiment={experiment}")
    with torch.device("meta"):
        task = build(nodes["task"], "task")
    size = sum(p.numel() for p in task.parameters())
    data = nodes["dataset"]
    if data.get("pad") == "batch" and data.get("pad_multiple", 1) == 1:  # ragged
        return False
    if nodes["crossval"]["grid"]:  # a seed is a stack by itself: tests/test_crossval.py
        return False
    return 0 < size <= nodes["trainer"]["stack"] and stackable(task)


STACKABLE = [name for name in EXPERIMENTS if stacks(name)]


def assert_stack_is_serial(folder: Path, *overrides: str, seeds: tuple[int, ...]) -> None:
    listed = f"seeds={list(seeds)}".replace(" ", "")
    together = train(folder / "stacked", listed, *overrides)
    alone = train(folder / "alone", listed, "trainer.stack=0", *overrides)
    for seed in seeds:
        assert_same_run(together / f"seed-{seed}", alone / f"seed-{seed}")
    record = read(together / f"seed-{seeds[0]}" / "result.json")
    assert record["provenance"]["stacked_seeds"] == len(seeds)
    assert read(alone / f"seed-{seeds[0]}/result.json")["provenance"]["stacked_seeds"] == 1


def test_which_experiments_stack() -> None:
    assert {"polygons_fspool", "polygons_mlp_chamfer", "polygons_mlp_hungarian"} <= {*STACKABLE}
    assert "dspn_mnist" in STACKABLE
    assert not any("clevr" in name for name in STACKABLE)
    # the others of numbering have PyTorch's own LSTM or attention, or draw random numbers
    assert [name for name in STACKABLE if "numbering" in name] == ["numbering_deepsets"]


@pytest.mark.parametrize("experiment", STACKABLE)
def test_stack_is_serial(experiment: str, tmp_path: Path, data_root: Path) -> None:
    seeds = (0, 1, 2) if experiment.startswith("polygons") else (3, 5)
    overrides = [f"experiment={experiment}", f"paths.data={data_root}"]
    assert_stack_is_serial(tmp_path, *overrides, seeds=seeds)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.optimizer=adamax", "trainer.clip=0.1"],
        ["trainer.optimizer=rmsprop", "trainer.weight_decay=0.01", "trainer.steps=5"],
        ["trainer.lr_epochs=[1]", "trainer.lr_factor=0.1", "evaluation.during=test"],
        ["dataset.set_size=2"],
        ["dataset.set_size=33", "trainer.batch_size=7"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_stack_is_serial_under_every_setting(overrides: list[str], tmp_path: Path) -> None:
    arguments = ["experiment=polygons_fspool", *overrides]
    assert_stack_is_serial(tmp_path, *arguments, seeds=(0, 1))


DIGITS = ("dataset.train_size=4", "dataset.test_size=4", "~evaluation.final.test_full")
MULTISETS = ("dataset.set_size=4", "trainer.batch_size=8", "decoder.steps=10")


@pytest.mark.parametrize(
    ("experiment", "data"),
    [
        ("dspn_mnist", DIGITS),
        ("dspn_mnist_lstm", DIGITS),
        ("multisets_idspn", MULTISETS),
        ("multisets_dspn", MULTISETS),
    ],
)
def test_stack_is_serial_at_printed_widths(
    experiment: str, data: tuple[str, ...], tmp_path: Path, data_root: Path
) -> None:
    printed = config(f"experiment={experiment}")
    overrides = [
        *(f"{key}={printed[key]}" for key in ("hidden", "latent")),
        *("trainer.epochs=1", f"paths.data={data_root}", *data),
    ]
    assert_stack_is_serial(tmp_path, f"experiment={experiment}", *overrides, seeds=(0, 1))


def test_seeds_differ_in_weights_and_in_data(tmp_path: Path) -> None:
    base = ["experiment=polygons_fspool", "seeds=[0,1]"]
    first = train(tmp_path / "first", *base, "trainer.steps=0")
    a, b = (weights(first / f"seed-{seed}") for seed in (0, 1))
    assert all(not torch.equal(a[name], b[name]) for name in a if a[name].any())
    folder = train(tmp_path / "trained", *base, "trainer.steps=2")
    losses = [curve(folder / f"seed-{seed}")[0]["train/loss"] for seed in (0, 1)]
    assert losses[0] != losses[1]


class Captured(Exception):
    """Ends a run before it trains."""


@pytest.mark.parametrize("experiment", ["multisets_idspn_plain", "graphs_bio"])
def test_each_seed_has_the_data_of_its_own_run(
    experiment: str, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, and for what is drawn of it afterwards."""
    given: list[Any] = []

    def capture(_: Any, data: Any, *__: Any) -> None:
        given.extend(data if isinstance(data, list) else [data])
        raise Captured

    def figure(_: Any, data: Any, *__: Any) -> list[Path]:
        given.append(data)
        return []

    for name in ("Fit", "Repeat"):
        monkeypatch.setattr(together, name, capture)
    nodes = config(f"experiment={experiment}", "scale=smoke", f"paths.data={data_root}")
    shared = build(nodes["dataset"], "dataset")
    found = []
    for seed in (3, 4):
        arguments = [f"experiment={experiment}", f"paths.data={data_root}", f"seeds=[{seed}]"]
        with pytest.raises(Captured):
            train(tmp_path, *arguments)
        with monkeypatch.context() as patched:
            patched.setattr(experiment_module, "build", lambda *_: {"figure": figure})
            draw({}, nn.Identity(), shared, tmp_path, seed, torch.device("cpu"))
        found.append([first_batch(dataset) for dataset in given])
        given.clear()
    (trained, drawn), (other, _) = found
    assert same(trained, drawn), "of the same run"
    assert not same(trained, other), "of another run"


def first_batch(dataset: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = next(dataset.batches("train", 8, generator, shuffle=False, drop_last=False))
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(a, b, strict=True))


def test_a_seed_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    overrides = ["experiment=polygons_fspool", "trainer.steps=3"]
    first = train(tmp_path / "a", "seeds=[7,1]", *overrides)
    second = train(tmp_path / "b", "seeds=[2,3,7]", *overrides)
    assert_same_run(first / "seed-7", second / "seed-7")


def test_large_models_do_not_stack(tmp_path: Path) -> None:
    arguments = ["experiment=polygons_fspool", "seeds=[0,1]", "trainer.steps=1"]
    folder = train(tmp_path, *arguments, "trainer.stack=1000")
    assert read(folder / "seed-1/result.json")["provenance"]["stacked_seeds"] == 1


def test_a_model_of_just_the_limit_stacks() -> None:
    model = nn.Linear(2, 3)
    assert stackable(model, 9) and not stackable(model, 8)


def test_clipping_is_per_seed() -> None:
    """Seed 0 has norm 5 over both parameters, seed 1 norm 0.5; the limit is 1."""
    a, b = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    a.grad = torch.tensor([[3.0, 0.0], [0.3, 0.0]])
    b.grad = torch.tensor([4.0, 0.4])
    clip_gradients([a, b], 1.0, seeds=2)
    torch.testing.assert_close(a.grad, torch.tensor([[0.6, 0.0], [0.3, 0.0]]))
    torch.testing.assert_close(b.grad, torch.tensor([0.8, 0.4]))


def test_clipping_rounds_alike_in_a_stack_and_alone_with_several_threads() -> None:
    """Threads share the work on large parameters."""
    threads = torch.get_num_threads()
    parameter = nn.Parameter(torch.zeros(8, 100_000))
    gradient = torch.randn(8, 100_000)
    parameter.grad = gradient.clone()
    alone = [nn.Parameter(torch.zeros(100_000)) for _ in gradient]
    torch.set_num_threads(2)
    try:
        clip_gradients([parameter], 1.0, seeds=8)
        for one, own in zip(alone, gradient, strict=True):
            one.grad = own.clone()
            clip_gradients([one], 1.0, seeds=1)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(parameter.grad, torch.stack([one.grad for one in alone]))


def test_without_gradients_nothing_is_clipped() -> None:
    """As of a model whose only trained part takes no part in this step."""
    parameter = nn.Parameter(torch.ones(2))
    clip_gradients([parameter], 1.0, seeds=1)
    assert parameter.grad is None


def test_parameters_without_axes_are_clipped() -> None:
    a, b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor(3.0), torch.tensor([4.0])
    clip_gradients([a, b], 1.0, seeds=1)
    torch.testing.assert_close(a.grad, torch.tensor(0.6))
    torch.testing.assert_close(b.grad, torch.tensor([0.8]))


class Scaled(nn.Module):
    """A task with a parameter of no axes, a buffer and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(()))
        self.frozen = nn.Parameter(torch.rand(2), requires_grad=False)
        self.register_buffer("shift", torch.rand(2))

    def forward(self, batch: Batch, steps: int | None = None) -> Any:
        from setexp.tasks.outcome import Outcome

        x = (batch.input.x * self.scale + self.frozen + self.shift).square().sum((-1, -2))
        return Outcome(x, batch.input, {})


class Moody(nn.Module):
    """A task whose loss is 1 in training and 0 otherwise, and measured as well."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, steps: int | None = None) -> Any:
        from setexp.tasks.outcome import Outcome

        loss = (batch.input.x * self.scale).sum((-1, -2)) + float(self.training)
        return Outcome(loss, batch.input, {"training": loss})


@pytest.mark.parametrize("learner", [Alone(Moody()), Stacked([Moody(), Moody()])])
def test_losses_are_of_training_and_stats_of_evaluation(learner: Alone | Stacked) -> None:
    sets = SetBatch(torch.rand(3, 4, 2), torch.ones(3, 4))
    batches = [Batch(sets, sets, {})] * learner.count
    for _ in range(2):
        assert learner.losses(batches).tolist() == [1] * learner.count
        for stats in learner.stats(batches):
            assert stats["training"].tolist() == [0, 0, 0]


def test_a_stack_keeps_parameters_without_axes_and_buffers() -> None:
    tasks = [Scaled(), Scaled()]
    alone = [Alone(task) for task in tasks]
    stack = Stacked(tasks)
    sets = [SetBatch(torch.rand(3, 4, 2), torch.ones(3, 4)) for _ in tasks]
    batches = [Batch(s, s, {}) for s in sets]
    losses = torch.cat([one.losses([batch]) for one, batch in zip(alone, batches, strict=True)])
    assert torch.equal(stack.losses(batches), losses)
    assert list(stack.named_parameters()) == list(alone[0].named_parameters())
    for index, one in enumerate(alone):
        assert stack.state(index).keys() == one.state(0).keys()
        assert all(torch.equal(stack.state(index)[k], v) for k, v in one.state(0).items())


class ScaledItself(Scaled):
    """The same for a whole stack."""

    stacks_itself = True

    def forward(self, batch: Batch, steps: int | None = None) -> Any:
        from setexp.tasks.outcome import Outcome

        added = (self.frozen + self.shift).unflatten(-1, (1, 1, 2))
        x = batch.input.x * self.scale.view(-1, 1, 1, 1) + added
        return Outcome(x.square().sum((-1, -2)), batch.input, {})


class Counted(nn.Module):
    """A task that counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch: Batch, steps: int | None = None) -> Any:
        from setexp.tasks.outcome import Outcome

        self.calls.add_(1)
        return Outcome((batch.input.x * self.scale).sum((-1, -2)), batch.input, {})


@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 5, 4), (4, 5, 6)])
def test_buffers_move_whether_or_not_batches_are_of_one_shape(sizes: tuple[int, ...]) -> None:
    sets = [SetBatch(torch.rand(3, n, 2), torch.ones(3, n)) for n in sizes]
    stack = Stacked([Counted() for _ in sizes])
    for _ in range(2):
        stack.losses([Batch(s, s, {}) for s in sets])
    assert [stack.state(index)["calls"].item() for index in range(len(sizes))] == [2, 2, 2]


@pytest.mark.parametrize(
    ("numbers", "itself", "calls"), [(1, False, 3), (1e9, False, 1), (1, True, 1)]
)
def test_compiled_code_takes_large_seeds_one_by_one(
    numbers: float, itself: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def recorded(losses: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def step(p: dict[str, torch.Tensor], *others: Any) -> torch.Tensor:
            taken.append(len(p["scale"]))
            return losses(p, *others)

        return step

    monkeypatch.setattr(seeds_module, "compiled", recorded)
    monkeypatch.setattr(seeds_module, "_CACHED_NUMEL", numbers)
    sets = [SetBatch(torch.rand(3, 4, 2), torch.ones(3, 4)) for _ in range(3)]
    batches = [Batch(s, s, {}) for s in sets]
    tasks = [ScaledItself() if itself else Scaled() for _ in sets]
    together, stack = Stacked(tasks), Stacked(tasks)
    stack.compile()
    losses = [each.losses(batches) for each in (together, stack)]
    assert torch.equal(*losses)
    for value in losses:
        value.sum().backward()
    ours, theirs = (each.named_parameters()["scale"].grad for each in (stack, together))
    assert ours is not None and torch.equal(ours, theirs)
    assert taken == [len(sets) // calls] * calls
