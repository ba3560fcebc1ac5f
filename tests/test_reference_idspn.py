"""iDSPN equals the plainly written one that `benchmarks/bench.py` times it against."""

from __future__ import annotations

import pytest
import torch
from reference import descent, sets
from smoke_runs import config
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.build import build
from setexp.sets import Batch

pytestmark = pytest.mark.usefixtures("float64")


def assert_alike(experiment: str, sizes: list[str], plain: nn.Module, classes: int) -> None:
    """Loss and gradients of all parameters, for the same weights, sets and noise."""
    nodes = config(f"experiment={experiment}", "hidden=6", "latent=5", *sizes)
    task, dataset = build(nodes["task"], "task"), build(nodes["dataset"], "dataset")
    (batch,) = dataset.batches("train", 4, torch.Generator(), shuffle=False, drop_last=True)
    for parameter in task.parameters():
        nn.init.normal_(parameter)
    plain.load_state_dict(task.state_dict())
    target = (batch.target.x, batch.target.mask)
    torch.manual_seed(1)
    found = task.train()(Batch(*batch)).loss.mean()
    torch.manual_seed(1)
    given = batch.input.x if classes else target
    expected = plain(given, target)
    assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert_close(gradients(task, found), gradients(plain, expected), rtol=1e-8, atol=1e-8)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("steps", [1, 4])
def test_random_multisets(steps: int) -> None:
    def network() -> sets.Encoder:
        return sets.Encoder(sets.Elements([2, 6, 5]), sets.SortPool(5, 3))

    decoder = descent.IDSPN(network(), descent.LearnedRows(3, 2), steps, regulariser=0.1)
    plain = sets.Task(network(), decoder, sets.hungarian, sets.huber)
    sizes = ["dataset.set_size=3", "dataset.element_dim=2", "dataset.train_size=4"]
    assert_alike("multisets_idspn", [*sizes, f"decoder.steps={steps}"], plain, classes=0)


def test_numbering() -> None:
    def network(d: int) -> sets.Encoder:
        return sets.Encoder(sets.Elements([d, 6, 5]), sets.SortPool(5, 7))

    decoder = descent.IDSPN(network(11), descent.NoiseRows(7, 7), 4, clip=0.5, simplex=True)
    plain = descent.Numbering(network(4), decoder)
    sizes = ["dataset.set_size=7", "dataset.train_size=4", "decoder.steps=4"]
    assert_alike("numbering_idspn", [*sizes, "decoder.descent.clip=0.5"], plain, classes=4)
