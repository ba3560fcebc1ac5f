"""Questions about sets with one right answer (Thesis, 5.6.4)."""

from __future__ import annotations

from torch import nn

from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class AnswerQuestion(nn.Module):
    """Encode a set with a question about it, score the answers, compare with the right one.

    Args:
        encoder: a `SetBatch` and `aux["question"]` (B, L) to `Encoding`.
        decoder: `Encoding` to logits (B, C). loss: logits and `aux["label"]` (B,) to (B,).
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.loss = encoder, decoder, loss

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        del steps  # nothing is iterated
        logits = self.decoder(self.encoder(batch.input, batch.aux["question"]))
        label = batch.aux["label"]
        right = (logits.argmax(-1) == label).to(logits.dtype)
        return Outcome(self.loss(logits, label), None, {"accuracy": right})
