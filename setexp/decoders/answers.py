"""Scores of answers from what is seen, asked and counted (Thesis, Figure 3.10 and A.1)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.attention import Attended, Fusion
from setexp.ops.layers import Linear


class AnswerClassifier(nn.Module):
    """Fuse, add the count, normalise, score.

    Args:
        seen, question: widths of what is seen and asked. hidden: of the fusion. classes: C.
        counts: numbers of the count, n + 1; 0 of a model that does not count.

    Shapes: `Attended` to logits (B, C).
    """

    def __init__(
        self,
        *,
        seen: int,
        question: int,
        hidden: int,
        classes: int,
        counts: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.fusion = Fusion(
            first=seen, second=question, width=hidden, first_bias=True, dropout=dropout
        )
        self.counts = counts
        if counts:  # no dropout before it
            self.count = nn.Sequential(Linear(counts, hidden), nn.ReLU(), nn.BatchNorm1d(hidden))
        self.norm, self.dropout = nn.BatchNorm1d(hidden), nn.Dropout(dropout)
        self.scores = Linear(hidden, classes)

    def forward(self, attended: Attended) -> Tensor:
        hidden = self.fusion(attended.seen, attended.question)
        if attended.counted is not None:
            hidden = hidden + self.count(attended.counted)
        return self.scores(self.dropout(self.norm(hidden)))
