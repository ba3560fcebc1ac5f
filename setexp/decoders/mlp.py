"""MLP decoder: all elements at once from the latent vector (Thesis, 5.6 and 6.5: the baseline)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from setexp.ops.layers import MLP
from setexp.sets import Encoding, SetBatch, split_mask


class MLPDecoder(torch.nn.Module):
    """Latent vector to a list of elements, in which order means nothing to the loss.

    Args:
        latent: L.
        hidden: widths of the hidden layers.
        set_size: N.
        element_dim: D.
        mask_channel: predict a mask value per element; otherwise every element is present.
        mask_bias: added to the predicted mask (Thesis, A.4.1: "crucial"; the released code has 0).

    Shapes: z (B, L) to x (1, B, N, D), mask (1, B, N).
    """

    def __init__(
        self,
        *,
        latent: int,
        hidden: Sequence[int],
        set_size: int,
        element_dim: int,
        mask_channel: bool,
        mask_bias: float,
    ) -> None:
        super().__init__()
        self.shape = (set_size, element_dim + mask_channel)
        self.mask_channel, self.mask_bias = mask_channel, mask_bias
        self.mlp = MLP([latent, *hidden, self.shape[0] * self.shape[1]])

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        elements = self.mlp(encoding.z).unflatten(-1, self.shape)
        return split_mask(elements.unsqueeze(0), self.mask_channel, self.mask_bias)
