"""Answer questions about sets of object proposals (Thesis, 3.5.2)."""

from __future__ import annotations

from torch import nn

from setexp.ops.votes import PEOPLE, agreement
from setexp.sets import Batch
from setexp.tasks.outcome import Outcome

_ABOUT = ("question_id", "kind", "counting", "partner")


class Answer(nn.Module):
    """Attend to the input as `aux["word"]` (B, L) asks, score answers, compare with people's.

    Args:
        encoder: `SetBatch`, words and their number to what the decoder takes.
        decoder: to logits (B, C). loss: logits and shares of people (B, C) to (B,).

    Stats: accuracy, the answer's place, and what evaluations group questions by.
    """

    def __init__(self, *, encoder: nn.Module, decoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.loss = encoder, decoder, loss

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        del steps  # nothing is iterated
        aux = batch.aux
        logits = self.decoder(self.encoder(batch.input, aux["word"], aux["length"]))
        answer = logits.argmax(-1)
        share = batch.target.gather(-1, answer.unsqueeze(-1)).squeeze(-1)
        stats = {"accuracy": agreement(PEOPLE * share), "answer": answer}
        stats |= {name: aux[name] for name in _ABOUT}
        return Outcome(self.loss(logits, batch.target), None, stats)
