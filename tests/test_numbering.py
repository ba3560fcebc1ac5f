"""Class-specific numbering: its sets, matching within classes, accuracies, models and settings."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import config, train
from torch import Tensor
from torch.func import vmap
from torch.testing import assert_close

from setexp.build import build
from setexp.datasets.numbering import Numbering, occurrence
from setexp.datasets.polygons import Polygons
from setexp.decoders.equivariant import EquivariantLayer
from setexp.decoders.transformer import Positions, RandomFeatures, Sinusoids, Transformer
from setexp.errors import ConfigError, NonFiniteError
from setexp.losses.numbering import NumberingLoss
from setexp.metrics.numbering import NumberingAccuracy, Per
from setexp.ops.assignment import assignment, assignment_within
from setexp.ops.costs import Cost, matched_cost, pair_cost
from setexp.ops.layers import Linear, LinearInit
from setexp.ops.numbering import number_costs
from setexp.report.tables import load_table
from setexp.sets import Batch, Encoding, SetBatch
from setexp.training.randomness import derive, for_run

COSTS = [Cost.l2, Cost.squared, Cost.cross_entropy]
seeds = st.integers(0, 2**16)


def random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def as_set(x: Tensor) -> SetBatch:
    return SetBatch(x, x.new_ones(x.shape[:-1]))


def numbered(classes: list[list[int]], kinds: int = 3) -> SetBatch:
    """Targets of some sets of classes, in double precision."""
    x = F.one_hot(torch.tensor(classes), kinds)
    numbers = F.one_hot(occurrence(x), len(classes[0]))
    return as_set(torch.cat([x, numbers], dim=-1).double())


# data


def make(**changes: Any) -> Numbering:
    sizes = {"train_size": 20, "val_size": 10, "test_size": 6}
    task = {"set_size": 7, "element_dim": 9, "classes": 4, "classes_per_sample": 4}
    return Numbering(**{**task, **sizes, "augment": False, **changes})


def one_pass(dataset: Numbering, split: str = "val", seed: int = 0, **how: Any) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    options = {"shuffle": False, "drop_last": False} | how
    return list(dataset.batches(split, 4, generator, **options))


def rows(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.target.x for batch in batches])


def test_the_papers_example() -> None:
    x = F.one_hot(torch.tensor([[0, 0, 1, 1, 1], [1, 0, 1, 1, 0]]), 2)
    assert occurrence(x).tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 2, 1]]


def test_sets_and_their_numbers() -> None:
    dataset = make()
    batches = one_pass(dataset)
    assert [len(batch.input.x) for batch in batches] == [4, 4, 2]
    assert [dataset.sizes(split) for split in ("train", "val", "test")] == [20, 10, 6]
    for batch in batches:
        x, target = batch.input.x, batch.target.x
        assert x.shape[1:] == (7, 4) and target.shape[1:] == (7, 13)
        assert torch.equal(target[..., :4], x)
        assert torch.equal(x.sum(-1), torch.ones(x.shape[:-1]))
        assert torch.equal(target.sum(-1), 2 * torch.ones(x.shape[:-1]))
        assert (batch.input.mask == 1).all() and (batch.target.mask == 1).all()
        for classes, numbers in zip(x.argmax(-1), target[..., 4:].argmax(-1), strict=True):
            for kind in range(4):
                own = numbers[classes == kind].tolist()
                assert own == list(range(len(own)))


@pytest.mark.parametrize(("classes", "choices"), [(4, 4), (8, 4), (8, 8), (3, 1)])
def test_classes_are_uniform_among_the_choices_of_a_set(classes: int, choices: int) -> None:
    count = 2000
    dataset = make(classes=classes, classes_per_sample=choices, val_size=count)
    x = torch.cat([batch.input.x for batch in one_pass(dataset)])
    present = x.amax(1)
    assert present.sum(-1).max() == min(choices, 7)
    share, exact = x.mean((0, 1)), 1 / classes
    # elements of one set are alike where it has few classes
    assert ((share - exact).abs() < 5 * (exact / count) ** 0.5).all()


def test_the_device_does_not_decide() -> None:
    """Meta tensors can be moved to, but nothing can be drawn on their device."""
    (batch, *_) = one_pass(make().to(torch.device("meta")))
    assert batch.input.x.device.type == "meta"


def test_sets_belong_to_the_run_and_the_split() -> None:
    dataset = make().for_run(3)
    first = rows(one_pass(dataset, seed=0))
    assert torch.equal(first, rows(one_pass(dataset, seed=1)))
    assert torch.equal(first, rows(one_pass(make(augment=True).for_run(3), seed=2)))
    assert not torch.equal(first, rows(one_pass(make().for_run(4))))
    assert not torch.equal(first[:6], rows(one_pass(dataset, "test")))
    assert not torch.equal(first, rows(one_pass(dataset, "train"))[:10])
    assert make().seed == 0


@given(seeds)
def test_training_sees_the_same_sets_in_another_order(seed: int) -> None:
    dataset = make()
    fixed = rows(one_pass(dataset, "train"))
    shuffled = rows(one_pass(dataset, "train", seed, shuffle=True))
    assert not torch.equal(fixed, shuffled)
    order = torch.tensor([[int(torch.equal(a, b)) for b in fixed] for a in shuffled])
    assert (order.sum(0) > 0).all() and (order.sum(1) > 0).all()


@given(seeds)
def test_augmentation_moves_input_and_target_together(seed: int) -> None:
    plain, moved = (
        rows(one_pass(make(augment=augment), "train", seed, shuffle=True))
        for augment in (False, True)
    )
    assert not torch.equal(plain, moved)
    value = torch.arange(1.0, 14.0).exp()  # tells rows apart
    assert_close((plain @ value).sort(-1).values, (moved @ value).sort(-1).values)
    batch = one_pass(make(augment=True), "train", seed)[0]
    assert torch.equal(batch.input.x, batch.target.x[..., :4])
    again = rows(one_pass(make(augment=True), "train", seed + 1, shuffle=True))
    assert not torch.equal(moved, again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"element_dim": 6}, "dataset.element_dim=6: a class may have 7 elements to number"),
        ({"classes_per_sample": 5}, "dataset.classes_per_sample=5: choose 1 to dataset.classes=4"),
        ({"classes_per_sample": 0}, "dataset.classes_per_sample=0: choose 1 to"),
    ],
)
def test_data_refuse(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_a_run_trains_and_is_measured_on_its_own_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = Numbering.for_run

    def for_run_of(self: Numbering, seed: int) -> Numbering:
        asked.append(seed)
        return original(self, seed)

    monkeypatch.setattr(Numbering, "for_run", for_run_of)
    monkeypatch.setattr(Numbering, "_draw", refuse_shared(Numbering._draw))
    train(tmp_path, "experiment=numbering_deepsets", "seeds=[4,5]", "trainer.steps=1")
    assert set(asked) == {derive(seed, "data") for seed in (4, 5)}


def refuse_shared(draw: Any) -> Any:
    def checked(self: Numbering, split: str) -> Tensor:
        assert self.seed, "these are the sets of no run"
        return draw(self, split)

    return checked


def test_other_data_are_the_same_for_all_runs() -> None:
    data = Polygons(set_size=3, element_dim=2, train_size=1, test_size=1)
    assert for_run(data, 3) is data


# matching


@given(seeds, st.integers(1, 8), st.sampled_from([torch.float32, torch.float64]))
def test_matching_within_groups_is_the_full_problem(seed: int, n: int, dtype: torch.dtype) -> None:
    costs = random(seed, 2, 3, n, n).to(dtype)
    group = torch.randint(-1, 3, (2, 3, n), generator=torch.Generator().manual_seed(seed))
    full = assignment(costs.double() + 1000 * (group.unsqueeze(-1) != group.unsqueeze(-2)))
    found = assignment_within(costs, group)
    assert torch.equal(found, full)
    assert torch.equal(group.gather(-1, found), group)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 1)])
def test_matching_within_groups_can_be_stacked(in_dims: tuple[int | None, int | None]) -> None:
    costs, group = random(0, 3, 3, 5, 5), torch.arange(45).reshape(3, 3, 5) % 2
    arguments = [t if d is not None else t[0] for t, d in zip((costs, group), in_dims, strict=True)]
    each = [
        assignment_within(
            *(t if d is None else t.select(d, i) for t, d in zip(arguments, in_dims, strict=True))
        )
        for i in range(3)
    ]
    assert torch.equal(vmap(assignment_within, in_dims)(*arguments), torch.stack(each))


def test_a_cost_that_is_not_finite_is_refused() -> None:
    costs = torch.zeros(2, 3, 3)
    costs[1, 0, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="cost matrix 1 of 2"):
        assignment_within(costs, torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("cost", COSTS)
def test_costs_of_numbers_are_those_of_one_hot_vectors(cost: Cost) -> None:
    x, numbers = random(0, 2, 3, 5), torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    assert_close(number_costs(x, cost), pair_cost(x, numbers, cost))


def test_other_costs_are_refused() -> None:
    with pytest.raises(ValueError, match="^cost=huber: numbers have l2, squared or"):
        number_costs(torch.zeros(1, 2, 2), Cost.huber)
    with pytest.raises(ValueError, match="^cost=huber: "):
        NumberingLoss(cost=Cost.huber)


# loss and accuracies


@pytest.mark.parametrize("cost", COSTS)
@given(seed=seeds)
def test_the_loss_is_the_best_matching_within_classes(cost: Cost, seed: int) -> None:
    classes = [[0, 1, 0, 2, 0], [1, 1, 1, 0, 0]]
    target, x = numbered(classes), random(seed, 2, 5, 5)
    loss = NumberingLoss(cost=cost)(as_set(torch.stack([x + 1, x])), target)
    for b, kinds in enumerate(classes):
        legal = (
            list(order)
            for order in itertools.permutations(range(5))
            if [kinds[i] for i in order] == kinds
        )
        numbers = target.x[b, :, 3:]
        best = min(matched_cost(x[b], numbers[order], cost).mean() for order in legal)
        assert_close(loss[b], best)


@pytest.mark.parametrize("cost", COSTS)
def test_which_element_of_a_class_has_which_number_does_not_matter(cost: Cost) -> None:
    target, x = numbered([[0, 1, 0, 1, 0]]), random(1, 1, 1, 5, 5)
    swapped = x[..., [4, 3, 0, 1, 2], :]
    across = x[..., [1, 0, 2, 3, 4], :]
    loss = NumberingLoss(cost=cost)
    assert_close(loss(as_set(swapped), target), loss(as_set(x), target))
    assert not torch.allclose(loss(as_set(across), target), loss(as_set(x), target))


def test_accuracies_by_hand() -> None:
    target = numbered([[0, 0, 1, 1], [0, 0, 0, 1]])
    given_numbers = torch.tensor([[1, 0, 0, 1], [0, 2, 2, 0]])  # the second lacks (a, 1)
    prediction = as_set(F.one_hot(given_numbers, 4).double().unsqueeze(0))
    element = NumberingAccuracy(cost=Cost.l2, per=Per.element)(prediction, target)
    whole = NumberingAccuracy(cost=Cost.l2, per=Per.set)(prediction, target)
    assert element.tolist() == [1, 0.75]
    assert whole.tolist() == [1, 0]
    loss = NumberingLoss(cost=Cost.l2)(prediction, target)
    assert_close(loss, torch.tensor([0, 2**0.5 / 4], dtype=torch.float64))


def test_the_last_inner_step_is_judged() -> None:
    target = numbered([[0, 0, 1, 1]])
    right, wrong = F.one_hot(torch.tensor([[1, 0, 0, 1], [2, 2, 2, 2]]), 4).double().unsqueeze(1)
    accuracy = NumberingAccuracy(cost=Cost.l2, per=Per.set)
    for last, share in ((right, 1), (wrong, 0)):
        steps = torch.stack([right, wrong, last])
        assert accuracy(as_set(steps), target).tolist() == [share]


# models


def test_an_equivariant_layer_sees_each_element_and_the_mean() -> None:
    layer = EquivariantLayer(2, 1)
    for linear, weight in ((layer.own, [[1.0, 2.0]]), (layer.mean, [[10.0, 0.0]])):
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor([0.5])
    x = torch.tensor([[[1.0, 0.0], [3.0, 1.0]]])
    assert layer(x).tolist() == [[[1 + 20 + 1], [5 + 20 + 1]]]


def test_sinusoids_by_hand() -> None:
    added = Sinusoids(set_size=3, features=4)(torch.zeros(1, 3, 4))[0]
    place = torch.arange(3.0)
    slow = place / 100
    expected = torch.stack([place.sin(), place.cos(), slow.sin(), slow.cos()], dim=-1)
    assert_close(added, expected)


def test_random_features_are_fresh_and_have_a_learned_mean_and_scale() -> None:
    model = RandomFeatures(features=400)
    model.mean.data, model.log_scale.data = torch.tensor(3.0), torch.tensor(2.0).log()
    x = torch.randn(5, 20, 3)
    first, second = model.eval()(x), model(x)
    assert torch.equal(first[..., :3], x)
    noise = first[..., 3:]
    assert abs(noise.mean() - 3) < 0.05 and abs(noise.std() - 2) < 0.05
    assert not torch.isclose(noise, second[..., 3:]).all(-1).any()
    noise.sum().backward()
    assert model.mean.grad is not None and model.log_scale.grad is not None


def transformer(positions: Positions, hidden: int = 32) -> Transformer:
    return Transformer(
        inputs=4, hidden=hidden, layers=2, heads=4, feed_forward=16, positions=positions,
        set_size=6, element_dim=6,
    )  # fmt: skip


@pytest.mark.parametrize("positions", Positions)
def test_transformers_say_the_same_in_training_and_evaluation(positions: Positions) -> None:
    model = transformer(positions)
    encoding = Encoding(torch.zeros(3, 0), elements=as_set(torch.randn(3, 6, 4)))
    torch.manual_seed(0)
    trained = model(encoding)
    assert trained.x.shape == (1, 3, 6, 6) and trained.mask.shape == (1, 3, 6)
    torch.manual_seed(0)
    with torch.no_grad():  # PyTorch takes another path
        assert_close(model.eval()(encoding).x, trained.x)


def test_widths_that_heads_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="^hidden=36: choose a multiple of twice heads="):
        transformer(Positions.none, hidden=36)


def test_linear_layers_begin_as_asked() -> None:
    layer = Linear(100, 50, init=LinearInit.pytorch)
    assert layer.weight.abs().max() <= 0.1 and layer.bias.abs().max() <= 0.1
    assert layer.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert layer.bias.std() > 0.03
    layer = Linear(100, 50, init=LinearInit.xavier)
    assert layer.weight.std().item() == pytest.approx((2 / 150) ** 0.5, rel=0.05)
    assert (layer.bias == 0).all()


@pytest.mark.parametrize("name", ["idspn", "dspn"])
def test_dspn_numbers_on_the_simplex_and_reads_the_classes(name: str) -> None:
    nodes = config(f"experiment=numbering_{name}", "scale=smoke")
    task = build(nodes["task"], "task").eval()
    layer = task.encoder.elements.mlp[0]
    assert layer.bias.abs().max() > 0  # PyTorch's initial weights
    batch = next(iter(one_pass(make(set_size=6, element_dim=6))))
    with torch.no_grad():
        x = task(batch, steps=3).prediction.x
        known = batch._replace(input=as_set(batch.input.x.roll(1, -1)))
        torch.manual_seed(1)
        here = task(batch, steps=3).prediction.x
        torch.manual_seed(1)
        there = task(known, steps=3).prediction.x
    assert x.shape == (4, 4, 6, 6)
    assert (x[1:] >= 0).all()
    assert_close(x[1:].sum(-1), torch.ones(3, 4, 6))
    starts_inside = (x[0] >= 0).all()
    assert starts_inside == (name == "idspn")
    assert torch.equal(here[0], there[0]) and not torch.allclose(here[1], there[1])


# settings


def test_widths_double_with_eight_classes() -> None:
    for experiment, width in (("idspn", 256), ("dspn", 256), ("deepsets", 256), ("bilstm", 64)):
        for classes in (4, 8):
            nodes = config(f"experiment=numbering_{experiment}", f"dataset.classes={classes}")
            latent = nodes["hidden"] if experiment in ("idspn", "dspn") else None
            assert (nodes["hidden"], nodes["latent"]) == (width * classes // 4, latent)
    wide = config("experiment=numbering_transformer", "dataset.classes=8")["decoder"]
    assert (wide["hidden"], wide["feed_forward"], wide["inputs"]) == (128, 256, 8)


def test_parameters() -> None:
    """z's encoder and the inner one, widths 256, 64 positions; see the protocol."""
    task = build(config("experiment=numbering_idspn")["task"], "task")
    outer = (4 + 1) * 256 + (256 + 1) * 256 + 256 * 64
    inner = (68 + 1) * 256 + (256 + 1) * 256 + 256 * 64
    assert sum(p.numel() for p in task.parameters()) == outer + inner


@pytest.mark.parametrize("table", ["idspn/2", "idspn/4"])
def test_every_run_takes_50000_steps_and_chooses_every_500(table: str) -> None:
    runs = load_table(table).runs
    for run in (runs[i] for i in range(0, len(runs), 7)):
        nodes = config(*run.overrides)
        trainer = nodes["trainer"]
        epoch = nodes["dataset"]["train_size"] // trainer["batch_size"]
        assert trainer["epochs"] * epoch == 50_000
        assert trainer["evaluate_every"] * epoch == 500
        assert trainer["select_metric"] == "set_accuracy" and not trainer["select_lower"]
