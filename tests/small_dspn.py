"""DSPNs that the tests of decoders decode with, and sets for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from setexp.decoders.dspn import DSPN, Gradient, Objective, RegulariserReduction
from setexp.decoders.initial import LearnedSet, SetInit
from setexp.encoders.fspool import FSPool
from setexp.encoders.pooling import MaxPool, MeanPool, SumPool
from setexp.encoders.set_encoder import ElementMLP, SetEncoder
from setexp.ops.descent import Descent, Projection, Reduction
from setexp.ops.layers import LinearInit
from setexp.ops.position_weights import WeightInit
from setexp.sets import SetBatch

B, N, D, L = 3, 5, 2, 6  # sets, elements, features, latent


def fspool(*, features: int = L, masked: bool = False, relaxed: bool = False) -> FSPool:
    return FSPool(
        features=features, n_pieces=20, set_size=None, init=WeightInit.normal, descending=True,
        masked=masked, relaxed=relaxed, legacy_singleton_mask=False,
    )  # fmt: skip


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "fspool": fspool,
    "fspool relaxed": lambda: fspool(relaxed=True),
    "sum": lambda: SumPool(masked=False),
    "mean": lambda: MeanPool(masked=False, by_set_size=False),
    "max": lambda: MaxPool(masked=False),
}


def set_encoder(pooling: str = "fspool", elements: type = ElementMLP) -> SetEncoder:
    """A small encoder as DSPN's: the mask is a feature."""
    return SetEncoder(
        elements=elements(widths=[D + 1, 8, L], init=LinearInit.xavier),
        pooling=POOLINGS[pooling](),
        head=[],
        mask_channel=True,
        divide_by_rows=True,
    )


def dspn(
    encoder: nn.Module | None, *, steps: int = 4, step_size: float = 30.0, **changes: Any
) -> DSPN:
    """A DSPN as the thesis has it; `changes` are of its descent."""
    descent = {
        "step_size": step_size,
        "reduction": Reduction.batch_mean,
        "reference_batch_size": B,
        "momentum": 0.0,
        "nesterov": False,
        "clip": None,
        "projection": Projection.mask,
        "project_initial": True,
    }
    return DSPN(
        set_encoder=encoder,
        initial=LearnedSet(set_size=N, element_dim=D, init=SetInit.uniform, std=0.0, mask=0.5),
        objective=Objective.huber,
        regulariser=0.0,
        regulariser_reduction=RegulariserReduction.mean,
        descent=Descent(**{**descent, **changes}),
        gradient=Gradient.unrolled,
        steps=steps,
        mask_channel=True,
        condition=False,
    )


def target(seed: int = 0, n: int = N) -> SetBatch:
    """Random sets of 1, 3 and 5 elements, zero-padded."""
    mask = (torch.arange(n) < torch.tensor([[1], [3], [5]])).double()
    x = torch.rand(B, n, D, generator=torch.Generator().manual_seed(seed))
    return SetBatch(x * mask.unsqueeze(-1), mask)
