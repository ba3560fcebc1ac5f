"""A list of elements taken as a set: the MLPs in parallel that SSLR compares with (SSLR, 3.2)."""

from __future__ import annotations

from torch import nn

from setexp.sets import Encoding, SetBatch, split_mask


class Channels(nn.Module):
    """The elements that the encoder made, each from channels of its own, as they are (SSLR-MLP).

    Shapes: encoded elements x (B, N, D) to x (1, B, N, D), all present.
    """

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        return split_mask(encoding.required_elements().x.unsqueeze(0), mask_channel=False)
