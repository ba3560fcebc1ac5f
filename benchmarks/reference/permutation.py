"""Permutation-optimisation as a first implementation would have it: every pair of elements
and every assignment held.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset


class PairCost(nn.Module):
    """F of all pairs: an MLP on their concatenated features, minus its transpose."""

    def __init__(self, features: int, hidden: int, axes: int) -> None:
        super().__init__()
        self.pair = nn.Linear(2 * features, hidden)
        self.score = nn.Linear(hidden, axes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        first, second = x.unsqueeze(2).expand(-1, n, n, -1), x.unsqueeze(1).expand(-1, n, n, -1)
        f = self.score(self.pair(torch.cat([first, second], -1)).relu()).movedim(-1, 1)
        return f - f.mT


class Tiles(nn.Module):
    """A convolution, ReLU and pooling of every tile."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.shape = (channels, side, side)
        self.convolution = nn.Conv2d(channels, width, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        tiles = x.flatten(0, 1).unflatten(1, self.shape)
        return F.max_pool2d(self.convolution(tiles).relu(), 2).flatten(1).unflatten(0, x.shape[:2])


def sinkhorn(logits: Tensor, rounds: int) -> Tensor:
    """Softmax, then rows and columns divided by their sums, every matrix kept."""
    p = logits.softmax(-1)
    for _ in range(rounds):
        p = p / p.sum(-1, keepdim=True).clamp(min=1e-12)
        p = p / p.sum(-2, keepdim=True).clamp(min=1e-12)
    return p


class Permutation(nn.Module):
    """Permutation-optimisation from a uniform assignment on a lattice: x (B, N, D) in order."""

    def __init__(
        self, elements: nn.Module, cost: PairCost, shape: Sequence[int], steps: int, rounds: int
    ) -> None:
        super().__init__()
        self.elements, self.cost = elements, cost
        self.shape, self.steps, self.rounds = shape, steps, rounds
        self.step_size = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        cost = self.cost(self.elements(x))
        cost = cost / cost.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-10)
        logits = x.new_zeros(len(x), x.shape[1], x.shape[1])
        for _ in range(self.steps):
            lattice = sinkhorn(logits, self.rounds).unflatten(-1, self.shape)
            gradient = torch.zeros_like(logits)
            for axis in range(len(self.shape)):
                until = lattice.cumsum(axis + 2)
                after = lattice.sum(axis + 2, keepdim=True) - until
                before = until - lattice
                gradient = gradient + 2 * cost[:, axis] @ (after - before).flatten(2)
            logits = logits - self.step_size.abs() * gradient
        return sinkhorn(logits, self.rounds).mT @ x


class Permuting(nn.Module):
    """The mean squared error of the elements in order."""

    def __init__(self, encoder: Permutation) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, given: Tensor, target: Tensor) -> Tensor:
        return (self.encoder(given) - target).square().mean()


class Unsorted(Dataset):
    """Sets of n random numbers with the same in order, drawn one at a time."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(self.n, 1)
        return x, x.sort(0).values


class Puzzles(Dataset):
    """Images (B, C, S, S) of bytes cut into shuffled tiles, with those in order, one at a time."""

    def __init__(self, images: Tensor, per_side: int, mean: float, std: float) -> None:
        self.images, self.per_side, self.mean, self.std = images, per_side, mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index].float()
        side = -(-image.shape[-1] // self.per_side)
        size = [side * self.per_side] * 2
        if image.shape[-1] != size[0]:
            image = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
        image = (image.round() / 255 - self.mean) / self.std
        columns = image.split(side, -1)
        tiles = torch.stack([t.flatten() for c in columns for t in c.split(side, -2)])
        return tiles[torch.randperm(len(tiles))], tiles
