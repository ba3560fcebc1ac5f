"""The polygon tables' Random row: right size and centre, any rotation (Thesis, 5.6.1)."""

from __future__ import annotations

import math

import torch
from torch import nn

from setexp.sets import Encoding, SetBatch


class RandomPolygon(nn.Module):
    """A regular polygon of random rotation, whatever the latent vector.

    Args:
        set_size: number of vertices N.

    Shapes: z (B, L) to x (1, B, N, 2), mask (1, B, N). Draws from the global random state.
    """

    def __init__(self, *, set_size: int) -> None:
        super().__init__()
        self.set_size = set_size

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        z = encoding.z
        turn = torch.rand(z.shape[0], 1, device=z.device, dtype=z.dtype)
        corner = torch.arange(self.set_size, device=z.device, dtype=z.dtype) / self.set_size
        direction = 2 * math.pi * (turn + corner)
        x = torch.stack([direction.sin(), direction.cos()], dim=-1)
        return SetBatch(x.unsqueeze(0), x.new_ones(1, *direction.shape))
