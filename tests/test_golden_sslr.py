"""Set refiner, superposition and matching give the numbers and gradients of the authors' code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from setexp.decoders.dspn import DSPN, Gradient, Objective, RegulariserReduction
from setexp.decoders.initial import EncodedSet
from setexp.decoders.set_distance import SetDistance
from setexp.encoders.fspool import FSPool
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.ops.descent import Descent, Projection, Reduction
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.ops.superposition import superpose
from setexp.sets import Encoding, SetBatch

Golden = Callable[[str], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("float64")

# Our parameters' names and the files'.
NAMES = {
    "elements": {
        "elements.mlp.0.": "layer1_",
        "elements.mlp.2.": "layer2_",
        "elements.mlp.4.": "layer3_",
        "pooling.weights.": "pool_",
    },
    "relation": {
        "elements.pair.": "layer1_",
        "elements.rest.1.": "layer2_",
        "pooling.weights.": "pool_",
    },
}


def refiner(case: str, arrays: dict[str, Tensor], *, learned: bool) -> DSPN:
    latent, features = arrays["target_encoding"].shape[1], arrays["initial_set"].shape[2]
    layers = [k for k in sorted(arrays) if k.startswith("layer") and k.endswith("_bias")]
    widths = [features, *(len(arrays[k]) for k in layers)]
    encoder = SetEncoder(
        elements=(PairMLP if case == "relation" else ElementMLP)(
            widths=widths, init=LinearInit.pytorch
        ),
        pooling=FSPool(
            features=latent, n_pieces=20, set_size=None, init=WeightInit.normal, descending=True,
            masked=False, relaxed=False, legacy_singleton_mask=False,
        ),
        head=[], mask_channel=False, divide_by_rows=True,
    )  # fmt: skip
    encoder.load_state_dict({k: arrays[theirs(case, k)] for k in encoder.state_dict()})
    return DSPN(
        set_encoder=encoder,
        initial=EncodedSet(learned=learned),
        objective=Objective.squared,
        regulariser=0.0,
        regulariser_reduction=RegulariserReduction.mean,
        descent=Descent(
            step_size=arrays["step_size"].item(), reduction=Reduction.per_sample,
            reference_batch_size=1, momentum=arrays["momentum"].item(), nesterov=False, clip=None,
            projection=Projection.none, project_initial=False,
        ),
        gradient=Gradient.unrolled,
        steps=len(arrays["inner_losses"]),
        mask_channel=False,
        condition=False,
    )  # fmt: skip


def theirs(case: str, name: str) -> str:
    prefix = next(p for p in NAMES[case] if name.startswith(p))
    return NAMES[case][prefix] + name.removeprefix(prefix)


def encoding(arrays: dict[str, Tensor]) -> tuple[Encoding, Tensor, Tensor]:
    z, start = (arrays[k].clone().requires_grad_() for k in ("target_encoding", "initial_set"))
    return Encoding(z, elements=SetBatch(start, torch.ones(start.shape[:2]))), z, start


@pytest.mark.parametrize("case", ["elements", "relation"])
def test_refiner(case: str, golden: Golden) -> None:
    arrays = golden(f"sslr_refiner_{case}")
    model = refiner(case, arrays, learned=False)
    assert model.set_encoder is not None
    given, z, start = encoding(arrays)
    sets = model(given).x
    assert_close(sets, arrays["sets"], rtol=1e-10, atol=1e-10)
    encoded = [model.set_encoder(SetBatch(s, torch.ones(s.shape[:2]))).z for s in sets[:-1]]
    losses = torch.stack([Objective.squared(e, z).sum() for e in encoded])
    assert_close(losses, arrays["inner_losses"], rtol=1e-10, atol=1e-10)

    (sets[-1] * arrays["cotangent"]).sum().backward()
    for name, parameter in model.set_encoder.named_parameters():
        expected = arrays[f"grad_{theirs(case, name)}"]
        assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: n + m)
    assert_close(z.grad, arrays["grad_target_encoding"], rtol=1e-9, atol=1e-9)
    assert start.grad is None  # the released code cuts it


def test_a_learned_guess_changes_its_gradient_alone(golden: Golden) -> None:
    arrays = golden("sslr_refiner_elements")
    given, z, start = encoding(arrays)
    sets = refiner("elements", arrays, learned=True)(given).x
    assert_close(sets, arrays["sets"], rtol=1e-10, atol=1e-10)
    (sets[-1] * arrays["cotangent"]).sum().backward()
    assert_close(z.grad, arrays["grad_target_encoding"], rtol=1e-9, atol=1e-9)
    assert start.grad is not None and start.grad.abs().sum() > 0


def test_superposition(golden: Golden) -> None:
    arrays = golden("sslr_superposition")
    raw = arrays["raw"].clone().requires_grad_()
    shown = superpose(raw)
    assert_close(shown.parts, arrays["element_images"], rtol=1e-12, atol=1e-12)
    assert_close(shown.picture, arrays["image"], rtol=1e-12, atol=1e-12)
    (shown.picture * arrays["cotangent"]).sum().backward()
    assert_close(raw.grad, arrays["grad_raw"], rtol=1e-12, atol=1e-12)


def test_matching(golden: Golden) -> None:
    arrays = golden("loss_sslr_matching")
    weight = arrays["attribute_weight"]
    model = SetDistance(element_dim=weight.shape[1], embed_dim=weight.shape[0])
    state = model.state_dict()
    model.load_state_dict({k: arrays[k.replace(".", "_")] for k in state})
    first, second = (arrays[k].clone().requires_grad_() for k in ("first", "second"))
    found = model(first, second)
    assert_close(found.location, arrays["location_distance"], rtol=1e-10, atol=1e-10)
    assert_close(found.attribute, arrays["attribute_distance"], rtol=1e-10, atol=1e-10)

    scalar = (found.location * arrays["cotangent_location"]).sum()
    scalar = scalar + (found.attribute * arrays["cotangent_attribute"]).sum()
    scalar.backward()
    given = {"first": first, "second": second}
    given |= {k.replace(".", "_"): p for k, p in model.named_parameters()}
    for name, tensor in given.items():
        expected = arrays[f"grad_{name}"]
        assert_close(tensor.grad, expected, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: n + m)
