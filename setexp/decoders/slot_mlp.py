"""Slot MLP: slots in order, from all places of an image at once (Locatello et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from setexp.ops.layers import MLP
from setexp.sets import Encoding, SetBatch


class SlotMLP(nn.Module):
    """The baseline of Slot Attention: features resized, flattened, and mapped to all slots.

    Args:
        features: of the encoding's elements, which are the places of a square image, row by row.
        side: the features are averaged to so many places in height and width.
        hidden: widths of the hidden layers.
        set_size: N.
        slot: features of a slot.
        head: slots to elements.

    Shapes: elements (B, M, features) of an encoding to x (1, B, N, D), mask (1, B, N).
    """

    def __init__(
        self,
        *,
        features: int,
        side: int,
        hidden: Sequence[int],
        set_size: int,
        slot: int,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.side, self.shape, self.head = side, (set_size, slot), head
        self.mlp = MLP([side * side * features, *hidden, set_size * slot])

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        x = encoding.required_elements().x
        places = x.mT.unflatten(-1, (math.isqrt(x.shape[-2]), -1))
        resized = F.adaptive_avg_pool2d(places, self.side)
        slots = self.mlp(resized.flatten(1)).unflatten(-1, self.shape)
        return self.head(slots.unsqueeze(0))
