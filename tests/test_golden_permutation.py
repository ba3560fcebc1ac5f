"""Permutation-optimisation gives the numbers of the authors' own code, gradients included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.encoders.permutation import LinearAssignment, OrderingCost, PermutationOptimisation
from setexp.ops.assignment import assignment
from setexp.ops.ordering import total_cost_gradient
from setexp.ops.sinkhorn import sinkhorn
from setexp.ops.tiles import assemble, cut
from setexp.sets import SetBatch

Golden = Callable[[str], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("float64")
NEAR = {"rtol": 1e-10, "atol": 1e-10}


def model(case: dict[str, Tensor], linear: bool, shape: tuple[int, ...]) -> PermutationOptimisation:
    """The authors' weights in a model of ours."""
    weight = case["layer1_weight"]
    features, hidden = weight.shape[1] // 2, len(weight)
    cost = OrderingCost(features=features, hidden=hidden, axes=len(shape))
    state = {"pair.weight": weight, "pair.bias": case["layer1_bias"]}
    cost.load_state_dict(state | {"score.weight": case["layer2_weight"]})
    initial = None
    if linear:
        positions = len(case["linear_weight"])
        initial = LinearAssignment(features=features, positions=positions, clip=None)
        initial.load_state_dict({"linear.weight": case["linear_weight"]})
    built = PermutationOptimisation(
        elements=nn.Identity(), cost=cost, initial=initial, shape=shape,
        steps=int(case["steps"]), rounds=4, masked=False,
    )  # fmt: skip
    built.load_state_dict({"step_size": case["step_size"]}, strict=False)
    return built


def check(
    case: dict[str, Tensor], linear: bool, shape: tuple[int, ...], raw: Tensor, prefix: str
) -> None:
    built = model(case, linear, shape)
    features = case["features"].clone().requires_grad_()
    found = built(SetBatch(features, torch.ones(features.shape[:2])))
    assert_close(found, case[f"{prefix}assignment"], **NEAR)
    output = found.mT @ raw.flatten(2)
    assert_close(output, case[f"{prefix}output"].flatten(2), **NEAR)
    assert torch.equal(assignment(-found.detach().mT), case[f"{prefix}hard_assignment"].long())
    scalar = (found * case["cotangent_assignment"]).sum()
    (scalar + (output * case["cotangent_output"].flatten(2)).sum()).backward()
    assert built.cost is not None
    grads = {
        "features": features.grad,
        "step_size": built.step_size.grad,
        "layer1_weight": built.cost.pair.weight.grad,
        "layer1_bias": built.cost.pair.bias.grad,
        "layer2_weight": built.cost.score.weight.grad,
    }
    if built.initial is not None:
        grads["linear_weight"] = built.initial.linear.weight.grad
    for name, grad in grads.items():
        assert_close(grad, case[f"{prefix}grad_{name}"], **NEAR, msg=name)


@pytest.mark.parametrize("start", ["uniform", "linear"])
def test_sequence(golden: Golden, start: str) -> None:
    case = golden(f"permutation_sequence_{start}")
    check(case, start == "linear", (5,), case["raw_elements"], "")
    cost = model(case, start == "linear", (5,)).cost
    assert cost is not None
    assert_close(cost(case["features"]).squeeze(1), case["cost"], **NEAR)


@pytest.mark.parametrize("start", ["uniform", "linear"])
def test_grid(golden: Golden, start: str) -> None:
    case = golden("permutation_grid")
    side = int(case["grid_side"])
    check(case, start == "linear", (side, side), case["tiles"], f"{start}_")
    image = assemble(case[f"{start}_output"].flatten(2), side, (1, *case["tiles"].shape[2:]))
    assert_close(image.squeeze(1), case[f"{start}_image"], **NEAR)


def test_no_steps_are_linear_assignment(golden: Golden) -> None:
    case = golden("permutation_sequence_linear")
    built = model(case, True, (5,))
    features = case["features"]
    found = built(SetBatch(features, torch.ones(features.shape[:2])), steps=0)
    assert_close(found, case["linassign_assignment"], **NEAR)


def test_sinkhorn(golden: Golden) -> None:
    case = golden("sinkhorn")
    x = case["x"].clone().requires_grad_()
    output = sinkhorn(x, 4)
    assert_close(output, case["output"], rtol=1e-12, atol=1e-12)
    output.backward(case["cotangent"])
    assert_close(x.grad, case["grad_x"], rtol=1e-12, atol=1e-12)
    gradient = total_cost_gradient(case["cost"].unsqueeze(1), case["output"], (5,))
    assert_close(gradient, case["ordering_gradient"], rtol=1e-12, atol=1e-12)


def test_tiles(golden: Golden) -> None:
    case = golden("mosaic_tiles")
    tiles = cut(case["image"].expand(1, 1, -1, -1), 3)
    assert torch.equal(tiles.unflatten(-1, (4, 4))[0], case["tiles"])
    order = case["target_index"].long()
    assert torch.equal(case["shuffled_tiles"][order], case["tiles"])
    assert torch.equal(assemble(tiles, 3, (1, 4, 4))[0, 0], case["image"])
