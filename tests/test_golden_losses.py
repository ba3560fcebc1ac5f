"""The set losses give the numbers of the authors' own code, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.losses.base import Steps
from setexp.losses.chamfer import ChamferLoss
from setexp.losses.direct import DirectLoss
from setexp.losses.hungarian import HungarianLoss
from setexp.losses.numbering import NumberingLoss
from setexp.metrics.numbering import NumberingAccuracy, Per
from setexp.ops.assignment import assignment
from setexp.ops.costs import Cost, pair_cost
from setexp.sets import SetBatch

Golden = Callable[[str], dict[str, Tensor]]
LOSSES = {"chamfer": ChamferLoss, "direct": DirectLoss, "hungarian": HungarianLoss}


def make(name: str, cost: Cost, *, steps: Steps = Steps.last, mask: bool = False) -> nn.Module:
    extra: dict[str, Any] = {"set_size": 10, "max_size": 10} if name == "hungarian" else {}
    return LOSSES[name](cost=cost, steps=steps, mask_channel=mask, **extra)


def as_sets(rows: Tensor, masked: bool) -> SetBatch:
    """Rows (..., N, D) as a `SetBatch`; where masked, their last channel is the mask."""
    if masked:
        return SetBatch(rows[..., :-1], rows[..., -1])
    return SetBatch(rows, rows.new_ones(rows.shape[:-1]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["chamfer", "hungarian", "direct"])
def test_squared_losses_of_the_autoencoder(golden: Golden, name: str, masked: bool) -> None:
    case, kind = golden("loss_squared_autoencoder"), "masked" if masked else "plain"
    x = case[f"{kind}_prediction"].requires_grad_()
    prediction, target = as_sets(x.unsqueeze(0), masked), as_sets(case[f"{kind}_target"], masked)
    loss = make(name, Cost.squared, mask=masked)(prediction, target).mean()
    assert_close(loss, case[f"{kind}_{name}"], rtol=1e-10, atol=1e-10)
    loss.backward()
    assert_close(x.grad, case[f"{kind}_{name}_grad"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "steps", "key"),
    [
        ("chamfer", Steps.all, "chamfer"),
        ("hungarian", Steps.last, "hungarian_last"),
        ("hungarian", Steps.all, "hungarian_all"),
    ],
)
def test_huber_losses_of_dspn(golden: Golden, name: str, steps: Steps, key: str) -> None:
    case = golden("loss_huber_dspn")
    x = case["steps"].requires_grad_()
    loss = make(name, Cost.huber, steps=steps, mask=True)(
        as_sets(x, True), as_sets(case["target"], True)
    ).mean()
    assert_close(loss, case[key], rtol=1e-10, atol=1e-10)
    loss.backward()
    assert_close(x.grad, case[f"grad_{key}"], rtol=1e-10, atol=1e-10)


def test_chamfer_of_each_inner_step(golden: Golden) -> None:
    case = golden("loss_huber_dspn")
    loss, target = make("chamfer", Cost.huber, mask=True), as_sets(case["target"], True)
    each = [loss(as_sets(case["steps"][: t + 1], True), target).mean() for t in range(4)]
    assert_close(torch.stack(each), case["chamfer_per_step"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "cost"), [("hungarian", Cost.huber), ("chamfer", Cost.squared)])
def test_losses_of_idspn(golden: Golden, name: str, cost: Cost, masked: bool) -> None:
    case, kind = golden("loss_idspn"), "masked" if masked else "plain"
    x = case[f"{kind}_prediction"].requires_grad_()
    prediction, target = as_sets(x.unsqueeze(0), masked), as_sets(case[f"{kind}_target"], masked)
    loss = make(name, cost, mask=masked)(prediction, target)
    assert_close(loss, case[f"{kind}_{name}"], rtol=1e-10, atol=1e-10)
    loss.backward(case[f"{kind}_cotangent"])
    assert_close(x.grad, case[f"{kind}_{name}_grad"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("key", "cost"), [("l2", Cost.l2), ("ce", Cost.cross_entropy)])
def test_matching_of_the_numbering_task(golden: Golden, key: str, cost: Cost) -> None:
    case = golden("loss_numbering")
    differ = 1 - case["classes"] @ case["classes"].mT
    costs = pair_cost(case[f"{key}_prediction"], case["target"], cost) + 1000 * differ
    # the inverse of "target of each prediction" is "prediction of each target"
    assert torch.equal(assignment(costs).argsort(-1), case[f"{key}_matched_prediction"])


@pytest.mark.parametrize(("key", "cost"), [("l2", Cost.l2), ("ce", Cost.cross_entropy)])
def test_loss_of_the_numbering_task(golden: Golden, key: str, cost: Cost) -> None:
    case = golden("loss_numbering")
    x = case[f"{key}_prediction"].requires_grad_()
    prediction = as_sets(x.unsqueeze(0), False)
    target = as_sets(torch.cat([case["classes"], case["target"]], dim=-1), False)
    loss = NumberingLoss(cost=cost)(prediction, target)
    assert_close(loss, case[f"{key}_loss"], rtol=1e-8, atol=1e-8)
    loss.backward(case["cotangent"])
    assert_close(x.grad, case[f"{key}_grad"], rtol=1e-8, atol=1e-8)
    for per in Per:
        accuracy = NumberingAccuracy(cost=cost, per=per)(prediction, target)
        assert_close(accuracy, case[f"{key}_{per.value}_accuracy"], rtol=1e-12, atol=1e-12)
