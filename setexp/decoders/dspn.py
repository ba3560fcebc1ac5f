"""Deep set prediction network: decode by gradient descent on a set (Thesis, Algorithm 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from setexp.sets import Encoding, SetBatch


class InnerReduction(Enum):
    """What the inner objective's step size refers to.

    batch_mean: a mean over the batch, as released, so that a step depends on the batch size.
    per_sample: the same at the reference batch size, whatever the batch.
    """

    batch_mean = "batch_mean"
    per_sample = "per_sample"


class DSPN(nn.Module):
    """Start from a learned set and descend the distance between its encoding and the latent vector.

    The objective is the Huber loss between encodings, a mean over latent features; the mask is
    optimised like any feature and clamped to [0, 1] before the first step and after each one.
    Gradients flow through all steps.

    Args:
        set_encoder: the encoder that is inverted; None to invert the one given at call time, which
            an auto-encoder does (shared weights).
        set_size: N. element_dim: D.
        steps: T, the number of inner steps in training.
        step_size: inner learning rate.
        inner_reduction, reference_batch_size: see `InnerReduction`.

    Shapes: z (B, L) to x (T + 1, B, N, D), mask (T + 1, B, N); index 0 is the initial set.
    """

    def __init__(
        self,
        *,
        set_encoder: nn.Module | None,
        set_size: int,
        element_dim: int,
        steps: int,
        step_size: float,
        inner_reduction: InnerReduction,
        reference_batch_size: int,
    ) -> None:
        super().__init__()
        self.set_encoder = set_encoder
        self.initial_set = nn.Parameter(torch.rand(set_size, element_dim))
        self.initial_mask = nn.Parameter(torch.full((set_size,), 0.5))
        self.steps, self.step_size = steps, step_size
        self.inner_reduction, self.reference_batch_size = inner_reduction, reference_batch_size

    def forward(
        self,
        encoding: Encoding,
        encode: Callable[[SetBatch], Encoding] | None = None,
        steps: int | None = None,
    ) -> SetBatch:
        encoder = self.set_encoder or encode
        assert encoder is not None, "DSPN inverts an encoder: give it one"
        z = encoding.z
        batch = z.shape[0]
        per_batch = self.inner_reduction is InnerReduction.batch_mean
        step_size = self.step_size / (batch if per_batch else self.reference_batch_size)

        def objective(x: Tensor, mask: Tensor) -> Tensor:
            distance = F.smooth_l1_loss(encoder(SetBatch(x, mask)).z, z, reduction="none")
            return distance.mean(-1).sum()

        descend = torch.func.grad(objective, argnums=(0, 1))
        x = self.initial_set.expand(batch, -1, -1)
        mask = self.initial_mask.clamp(0, 1).expand(batch, -1)
        sets, masks = [x], [mask]
        for _ in range(self.steps if steps is None else steps):
            slope_x, slope_mask = descend(x, mask)
            x = x - step_size * slope_x
            mask = (mask - step_size * slope_mask).clamp(0, 1)
            sets.append(x)
            masks.append(mask)
        return SetBatch(torch.stack(sets), torch.stack(masks))
