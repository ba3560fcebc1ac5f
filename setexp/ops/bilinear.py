"""Bilinear attention between the elements of a set and the words of a question (Kim et al., 2018).

The baseline of Thesis, 4.4.4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from setexp.ops.weight_norm import WeightNormLinear


class BilinearAttention(nn.Module):
    """Logits of all pairs of an element and a word: low-rank bilinear forms, one a glimpse.

    Args:
        first, second: widths of an element and of a word. width: K of what both are mapped to.
        glimpses: G. dropout: of elements and words. inner_dropout: of the mapped elements.

    Shapes: elements (B, N, D), words (B, L, Q) and the elements' mask (B, N) to (B, G, N, L), -inf
    where an element is padding.
    """

    def __init__(
        self,
        *,
        first: int,
        second: int,
        width: int,
        glimpses: int,
        dropout: float,
        inner_dropout: float,
    ) -> None:
        super().__init__()
        self.first, self.second = WeightNormLinear(first, width), WeightNormLinear(second, width)
        self.glimpses = WeightNormLinear(width, glimpses)
        self.dropout, self.inner_dropout = nn.Dropout(dropout), nn.Dropout(inner_dropout)
        with torch.no_grad():
            nn.init.normal_(self.glimpses.weight)
            nn.init.normal_(self.glimpses.bias)
            self.glimpses.length.copy_(self.glimpses.weight.norm())

    def forward(self, elements: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        seen = self.inner_dropout(self.first(self.dropout(elements)).relu())
        asked = self.second(self.dropout(words)).relu()
        # glimpses weigh the words, of which there are fewer
        weighed = asked.unsqueeze(1) * self.glimpses.normed().unsqueeze(1)
        logits = (seen @ weighed.flatten(1, 2).mT).unflatten(-1, weighed.shape[1:3]).movedim(-2, 1)
        logits = logits + self.glimpses.bias.view(-1, 1, 1)
        return logits.masked_fill(mask[:, None, :, None] == 0, -math.inf)


class BilinearPooling(nn.Module):
    """Elements and words, mapped, multiplied and summed by the weights of all pairs.

    Args:
        first, second: widths of an element and of a word. width: of the result.
        dropout: of elements and words.

    Shapes: elements (B, N, D), words (B, L, Q) and weights (B, N, L) to (B, width).
    """

    def __init__(self, *, first: int, second: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = WeightNormLinear(first, width), WeightNormLinear(second, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, elements: Tensor, words: Tensor, weights: Tensor) -> Tensor:
        seen = self.first(self.dropout(elements)).relu()
        asked = self.second(self.dropout(words)).relu()
        return ((weights.mT @ seen) * asked).sum(-2)
