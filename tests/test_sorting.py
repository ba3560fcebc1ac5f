"""Sets of numbers, the task of putting them in order, and training in slices of a batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import complaint, curve, read, train, weights
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.datasets.numbers import Numbers
from setexp.encoders.permutation import AsGiven
from setexp.errors import ConfigError
from setexp.losses.base import Steps
from setexp.losses.direct import DirectLoss
from setexp.ops.costs import Cost
from setexp.sets import Batch, SetBatch
from setexp.tasks.permute import Permute
from setexp.training import checkpoint

SORTING = "experiment=sorting"


def make(**changes: Any) -> Numbers:
    arguments = {
        "set_size": 6, "element_dim": 1, "train_size": 20, "test_size": 10,
        "intervals": {"far": [1000, 1001], "wide": [-5, 5]},
    }  # fmt: skip
    return Numbers(**{**arguments, **changes})


def one_pass(dataset: Numbers, split: str) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return list(dataset.batches(split, 8, generator, shuffle=True, drop_last=False))


@pytest.mark.parametrize(
    ("split", "low", "high", "dtype", "count"),
    [("train", 0, 1, torch.float32, 20), ("far", 1000, 1001, torch.float64, 10),
     ("wide", -5, 5, torch.float64, 10)],
)  # fmt: skip
def test_numbers(split: str, low: float, high: float, dtype: torch.dtype, count: int) -> None:
    batches = one_pass(make(), split)
    assert [len(b.input.x) for b in batches] == [min(8, count - at) for at in range(0, count, 8)]
    for given, target, aux in batches:
        assert given.x.dtype == target.x.dtype == dtype
        assert ((given.x >= low) & (given.x < high)).all() and (given.mask == 1).all()
        assert (target.x.diff(dim=1) >= 0).all()
        assert torch.equal(given.x.squeeze(-1).gather(1, aux["order"]), target.x.squeeze(-1))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.set_size=1", "dataset.set_size=1: sort at least 2"),
        ("dataset.element_dim=2", "dataset.element_dim=2: a number has 1"),
        ("dataset.intervals.i0_1=[2,1]", r"dataset.intervals.i0_1=\[2, 1\]: give \[low, high\]"),
        ("trainer.slice=0", "trainer.slice=0: at least 1"),
        ("encoder.steps=-1", "encoder.steps=-1: at least 0"),
    ],
)
def test_what_is_refused(override: str, message: str, tmp_path: Path) -> None:
    assert re.search(message, complaint(SORTING, override, f"paths.outputs={tmp_path}"))
    assert not list(tmp_path.iterdir())


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(ConfigError, match="split val: choose train, far, wide"):
        make().sizes("val")


class Fixed(nn.Module):
    """An assignment given beforehand."""

    def __init__(self, assignment: Tensor) -> None:
        super().__init__()
        self.assignment = assignment

    def forward(self, s: SetBatch, steps: int | None = None) -> Tensor:
        return self.assignment


def test_the_hard_order_is_judged_by_indices_and_by_values() -> None:
    # the second set holds two equal numbers, the third is put in a wrong order
    x = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 5.0], [1.0, 2.0, 3.0]]).unsqueeze(-1)
    order = torch.tensor([[1, 2, 0], [1, 0, 2], [0, 1, 2]])
    target = SetBatch(x.gather(1, order.unsqueeze(-1)), torch.ones(3, 3))
    chosen = torch.tensor([[1, 2, 0], [1, 2, 0], [1, 0, 2]])
    soft = 0.4 * torch.nn.functional.one_hot(chosen, 3).mT + 0.2
    loss = DirectLoss(cost=Cost.squared, steps=Steps.last, mask_channel=False)
    task = Permute(encoder=Fixed(soft), loss=loss)
    batch = Batch(SetBatch(x, torch.ones(3, 3)), target, {"order": order})
    assert task.train()(batch).stats == {}
    outcome = task.eval()(batch)
    assert outcome.stats["correct"].tolist() == [1.0, 0.0, 0.0]
    assert_close(outcome.stats["mse"], torch.tensor([0.0, 0.0, 2 / 3]))
    softly = soft.mT @ x
    assert_close(outcome.loss, (softly - target.x).square().mean((1, 2)))
    assert torch.equal(AsGiven()(batch.input).mT @ x, x)


def test_slices_of_a_batch_add_up(tmp_path: Path) -> None:
    overrides = [SORTING, "trainer.batch_size=8", "trainer.steps=1", "trainer.log_every=1"]
    whole = train(tmp_path / "whole", *overrides) / "seed-0"
    slices = train(tmp_path / "slices", *overrides, "trainer.slice=3") / "seed-0"
    gradients, added = (checkpoint.load(f / "checkpoint.pt")["optimizer"] for f in (whole, slices))
    for name, state in gradients.items():  # Adam's mean of one gradient
        assert_close(added[name]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-7)
    assert_close(curve(slices)[0]["train/loss"], curve(whole)[0]["train/loss"])
    assert read(slices / "result.json")["axes"]["trainer.slice"] == 3


def test_sorting_is_learned_and_measured_in_double_precision(tmp_path: Path) -> None:
    overrides = [SORTING, "scale=small", "dataset.train_size=4096", "trainer.batch_size=64"]
    folder = train(tmp_path, *overrides, "trainer.eval_batch_size=64", "seeds=[1]") / "seed-1"
    metrics = read(folder / "result.json")["metrics"]
    assert metrics["correct_0_1"] > 0.95 and metrics["correct_1_2"] > 0.95
    assert all(v.dtype == torch.float32 for v in weights(folder).values())
