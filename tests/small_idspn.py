"""Small DSPN and iDSPN models for the tests: any encoder, initial set, gradient and descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from setexp.decoders.dspn import DSPN, Gradient, Objective, RegulariserReduction
from setexp.encoders.fspool import FSPool
from setexp.encoders.set_encoder import ElementMLP, PairMLP, SetEncoder
from setexp.ops.descent import Descent, Projection, Reduction
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.sets import Encoding, SetBatch


class Given(nn.Module):
    """An initial set that is given: rows (N, F) for all samples, or (B, N, F)."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.clone())

    def forward(self, encoding: Encoding) -> Tensor:
        return self.rows.expand(len(encoding.z), *self.rows.shape[-2:])


def whole(x: Tensor) -> SetBatch:
    """A set of which all elements are present."""
    return SetBatch(x, x.new_ones(x.shape[:-1]))


def fspool(features: int, positions: int, *, relaxed: bool = False) -> FSPool:
    """FSPool with one random weight per position, as iDSPN's; the relaxed one has as many."""
    return FSPool(
        features=features, n_pieces=positions - 1 if relaxed else None, set_size=positions,
        init=WeightInit.normal, descending=relaxed, masked=False, relaxed=relaxed,
        legacy_singleton_mask=False,
    )  # fmt: skip


def set_encoder(
    widths: Sequence[int], pooling: nn.Module, *, head: Sequence[int] = (), pairs: bool = False
) -> SetEncoder:
    """A set encoder without biases, until they are given values."""
    elements = PairMLP if pairs else ElementMLP
    return SetEncoder(
        elements=elements(widths=widths, init=LinearInit.xavier), pooling=pooling, head=head,
        mask_channel=False, divide_by_rows=False,
    )  # fmt: skip


def draw_biases(model: nn.Module) -> None:
    """Normal biases: elements that differ then have features that differ, and none is zero."""
    for bias in (p for name, p in model.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias)


def idspn(
    encoder: nn.Module | None,
    initial: nn.Module | Tensor,
    *,
    gradient: Gradient = Gradient.implicit,
    steps: int = 5,
    objective: Objective = Objective.half_squared,
    regulariser: float = 0.0,
    regulariser_reduction: RegulariserReduction = RegulariserReduction.mean,
    mask_channel: bool = False,
    condition: bool = False,
    **changes: Any,
) -> DSPN:
    """A decoder in training mode; `changes` are of its descent, plain steps of size 1."""
    descent: dict[str, Any] = {
        "step_size": 1.0,
        "reduction": Reduction.per_sample,
        "reference_batch_size": 1,
        "momentum": 0.0,
        "nesterov": False,
        "clip": None,
        "projection": Projection.none,
        "project_initial": True,
    }
    assert changes.keys() <= descent.keys()
    return DSPN(
        set_encoder=encoder,
        initial=Given(initial) if isinstance(initial, Tensor) else initial,
        objective=objective,
        regulariser=regulariser,
        regulariser_reduction=regulariser_reduction,
        descent=Descent(**{**descent, **changes}),
        gradient=gradient,
        steps=steps,
        mask_channel=mask_channel,
        condition=condition,
    )
