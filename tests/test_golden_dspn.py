"""DSPN gives the sets, masks and gradients of the authors' own code, through all inner steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from setexp.decoders.dspn import DSPN, Gradient, Objective, RegulariserReduction
from setexp.decoders.initial import LearnedSet, SetInit
from setexp.encoders.fspool import FSPool
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.ops.descent import Descent, Projection, Reduction
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.sets import Encoding, SetBatch

Golden = Callable[[str], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("float64")

# Names of the modules' parameters and of the arrays.
DSPN_NAMES = {
    "initial.x": "starting_set",
    "initial.mask": "starting_mask",
    "set_encoder.pooling.weights.weight": "pool_weight",
}
MNIST_NAMES = DSPN_NAMES | {
    f"set_encoder.elements.mlp.{2 * i}.{kind}": f"layer{i + 1}_{kind}"
    for i in range(3)
    for kind in ("weight", "bias")
}
CLEVR_NAMES = DSPN_NAMES | {
    f"set_encoder.elements.{name}.{kind}": f"{layer}_{kind}"
    for name, layer in (("pair", "layer1"), ("rest.1", "layer2"))
    for kind in ("weight", "bias")
}
CASES = {
    "dspn_mnist_encoder": (ElementMLP, [3, 12, 12, 10], MNIST_NAMES),
    "dspn_clevr_encoder": (PairMLP, [5, 12, 10], CLEVR_NAMES),
}


class Case(NamedTuple):
    arrays: dict[str, Tensor]
    dspn: DSPN
    names: dict[str, str]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, golden: Golden) -> Case:
    arrays = golden(request.param)
    kind, widths, names = CASES[request.param]
    pool = FSPool(
        features=10, n_pieces=20, set_size=None, init=WeightInit.normal, descending=True,
        masked=False, relaxed=False, legacy_singleton_mask=False,
    )  # fmt: skip
    encoder = SetEncoder(
        elements=kind(widths=widths, init=LinearInit.xavier),
        pooling=pool,
        head=[],
        mask_channel=True,
        divide_by_rows=True,
    )
    initial = LearnedSet(
        set_size=6, element_dim=arrays["starting_set"].shape[1], init=SetInit.uniform, std=0.0,
        mask=0.5,
    )  # fmt: skip
    descent = Descent(
        step_size=arrays["step_size"].item(), reduction=Reduction.batch_mean,
        reference_batch_size=3, momentum=0.0, nesterov=False, clip=None,
        projection=Projection.mask, project_initial=True,
    )  # fmt: skip
    dspn = DSPN(
        set_encoder=encoder, initial=initial, objective=Objective.huber, regulariser=0.0,
        regulariser_reduction=RegulariserReduction.mean, descent=descent,
        gradient=Gradient.unrolled, steps=4, mask_channel=True, condition=False,
    )  # fmt: skip
    arrays["starting_mask"] = arrays["starting_mask"].unsqueeze(-1)
    dspn.load_state_dict({ours: arrays[theirs] for ours, theirs in names.items()})
    return Case(arrays, dspn, names)


@pytest.mark.parametrize("reduction", Reduction)
def test_trajectory(case: Case, reduction: Reduction) -> None:
    arrays, dspn, _ = case
    dspn.descent.reduction = reduction  # alike, because the reference batch is this one
    decoded = dspn(Encoding(arrays["target_encoding"]))
    assert_close(decoded.x, arrays["sets"], rtol=1e-10, atol=1e-10)
    assert_close(decoded.mask, arrays["masks"], rtol=1e-10, atol=1e-10)


def test_inner_objective(case: Case) -> None:
    arrays, dspn, _ = case
    sets = zip(arrays["sets"], arrays["masks"], strict=True)
    z = [dspn.set_encoder(SetBatch(x, mask)).z for x, mask in sets]
    losses = [F.smooth_l1_loss(each, arrays["target_encoding"]) for each in z[:-1]]
    assert_close(torch.stack(losses), arrays["inner_losses"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", ["last", "mean"])
def test_gradients_through_all_steps(case: Case, steps: str) -> None:
    arrays, dspn, names = case
    z = arrays["target_encoding"].requires_grad_()
    decoded = dspn(Encoding(z))
    each = (decoded.x * arrays["cotangent_set"]).sum((1, 2, 3))
    each = each + (decoded.mask * arrays["cotangent_mask"]).sum((1, 2))
    (each[-1] if steps == "last" else each.mean()).backward()
    assert_close(z.grad, arrays[f"grad_{steps}_target_encoding"], rtol=1e-9, atol=1e-9)
    parameters = dict(dspn.named_parameters())
    assert parameters.keys() == names.keys()
    for ours, theirs in names.items():
        gradient = parameters[ours].grad
        expected = arrays[f"grad_{steps}_{theirs}"].view(gradient.shape)
        assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_a_sample_decodes_alone_as_in_its_batch(case: Case) -> None:
    arrays, dspn, _ = case
    dspn.descent.reduction = Reduction.per_sample
    alone = dspn(Encoding(arrays["target_encoding"][1:2]))
    assert_close(alone.x, arrays["sets"][:, 1:2], rtol=1e-10, atol=1e-10)
    assert_close(alone.mask, arrays["masks"][:, 1:2], rtol=1e-10, atol=1e-10)
