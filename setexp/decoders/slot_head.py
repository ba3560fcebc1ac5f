"""From a slot to an element: the end of Slot Attention and Slot MLP (Locatello et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.ops.layers import MLP
from setexp.sets import SetBatch, split_mask


class SlotHead(nn.Module):
    """The same MLP on every slot; its outputs, squashed by sigmoids, are the element and its mask.

    Args:
        slot: features of a slot.
        hidden: width of the hidden layer.
        element_dim: D.
        coordinates: the first features of an element lie in [-1, 1], not in [0, 1] like the rest.

    Shapes: slots (..., N, slot) to x (..., N, D), mask (..., N).
    """

    def __init__(self, *, slot: int, hidden: int, element_dim: int, coordinates: int) -> None:
        super().__init__()
        self.mlp = MLP([slot, hidden, element_dim + 1])
        self.coordinates = coordinates

    def forward(self, slots: Tensor) -> SetBatch:
        shares = torch.sigmoid(self.mlp(slots))
        coordinates = 2 * shares[..., : self.coordinates] - 1
        rows = torch.cat([coordinates, shares[..., self.coordinates :]], dim=-1)
        return split_mask(rows, mask_channel=True)
