"""Hand over the elements of a set as they are, for decoders that map sets to sets."""

from __future__ import annotations

from torch import nn

from setexp.sets import Encoding, SetBatch


class Elements(nn.Module):
    """No latent vector: decoders read `Encoding.elements`.

    Shapes: a `SetBatch` with x (B, N, D) to an `Encoding` with z (B, 0) and these elements.
    """

    def forward(self, s: SetBatch) -> Encoding:
        return Encoding(z=s.x.new_zeros(len(s.x), 0), elements=s)
