"""Classifier of graphs: normalised vector, hidden layer with dropout, scores of classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.ops.dropout import Dropout
from setexp.ops.layers import Linear
from setexp.ops.norm import BatchNorm, rows
from setexp.sets import Encoding


class NormedClassifier(nn.Module):
    """Batch norm, linear, ReLU, dropout, linear (Thesis, A.3.4).

    Args:
        latent: L. hidden: width. classes: C. dropout: share of the hidden layer that is dropped.

    Shapes: z (B, L) to logits (B, C); a leading axis of seeds may be on all, parameters included.
    """

    def __init__(self, *, latent: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(latent)
        self.first, self.second = Linear(latent, hidden), Linear(hidden, classes)
        self.dropout = Dropout(dropout)

    def forward(self, encoding: Encoding) -> Tensor:
        z = encoding.z.view(-1, *encoding.z.shape[-2:])
        given = rows(torch.full((1, 1), z.shape[1], device=z.device), z.shape[1], z.dtype)
        logits = self.second(self.dropout(torch.relu(self.first(self.norm(z, given)))))
        return logits.view(*encoding.z.shape[:-1], -1)
