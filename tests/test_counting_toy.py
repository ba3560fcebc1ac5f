"""The counting toy task: what is drawn, how it is trained, and the page that shows the module."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import counting
from smoke_runs import ROOT, config, read, train
from torch import Tensor
from torch.testing import assert_close

from setexp.build import build
from setexp.datasets.counting_toy import CountingToy, scores
from setexp.errors import ConfigError
from setexp.sets import Batch

share = st.sampled_from([0.0, 0.3, 0.5, 1.0])


def toy(**changes: Any) -> CountingToy:
    sizes = {"set_size": 10, "element_dim": 5, "train_size": 700, "test_size": 300}
    return CountingToy(**{"side": 0.4, "noise": 0.3, **sizes, **changes})


def one_pass(data: CountingToy, size: int = 256, seed: int = 0, **how: Any) -> list[Batch]:
    how = {"shuffle": True, "drop_last": False} | how
    return list(data.batches("train", size, torch.Generator().manual_seed(seed), **how))


def drawn(data: CountingToy) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, weights and labels of a pass."""
    x, label = (torch.cat(p) for p in zip(*((b.input.x, b.aux["label"]) for b in one_pass(data)),
                                          strict=True))  # fmt: skip
    return x[..., :4], x[..., 4], label


@given(side=share, noise=share)
def test_squares_of_one_side_within_the_unit_square(side: float, noise: float) -> None:
    boxes, weight, label = drawn(toy(side=side, noise=noise))
    assert boxes.shape == (700, 10, 4) and weight.shape == (700, 10) and label.shape == (700,)
    assert_close(boxes[..., 2:] - boxes[..., :2], torch.full((700, 10, 2), max(side, 1e-6)),
                 rtol=0, atol=1e-6)  # fmt: skip
    assert (boxes >= 0).all() and (boxes <= 1 + 1e-6).all()
    assert (weight >= 0).all() and (weight <= 1).all()
    assert label.min() == 0 and label.max() == 10


def test_counts_corners_and_noise_are_uniform() -> None:
    boxes, weight, label = drawn(toy(train_size=20_000, noise=1.0))
    shares = torch.bincount(label, minlength=11) / len(label)
    assert_close(shares, torch.full((11,), 1 / 11), rtol=0, atol=0.01)
    for drawn_uniformly in (boxes[..., 0] / 0.6, boxes[..., 1] / 0.6, weight):
        quarters = torch.histc(drawn_uniformly, 4, 0, 1) / drawn_uniformly.numel()
        assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.01)


@given(side=share, seed=st.integers(0, 99))
def test_a_score_is_the_largest_overlap_with_a_true_box(side: float, seed: int) -> None:
    data = toy(side=side, noise=0.0, train_size=20)
    (batch,) = one_pass(data, 20, seed)
    for x, count in zip(batch.input.x, batch.aux["label"].tolist(), strict=True):
        overlap = counting.box_iou(x[None, :, :4])[0]
        expected = overlap[:, :count].amax(1) if count else torch.zeros(10)
        assert_close(x[:, 4], expected)
        assert torch.equal(x[:count, 4], torch.ones(count))


def test_the_plain_dataset_draws_the_same() -> None:
    for boxes, weight, count in counting.Squares(10, 0.4, 0.0, 30):
        assert_close(weight, scores(boxes.unsqueeze(0), count.unsqueeze(0))[0])


def test_noise_replaces_a_share_of_the_score() -> None:
    clean, noisy = toy(noise=0.0), toy(noise=0.25)
    (a, score, label), (b, weight, same) = drawn(clean), drawn(noisy)
    assert torch.equal(a, b) and torch.equal(label, same)  # sweeps differ in the noise alone
    rest = (weight - 0.75 * score) / 0.25
    assert rest.min() >= -1e-5 and rest.max() <= 1 + 1e-5
    assert rest.mean().item() == pytest.approx(0.5, abs=0.02)
    assert_close(score, scores(a, label))


def test_the_input_is_what_is_to_be_counted() -> None:
    assert all(b.target is b.input and b.input.mask.all() for b in one_pass(toy()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"side": 1.2}, "dataset.side=1.2: choose a value in [0, 1]"),
        ({"noise": -0.1}, "dataset.noise=-0.1: choose a value in [0, 1]"),
        ({"element_dim": 4}, "dataset.element_dim=4: a box and its weight are 5"),
        ({"set_size": 0}, "dataset.set_size=0: at least 1"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        toy(**changes)
    assert str(caught.value) == said


def test_the_configs_are_the_protocol() -> None:
    nodes = config("experiment=counting_toy")
    trainer, data = nodes["trainer"], nodes["dataset"]
    assert data["train_size"] == 1000 * trainer["batch_size"] * trainer["epochs"] == 1_024_000
    assert data["test_size"] == 200 * trainer["eval_batch_size"]
    for experiment, parameters in (("counting_toy", 128 + 132), ("counting_toy_baseline", 132)):
        task = build(config(f"experiment={experiment}")["task"], "task")
        assert sum(p.numel() for p in task.parameters()) == parameters
        assert torch.equal(task.decoder.mlp[0].weight, torch.eye(11))
        assert 0 < task.decoder.mlp[0].bias.abs().max() < 11**-0.5


def test_it_learns_what_the_baseline_cannot(tmp_path) -> None:
    """Overlapping boxes, no noise, a fiftieth of the steps and a batch of 64."""
    accuracy = {}
    for experiment in ("counting_toy", "counting_toy_baseline"):
        folder = train(
            tmp_path / experiment, f"experiment={experiment}", "dataset.noise=0.0",
            "dataset.side=0.5", "dataset.set_size=10", "trainer.batch_size=64", "trainer.lr=0.05",
            "trainer.epochs=1", "dataset.train_size=3200", "dataset.test_size=1024",
            "trainer.eval_batch_size=1024",
        )  # fmt: skip
        record = read(folder / "seed-0/result.json")
        accuracy[experiment] = record["metrics"]["accuracy"]
        learned = record.get("learned", {})
        assert len(learned) == (8 if experiment == "counting_toy" else 0)
        assert all(f[0] == 0 and f[-1] == 1 and len(f) == 17 for f in learned.values())
    assert accuracy["counting_toy"] > 0.8 > accuracy["counting_toy_baseline"] + 0.1


def test_the_documented_example_is_true() -> None:
    page = ROOT / "docs/counting.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert not failed and tried >= 10
