"""iDSPN and the unrolled DSPN of its paper give the sets and gradients of the authors' own code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_idspn import Given
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.decoders.dspn import DSPN, Gradient, Objective, RegulariserReduction
from setexp.encoders.fspool import FSPool
from setexp.encoders.pooling import MeanPool, SumPool
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.ops.descent import Descent, Projection, Reduction
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.ops.simplex import project_simplex
from setexp.sets import Encoding, SetBatch

Golden = Callable[[str], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("float64")

CASES = [
    "idspn_mse_rnfs",
    *(
        f"idspn_{objective}_{pooling}"
        for objective in ("mse", "mse_regularized", "mse_cat_input")
        for pooling in ("fs", "sum", "mean")
    ),
]
# Names of the arrays, by the encoder's kind and the end of our parameter's name.
NAMES = {
    "elements.mlp.0": "layer1",
    "elements.mlp.2": "layer2",
    "elements.pair": "layer1",
    "elements.rest.1": "layer2",
    "pooling.weights": "pool",
}


def set_encoder(case: str, arrays: dict[str, Tensor]) -> SetEncoder:
    latent, hidden = arrays["layer2_weight"].shape
    width = arrays["layer1_weight"].shape[1]
    pairs = case.endswith("rnfs")
    pooling: nn.Module
    if case.endswith("fs"):
        pooling = FSPool(
            features=latent, n_pieces=None, set_size=len(arrays["pool_weight"]),
            init=WeightInit.kaiming, descending=False, masked=False, relaxed=False,
            legacy_singleton_mask=False,
        )  # fmt: skip
    else:
        pooling = (
            SumPool(masked=False)
            if case.endswith("sum")
            else MeanPool(masked=False, by_set_size=False)
        )
    widths = [width // 2 if pairs else width, hidden, latent]
    encoder = SetEncoder(
        elements=(PairMLP if pairs else ElementMLP)(widths=widths, init=LinearInit.pytorch),
        pooling=pooling, head=[], mask_channel=False, divide_by_rows=False,
    )  # fmt: skip
    encoder.load_state_dict({k: ours(arrays, "", k) for k in encoder.state_dict()})
    return encoder


def ours(arrays: dict[str, Tensor], prefix: str, name: str) -> Tensor:
    """A file's array as our parameter `name` has it; configurations stay in front."""
    module, _, kind = name.rpartition(".")
    array = arrays[f"{prefix}{NAMES[module]}_{kind}"]
    return array.mT if module == "pooling.weights" else array


def decode(
    case: str, arrays: dict[str, Tensor], gradient: Gradient, momentum: float, clip: float | None,
    simplex: bool,
) -> tuple[DSPN, Tensor, Tensor]:  # fmt: skip
    """The decoder, the latent vectors and all sets (T + 1, B, N, D)."""
    model = DSPN(
        set_encoder=set_encoder(case, arrays),
        initial=Given(arrays["initial_set"]),
        objective=Objective.half_squared,
        regulariser=0.1 if "regularized" in case else 0.0,
        regulariser_reduction=RegulariserReduction.mean,
        descent=Descent(
            step_size=arrays["step_size"].item(), reduction=Reduction.per_sample,
            reference_batch_size=1, momentum=momentum, nesterov=momentum > 0, clip=clip,
            projection=Projection.simplex if simplex else Projection.none,
            project_initial=gradient is Gradient.implicit,
        ),
        gradient=gradient, steps=int(arrays["steps"]), mask_channel=False,
        condition="cat_input" in case,
    )  # fmt: skip
    z = arrays["target_encoding"].clone().requires_grad_()
    known = arrays.get("extra_input")
    elements = None if known is None else SetBatch(known, known.new_ones(known.shape[:-1]))
    return model, z, model.eval()(Encoding(z, elements=elements)).x


def gradients(model: DSPN, z: Tensor, rows: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
    assert model.set_encoder is not None
    named = dict(model.set_encoder.named_parameters())
    named |= {"target_encoding": z, "initial_set": model.initial.rows}
    scalar = (rows * cotangent).sum()
    found = torch.autograd.grad(scalar, list(named.values()), allow_unused=True)
    return {
        k: torch.zeros_like(p) if g is None else g
        for (k, p), g in zip(named.items(), found, strict=True)
    }


def check(arrays: dict[str, Tensor], kind: str, index: int, found: dict[str, Tensor]) -> None:
    for name, gradient in found.items():
        key = f"{kind}_grad_{name}"
        if name in ("target_encoding", "initial_set"):
            expected = arrays[key][index] if key in arrays else torch.zeros_like(gradient)
        else:
            expected = ours(arrays, f"{kind}_grad_", name)[index]
        assert_close(gradient, expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_implicit(case: str, golden: Golden) -> None:
    arrays = golden(case)
    for index in range(8):
        clip = arrays["clip_norm"][index].item()
        model, z, rows = decode(
            case, arrays, Gradient.implicit, arrays["momentum"][index].item(),
            None if clip == float("inf") else clip, bool(arrays["simplex"][index]),
        )  # fmt: skip
        assert_close(rows[-1], arrays["implicit_output"][index], rtol=1e-10, atol=1e-10)
        before = arrays["implicit_before_last"][index]
        assert_close(rows[-2], before, rtol=1e-10, atol=1e-10)
        check(arrays, "implicit", index, gradients(model, z, rows[-1], arrays["cotangent"]))


@pytest.mark.parametrize("case", CASES)
def test_unrolled(case: str, golden: Golden) -> None:
    arrays = golden(case)
    for index in range(4):
        model, z, rows = decode(
            case, arrays, Gradient.unrolled, arrays["unrolled_momentum"][index].item(), None,
            bool(arrays["unrolled_simplex"][index]),
        )  # fmt: skip
        assert_close(rows[-1], arrays["unrolled_output"][index], rtol=1e-10, atol=1e-10)
        check(arrays, "unrolled", index, gradients(model, z, rows[-1], arrays["cotangent"]))


def test_simplex_projection(golden: Golden) -> None:
    arrays = golden("simplex_projection")
    x = arrays["x"].requires_grad_()
    projected = project_simplex(x)
    assert_close(projected, arrays["output"], rtol=1e-12, atol=1e-12)
    (projected * arrays["cotangent"]).sum().backward()
    assert_close(x.grad, arrays["grad_x"], rtol=1e-12, atol=1e-12)
