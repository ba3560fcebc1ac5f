"""FSPool and FSUnpool give the numbers of the authors' own code, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from setexp.decoders.fsunpool import FSUnpoolDecoder
from setexp.encoders.fspool import FSPool
from setexp.ops.pairs import add_pairs
from setexp.ops.position_weights import WeightInit
from setexp.sets import Encoding, SetBatch

Golden = Callable[[str], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("float64")


def fspool(weight: Tensor, **arguments: Any) -> FSPool:
    """FSPool with these weights, (C, number of weights)."""
    defaults = {
        "n_pieces": weight.shape[1] - 1,
        "set_size": None,
        "descending": True,
        "masked": True,
        "relaxed": False,
        "legacy_singleton_mask": False,
    }
    pool = FSPool(features=len(weight), init=WeightInit.ones, **{**defaults, **arguments})
    pool.load_state_dict({"weights.weight": weight})
    return pool


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fspool_descending_masked", {}),
        ("fspool_legacy_singleton", {"legacy_singleton_mask": True}),
        ("fspool_ascending_masked", {"descending": False}),
    ],
)
def test_fspool_of_variable_size(golden: Golden, name: str, arguments: dict[str, bool]) -> None:
    case = golden(name)
    pool = fspool(case["weight"], **arguments)
    x = case["x"].requires_grad_()
    output, order = pool(x, case["mask"])
    assert order is None
    assert_close(output, case["output"], rtol=1e-10, atol=1e-10)
    output.backward(case["cotangent"])
    assert_close(x.grad, case["grad_x"], rtol=1e-10, atol=1e-10)
    assert_close(pool.weights.weight.grad, case["grad_weight"], rtol=1e-10, atol=1e-10)
    if not arguments.get("legacy_singleton_mask"):
        assert not x.grad[case["mask"] == 0].any()


def test_exact_mask_differs_from_the_released_one_only_below_two(golden: Golden) -> None:
    case = golden("fspool_legacy_singleton")
    output, _ = fspool(case["weight"])(case["x"], case["mask"])
    sizes = case["mask"].sum(1)
    assert sizes.tolist() == [1, 5, 0, 2]
    assert_close(output[sizes > 1], case["output"][sizes > 1], rtol=1e-10, atol=1e-10)
    assert_close(output[0], case["x"][0, 0] * case["weight"][:, 0])
    assert not output[2].any()
    assert ((output - case["output"]).abs()[sizes < 2] > 1e-3).all()


def test_fspool_of_fixed_size(golden: Golden) -> None:
    case = golden("fspool_ascending_fixed")
    pool = fspool(
        case["weight"].T.contiguous(), n_pieces=None, set_size=6, descending=False, masked=False
    )
    x = case["x"].requires_grad_()
    output, _ = pool(x, torch.zeros(x.shape[:2]))
    assert_close(output, case["output"], rtol=1e-10, atol=1e-10)
    output.backward(case["cotangent"])
    assert_close(x.grad, case["grad_x"], rtol=1e-10, atol=1e-10)
    assert_close(pool.weights.weight.grad, case["grad_weight"].T, rtol=1e-10, atol=1e-10)


def test_pairs_come_first_element_slow(golden: Golden) -> None:
    case = golden("fspool_ascending_fixed")
    x = case["pair_elements"]
    nothing = torch.zeros_like(x)
    rows = add_pairs(torch.cat([x, nothing], -1), torch.cat([nothing, x], -1))
    assert torch.equal(rows, case["pair_rows"])


def test_relaxed_fspool(golden: Golden) -> None:
    case = golden("fspool_relaxed_unpool")
    pool = fspool(case["pool_weight"], relaxed=True)
    x = case["x"].requires_grad_()
    output, order = pool(x, case["mask"])
    assert order is not None
    assert_close(output, case["output"], rtol=1e-9, atol=1e-9)
    real = case["mask"][:, None, :, None] * case["mask"][:, None, None, :]
    assert_close(order.permutation * real, case["permutation"] * real, rtol=1e-9, atol=1e-9)
    output.backward(case["cotangent_pool"])
    assert_close(x.grad, case["grad_pool_x"], rtol=1e-9, atol=1e-9)
    assert_close(pool.weights.weight.grad, case["grad_pool_weight"], rtol=1e-9, atol=1e-9)


def test_fsunpool_with_the_stored_order(golden: Golden) -> None:
    case = golden("fspool_relaxed_unpool")
    decoder = FSUnpoolDecoder(
        latent=3, hidden=[3], element=[], n_pieces=20, init=WeightInit.ones, masked=True
    )
    decoder.load_state_dict(
        {
            "vector.0.weight": torch.eye(3),
            "vector.0.bias": torch.zeros(3),
            "weights.weight": case["unpool_weight"],
        }
    )
    x, code = case["x"].requires_grad_(), case["code"].requires_grad_()
    _, order = fspool(case["pool_weight"], relaxed=True)(x, case["mask"])
    decoded = decoder(Encoding(code, order, SetBatch(case["x"], case["mask"])))
    assert torch.equal(decoded.mask, case["mask"].unsqueeze(0))
    assert_close(decoded.x[0], case["unpooled"], rtol=1e-9, atol=1e-9)
    decoded.x[0].backward(case["cotangent_unpool"])
    assert_close(code.grad, case["grad_unpool_code"], rtol=1e-9, atol=1e-9)
    assert_close(x.grad, case["grad_unpool_x"], rtol=1e-9, atol=1e-9)
    assert_close(decoder.weights.weight.grad, case["grad_unpool_weight"], rtol=1e-9, atol=1e-9)
