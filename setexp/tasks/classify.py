"""Classification of sets (Thesis, 5.6.2: MNIST digits)."""

from __future__ import annotations

from torch import nn

from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class Classify(nn.Module):
    """Encode the input, score the classes, compare with `aux["label"]` (B,).

    Args:
        encoder: input to `Encoding`. decoder: `Encoding` to logits (B, C). loss: per sample.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.loss = encoder, decoder, loss

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        del steps  # nothing is iterated
        logits, label = self.decoder(self.encoder(batch.input)), batch.aux["label"]
        right = (logits.argmax(-1) == label).to(logits.dtype)
        return Outcome(self.loss(logits, label), None, {"accuracy": right})
