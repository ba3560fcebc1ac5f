"""Bilinear attention network on object proposals (Kim et al., 2018; Thesis, 4.4.4 and A.2.4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from setexp.encoders.counting import CountingModule
from setexp.encoders.read_in_order import ReadInOrder
from setexp.ops.bilinear import BilinearAttention, BilinearPooling
from setexp.ops.weight_norm import WeightNormLinear
from setexp.sets import Encoding, SetBatch


class BAN(nn.Module):
    """Glimpses at proposals and words, each adding to the question's states what it finds.

    A glimpse adds what it pools, how many things it attends to, and what is read of the proposals
    in order, if they are read. Padding has no weight and changes nothing.

    Args:
        question: words (B, L) to states (B, L, hidden).
        features: D. hidden: H of all layers. glimpses: G, at least 1.
        rank: of the attention, as a multiple of hidden.
        dropout: of what enters a layer. inner_dropout: within the attention.
        count: boxes (B, N, 4) and weights (B, N) in [0, 1] to (B, n + 1), shared by the glimpses.
        order: what reads the proposals, shared by the glimpses; null for nothing.

    Shapes: a `SetBatch` with x (B, N, D + 4), features and a box, words (B, L) and their number,
    which is not used, to z (B, H).

    Raises:
        ValueError: no glimpses, or a rank below 1.
    """

    def __init__(
        self,
        *,
        question: nn.Module,
        features: int,
        hidden: int,
        glimpses: int,
        rank: int,
        dropout: float,
        inner_dropout: float,
        count: CountingModule,
        order: ReadInOrder | None,
    ) -> None:
        super().__init__()
        for name, value in (("glimpses", glimpses), ("rank", rank)):
            if value < 1:
                raise ValueError(f"{name}={value}: at least 1")
        self.question, self.count, self.order, self.features = question, count, order, features
        self.attention = BilinearAttention(
            first=features,
            second=hidden,
            width=rank * hidden,
            glimpses=glimpses,
            dropout=dropout,
            inner_dropout=inner_dropout,
        )
        found = [count.objects + 1] if order is None else [count.objects + 1, order.width]
        self.glimpses = nn.ModuleList(
            _Glimpse(features, hidden, found, dropout) for _ in range(glimpses)
        )

    def forward(self, proposals: SetBatch, words: Tensor, length: Tensor) -> Encoding:
        del length  # words are padded to one length, and padding takes part
        x, boxes = proposals.x.tensor_split([self.features], dim=-1)
        boxes = boxes * proposals.mask.unsqueeze(-1)
        states = self.question(words)
        logits = self.attention(x, states, proposals.mask)
        weights = logits.flatten(-2).softmax(-1).view_as(logits)
        of_element = logits.amax(-1)  # (B, G, N): the largest of all words
        found = [self._counted(boxes, of_element.sigmoid())]
        if self.order is not None:
            found.append(self.order(x, boxes, of_element, proposals.mask))
        for index, glimpse in enumerate(self.glimpses):
            states = glimpse(x, states, weights[:, index], [f[:, index] for f in found])
        return Encoding(z=states.sum(-2))

    def _counted(self, boxes: Tensor, attention: Tensor) -> Tensor:
        """Counts of all glimpses: (B, N, 4) and (B, G, N) to (B, G, n + 1)."""
        # the module's confidence is a mean over n proposals, or fewer where there are no more
        short = max(0, self.count.objects - boxes.shape[-2])
        boxes, attention = F.pad(boxes, (0, 0, 0, short)), F.pad(attention, (0, short))
        each = boxes.unsqueeze(1).expand(*attention.shape, 4)
        counted: Tensor = self.count(each.flatten(0, 1), attention.flatten(0, 1))
        return counted.unflatten(0, attention.shape[:2])


class _Glimpse(nn.Module):
    """States of a question with what one glimpse finds, (B, L, H) to the same.

    Args:
        found: widths of what else is found, for example a count.
    """

    def __init__(self, features: int, hidden: int, found: list[int], dropout: float) -> None:
        super().__init__()
        self.pooling = BilinearPooling(first=features, second=hidden, width=hidden, dropout=dropout)
        self.dropout, self.pooled = nn.Dropout(dropout), WeightNormLinear(hidden, hidden)
        self.found = nn.ModuleList(WeightNormLinear(width, hidden) for width in found)

    def forward(self, x: Tensor, states: Tensor, weights: Tensor, found: list[Tensor]) -> Tensor:
        added = self.pooled(self.dropout(self.pooling(x, states, weights)))
        for layer, what in zip(self.found, found, strict=True):
            added = added + layer(what).relu()
        return states + added.unsqueeze(-2)
