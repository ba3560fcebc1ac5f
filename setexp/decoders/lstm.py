"""LSTM decoder: one element per time step (Thesis, 5.6.2 and 6.5: the RNN baseline)."""

from __future__ import annotations

import torch
from torch import nn

from setexp.ops.layers import LSTM, Linear
from setexp.sets import Encoding, SetBatch, split_mask


class LSTMDecoder(nn.Module):
    """The latent vector sets the initial cell state; inputs are N zeros of size one.

    The LSTM starts from PyTorch's initial weights and biases, since the released code sets those of
    linear maps and convolutions alone.

    Args:
        latent: L.
        hidden: hidden and cell size.
        set_size, element_dim, mask_channel, mask_bias: as in `MLPDecoder`.

    Shapes: z (B, L) to x (1, B, N, D), mask (1, B, N).
    """

    def __init__(
        self,
        *,
        latent: int,
        hidden: int,
        set_size: int,
        element_dim: int,
        mask_channel: bool,
        mask_bias: float,
    ) -> None:
        super().__init__()
        self.set_size, self.mask_channel, self.mask_bias = set_size, mask_channel, mask_bias
        self.cell = Linear(latent, hidden)
        self.lstm = LSTM(1, hidden)
        for parameter in self.lstm.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
        self.element = Linear(hidden, element_dim + mask_channel)

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        cell = self.cell(encoding.z)
        inputs = cell.new_zeros(*cell.shape[:-1], self.set_size, 1)
        states = self.lstm(inputs, torch.zeros_like(cell), cell)
        return split_mask(self.element(states).unsqueeze(0), self.mask_channel, self.mask_bias)
