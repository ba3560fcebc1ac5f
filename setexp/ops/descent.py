"""Gradient descent on a batch of sets: the inner optimisation of DSPN, iDSPN and set refiners."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from setexp.ops.simplex import project_simplex


class Reduction(Enum):
    """What the step size refers to.

    batch_mean: an objective that is a mean over the batch, as DSPN was released, so that a step
    depends on the batch size. per_sample: the same at the reference batch size, whatever the batch.
    """

    batch_mean = "batch_mean"
    per_sample = "per_sample"


class Projection(Enum):
    """Where the rows (..., F) of a set may lie: anywhere; with their last feature, the mask, in
    [0, 1] (DSPN); on the unit simplex (iDSPN's numbering)."""

    none = "none"
    mask = "mask"
    simplex = "simplex"

    def __call__(self, rows: Tensor) -> Tensor:
        if self is Projection.mask:
            return torch.cat([rows[..., :-1], rows[..., -1:].clamp(0, 1)], dim=-1)
        return project_simplex(rows) if self is Projection.simplex else rows


class Descent:
    """Projected gradient descent with momentum (iDSPN, 3: Nesterov's).

    Args:
        step_size: per step, of an objective that is a sum over the batch divided by the reference
            batch size, or by the batch's under `Reduction.batch_mean`.
        reduction, reference_batch_size: see `Reduction`.
        momentum, nesterov: as `torch.optim.SGD` defines them; the first buffer is the
            first gradient.
        clip: largest norm of one set's gradient over (N, F), before momentum; null for none.
        projection: see `Projection`; applied after each step.
        project_initial: project the initial set as well.
    """

    def __init__(
        self,
        *,
        step_size: float,
        reduction: Reduction,
        reference_batch_size: int,
        momentum: float,
        nesterov: bool,
        clip: float | None,
        projection: Projection,
        project_initial: bool,
    ) -> None:
        if step_size < 0:
            raise ValueError(f"step_size={step_size}: at least 0")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: at least 0, below 1")
        if clip is not None and clip <= 0:
            raise ValueError(f"clip={clip}: above 0, or null for none")
        if nesterov and not momentum:
            raise ValueError("nesterov=true needs momentum above 0")
        self.step_size, self.reduction = step_size, Reduction(reduction)
        self.reference_batch_size = reference_batch_size
        self.momentum, self.nesterov, self.clip = momentum, nesterov, clip
        self.projection, self.project_initial = Projection(projection), project_initial

    def start(self, rows: Tensor) -> Tensor:
        """The set before the first step, (B, N, F)."""
        return self.projection(rows) if self.project_initial else rows

    def step(self, rows: Tensor, gradient: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next set and momentum buffer: all (B, N, F); no buffer before the first step."""
        if self.clip is not None:
            norm = torch.linalg.vector_norm(gradient, dim=(-2, -1), keepdim=True)
            gradient = gradient * (self.clip / (norm + 1e-6)).clamp(max=1)
        if buffer is not None and self.momentum:
            buffer = self.momentum * buffer + gradient
        else:
            buffer = gradient
        move = gradient + self.momentum * buffer if self.nesterov else buffer
        batch_mean = self.reduction is Reduction.batch_mean
        step_size = self.step_size / (len(rows) if batch_mean else self.reference_batch_size)
        return self.projection(rows - step_size * move), buffer
