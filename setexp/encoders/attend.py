"""Attention on object proposals that a question asks about, and a count (Thesis, Figure 3.10)."""

from __future__ import annotations

from torch import Tensor, nn

from setexp.ops.attention import Attended, Fusion, glimpses
from setexp.ops.layers import Linear
from setexp.sets import SetBatch

_FLOOR = 1e-12


class Attend(nn.Module):
    """Weigh proposals by what they show and what is asked, in some glimpses.

    As in the released code, padding takes part: it is zero, gets a weight and may be counted.

    Args:
        question: words (B, L) and their number (B,) to (B, Q), Q = hidden.
        hidden: Q. features: D. width: of the fusion. glimpses: G.
        count: boxes (B, N, 4), logits (B, N, G) and mask (B, N) to (B, n + 1); null for none.

    Shapes: a `SetBatch` with x (B, N, D + 4), features and a box, and a question, to `Attended`.
    """

    def __init__(
        self,
        *,
        question: nn.Module,
        hidden: int,
        features: int,
        width: int,
        glimpses: int,
        dropout: float,
        count: nn.Module | None,
    ) -> None:
        super().__init__()
        self.question, self.count, self.features = question, count, features
        self.fusion = Fusion(
            first=features, second=hidden, width=width, first_bias=False, dropout=dropout
        )
        self.dropout = nn.Dropout(dropout)
        self.logits = Linear(width, glimpses)

    def forward(self, proposals: SetBatch, words: Tensor, length: Tensor) -> Attended:
        x, boxes = proposals.x.tensor_split([self.features], dim=-1)
        x = x / (x.norm(dim=-1, keepdim=True) + _FLOOR)
        asked = self.question(words, length)
        logits = self.logits(self.dropout(self.fusion(x, asked.unsqueeze(-2))))
        count = None if self.count is None else self.count(boxes, logits, proposals.mask)
        return Attended(glimpses(x, logits), asked, count)


class CountGlimpse(nn.Module):
    """What a counting module makes of the first glimpse, before its softmax (Thesis, 3.5.2).

    Args:
        count: boxes (B, N, 4) and weights (B, N) in [0, 1] to (B, n + 1).
    """

    def __init__(self, *, count: nn.Module) -> None:
        super().__init__()
        self.count = count

    def forward(self, boxes: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        del mask
        return self.count(boxes, logits[..., 0].sigmoid())
