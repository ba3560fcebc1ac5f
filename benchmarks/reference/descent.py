"""DSPN and iDSPN as a first implementation would have them: inner gradients by `autograd.grad`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from reference.sets import PointSet, Pooled


class LearnedSet(nn.Module):
    """One learned set with its mask for all samples."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.rand(n, d))
        self.mask = nn.Parameter(torch.full((n, 1), 0.5))

    def forward(self, z: Tensor) -> PointSet:
        mask = self.mask.squeeze(1).clamp(0, 1)
        return self.x.expand(len(z), -1, -1), mask.expand(len(z), -1)


class DSPN(nn.Module):
    """Gradient descent on a set (Thesis, Algorithm 6.1); the objective is a mean over the batch."""

    def __init__(
        self, n: int, d: int, steps: int, step_size: float, set_encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.set_encoder = set_encoder
        self.initial = LearnedSet(n, d)
        self.steps, self.step_size = steps, step_size

    def forward(self, encoded: Pooled, mask: Tensor, encode: nn.Module) -> list[PointSet]:
        encode = self.set_encoder if self.set_encoder is not None else encode
        z = encoded[0]
        x, mask = self.initial(z)
        sets = [(x, mask)]
        for _ in range(self.steps):
            distance = F.smooth_l1_loss(encode((x, mask))[0], z)
            slope_x, slope_mask = torch.autograd.grad(distance, (x, mask), create_graph=True)
            x = x - self.step_size * slope_x
            mask = (mask - self.step_size * slope_mask).clamp(0, 1)
            sets.append((x, mask))
        return sets


class LearnedRows(nn.Module):
    """One learned set for all samples."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.randn(n, d) * 0.1)

    def forward(self, z: Tensor) -> Tensor:
        return self.x.expand(len(z), -1, -1)


class NoiseRows(nn.Module):
    """Noise, fresh for every sample and pass."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.shape = (n, d)

    def forward(self, z: Tensor) -> Tensor:
        return torch.randn(len(z), *self.shape, device=z.device) * 0.1


def project_simplex(x: Tensor) -> Tensor:
    """Nearest point of the unit simplex for each row, (..., F)."""
    ordered = x.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device)
    levels = (ordered.cumsum(-1) - 1) / count
    support = (ordered > levels).sum(-1, keepdim=True)
    return (x - levels.gather(-1, support - 1)).clamp(min=0)


class IDSPN(nn.Module):
    """Descent without a graph, differentiated at the last set alone (iDSPN, Eq. 9 and 10).

    Args:
        set_encoder: what is inverted; sees `known` features behind the rows, if there are any.
        initial: rows to start from. steps: their number. regulariser: pull towards the start.
        clip: largest norm of a set's slope. simplex: rows stay on the simplex.
    """

    def __init__(
        self,
        set_encoder: nn.Module,
        initial: nn.Module,
        steps: int,
        regulariser: float = 0.0,
        clip: float | None = None,
        simplex: bool = False,
    ) -> None:
        super().__init__()
        self.set_encoder, self.initial, self.steps = set_encoder, initial, steps
        self.regulariser, self.clip, self.simplex = regulariser, clip, simplex

    def project(self, x: Tensor) -> Tensor:
        return project_simplex(x) if self.simplex else x

    def forward(
        self, encoded: Pooled, mask: Tensor, encode: nn.Module, known: Tensor | None = None
    ) -> list[PointSet]:
        z = encoded[0]
        start = self.initial(z)
        x, velocity = self.project(start).detach(), None
        for step in range(self.steps):
            x.requires_grad_()
            rows = x if known is None else torch.cat([x, known], dim=2)
            objective = 0.5 * (self.set_encoder((rows, mask))[0] - z).square().mean(1).sum()
            pull = (x - start).square().mean((1, 2)).sum()
            objective = objective + 0.5 * self.regulariser * pull
            last = step + 1 == self.steps
            (slope,) = torch.autograd.grad(objective, x, create_graph=last)
            if last:
                direction = self.project(x.detach() - slope) - x.detach()
            clipped = slope.detach()
            if self.clip is not None:
                norm = clipped.norm(dim=(1, 2), keepdim=True)
                clipped = clipped * (self.clip / (norm + 1e-6)).clamp(max=1)
            velocity = clipped if velocity is None else 0.9 * velocity + clipped
            x = self.project(x.detach() - clipped - 0.9 * velocity)
        return [(x + direction - direction.detach(), mask)]


class Numbering(nn.Module):
    """Encoder and decoder of class-specific numbering: the batch's mean loss (iDSPN, F.1)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, classes: Tensor, target: PointSet) -> Tensor:
        rows, mask = target
        k = classes.shape[2]
        encoded = self.encoder((classes, mask))
        numbers = self.decoder(encoded, mask, self.encoder, classes)[-1][0]
        losses = []
        for found, true, one in zip(numbers, rows[:, :, k:], classes, strict=True):
            costs = (found.unsqueeze(1) - true.unsqueeze(0)).norm(dim=2)
            apart = 1000 * (one.argmax(1).unsqueeze(1) != one.argmax(1).unsqueeze(0))
            matched = linear_sum_assignment((costs + apart).detach().cpu().numpy())
            losses.append(costs[matched].mean())
        return torch.stack(losses).mean()
