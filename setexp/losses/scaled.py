"""A set loss in other units of the coordinates (iDSPN, Table 3: the rows of Slot Attention)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.sets import SetBatch


class ScaledCoordinates(nn.Module):
    """Another loss after the first features of prediction and target are multiplied.

    Args:
        loss: the loss.
        scale: of coordinates in [-1, 1]: 0.5 for errors as if they lay in [0, 1], 3 for [-3, 3].
        coordinates: how many of the features are multiplied.

    Shapes: as the loss has them.
    """

    def __init__(self, *, loss: nn.Module, scale: float, coordinates: int) -> None:
        super().__init__()
        self.loss, self.scale, self.coordinates = loss, scale, coordinates

    def forward(self, prediction: SetBatch, target: SetBatch) -> Tensor:
        return self.loss(self._scaled(prediction), self._scaled(target))

    def _scaled(self, s: SetBatch) -> SetBatch:
        x = [self.scale * s.x[..., : self.coordinates], s.x[..., self.coordinates :]]
        return SetBatch(torch.cat(x, dim=-1), s.mask)
