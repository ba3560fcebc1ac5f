"""Classification of sets, graphs, and questions about sets (Thesis, 5.6)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class Classify(nn.Module):
    """Encode the input, score the classes, compare with `aux["label"]` (B,).

    Args:
        encoder: input to `Encoding`. decoder: `Encoding` to logits (B, C). loss: per sample.
        given: what of `aux` the encoder is given beside the input, by name: a question.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        loss: nn.Module,
        given: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.loss = encoder, decoder, loss
        self.given = tuple(given)

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        del steps  # nothing is iterated
        given = [batch.aux[name] for name in self.given]
        logits, label = self.decoder(self.encoder(batch.input, *given)), batch.aux["label"]
        right = (logits.argmax(-1) == label).to(logits.dtype)
        return Outcome(self.loss(logits, label), None, {"accuracy": right})
