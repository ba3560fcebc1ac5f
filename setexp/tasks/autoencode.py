"""Set auto-encoder: a set to a vector and back (Thesis, 5.4.3 and 6.3.2)."""

from __future__ import annotations

from torch import nn

from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class AutoEncode(nn.Module):
    """Encode the input set, decode it, compare with the target set.

    The encoder is handed to the decoder, so that a decoder that inverts an encoder (DSPN) shares
    its weights; others ignore it.

    Args:
        encoder: `SetBatch` to `Encoding`. decoder: `Encoding` to predicted sets. loss: per set.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.loss = encoder, decoder, loss

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        encoding = self.encoder(batch.input)
        prediction = self.decoder(encoding, encode=self.encoder, steps=steps)
        return Outcome(self.loss(prediction, batch.target), prediction, {})
