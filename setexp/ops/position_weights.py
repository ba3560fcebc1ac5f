"""Weights of positions in a sorted set, interpolated from a few parameters (Thesis, 5.4.2)."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn


class WeightInit(Enum):
    """Initial position weights: N(0, 1); all ones (a sum); N(0, 1 / number of weights)."""

    normal = "normal"
    ones = "ones"
    kaiming = "kaiming"

    def __call__(self, features: int, n_weights: int) -> Tensor:
        if self is WeightInit.ones:
            return torch.ones(features, n_weights)
        std = 1.0 if self is WeightInit.normal else n_weights**-0.5
        return torch.randn(features, n_weights) * std


class PositionWeights(nn.Module):
    """Weights of each position for each feature, interpolated from a few parameters.

    Args:
        features: C.
        n_pieces: pieces of the piecewise linear function; None for one weight per position.
        set_size: number of positions; only read where `n_pieces` is None.
        init: see `WeightInit`.

    The parameter is (C, n_pieces + 1), or (C, set_size); its left end belongs to position 0.
    """

    def __init__(
        self, *, features: int, n_pieces: int | None, set_size: int | None, init: WeightInit
    ) -> None:
        super().__init__()
        self.n_pieces = n_pieces
        if n_pieces is None and set_size is None:
            raise ValueError("one weight per position needs set_size")
        if n_pieces is not None and n_pieces < 1:
            raise ValueError(f"n_pieces={n_pieces}: at least 1")
        n_weights = n_pieces + 1 if n_pieces is not None else set_size or 0
        self.weight = nn.Parameter(WeightInit(init)(features, n_weights))

    def forward(self, n: int, size: Tensor | None) -> Tensor:
        """Weights at n positions: (C, n), or (B, C, n) and zero beyond each `size` (B, 1)."""
        if self.n_pieces is None:
            return self.weight
        hats = self._hats_of(n, size)
        if size is None:
            return self.weight @ hats
        return torch.bmm(self.weight.expand(len(hats), -1, -1), hats)  # alike in a stack

    def pool(self, ordered: Tensor, size: Tensor) -> Tensor:
        """Sum of ordered (B, C, n) times the weights at the first `size` (B, 1) positions: (B, C).

        What each parameter is multiplied by is summed first, so that weights at positions, and
        their gradients, are never formed.
        """
        hats = self._hats_of(ordered.shape[-1], size)
        return (torch.bmm(ordered, hats.mT) * self.weight).sum(-1)

    def at(self, ratio: Tensor) -> Tensor:
        """Weights (S, C, n) at relative positions in [0, 1], (S, n); S = 1 of one seed."""
        weight = self.weight.view(-1, *self.weight.shape[-2:])
        return torch.bmm(weight, self._hats(ratio))

    def _hats_of(self, n: int, size: Tensor | None) -> Tensor:
        """Those of n positions: (K, n), or (B, K, n) and zero beyond each size."""
        position = torch.arange(n, device=self.weight.device, dtype=self.weight.dtype)
        if size is None:
            return self._hats(position / max(n - 1, 1))
        hats = self._hats(position / (size - 1).clamp(min=1))
        return hats * (position < size).unsqueeze(-2)

    def _hats(self, ratio: Tensor) -> Tensor:
        """Hat functions: interpolation as one product, without gathers to differentiate."""
        assert self.n_pieces is not None, "one weight per position has no relative positions"
        knots = torch.arange(self.n_pieces + 1, device=ratio.device, dtype=ratio.dtype)
        return torch.relu(1 - (ratio.unsqueeze(-2) * self.n_pieces - knots.unsqueeze(-1)).abs())
