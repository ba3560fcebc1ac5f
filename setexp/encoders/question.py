"""Sets with a question about them (Thesis, 5.6.4): every element, or pair, is told the question."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from setexp.ops.layers import MLP, FastLSTM, Linear, LinearInit, project
from setexp.ops.pairs import add_pairs, pair_mask
from setexp.sets import Encoding, SetBatch


class QuestionLSTM(nn.Module):
    """Words are embedded and read by an LSTM, whose last hidden state is the question.

    Args:
        words: size of the vocabulary, padding included. embedding: width of a word.
        hidden: Q, width of the LSTM.

    Shapes: positions in the vocabulary (B, L) to (B, Q).
    """

    def __init__(self, *, words: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding)
        self.lstm = FastLSTM(embedding, hidden, batch_first=True)

    def forward(self, words: Tensor) -> Tensor:
        return self.lstm(self.embedding(words))[1][0].squeeze(0)


class QuestionedElements(nn.Module):
    """The same MLP on every element, next to which stands the question.

    Args:
        question: Q. widths: of an element, then hidden and output widths. init: see `LinearInit`.

    Shapes: x (B, N, D), mask (B, N) and question (B, Q) to (B, N, C), mask unchanged.
    """

    def __init__(self, *, question: int, widths: Sequence[int], init: LinearInit) -> None:
        super().__init__()
        self.element, hidden, *rest = widths
        self.first = Linear(self.element + question, hidden, init=init)
        self.rest = _after(hidden, rest, init)

    def forward(self, x: Tensor, mask: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        # the weights see the concatenation; the question's share is computed once per set
        own, asked = self.first.weight.tensor_split([self.element], dim=-1)
        told = project(question, asked) + self.first.bias
        return self.rest(project(x, own) + told.unsqueeze(-2)), mask


class QuestionedPairs(nn.Module):
    """The same MLP on every ordered pair of elements, next to which stands the question (RN).

    Args:
        question: Q. widths: of *one element*, then hidden and output widths. init: see
            `LinearInit`.

    Shapes: x (B, N, D), mask (B, N) and question (B, Q) to (B, N * N, C), pair i, j at row
    i * N + j; a pair is present if both are.
    """

    def __init__(self, *, question: int, widths: Sequence[int], init: LinearInit) -> None:
        super().__init__()
        self.element, hidden, *rest = widths
        self.first = Linear(2 * self.element + question, hidden, init=init)
        self.rest = _after(hidden, rest, init)

    def forward(self, x: Tensor, mask: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        ends = [self.element, 2 * self.element]
        first, second, asked = self.first.weight.tensor_split(ends, dim=-1)
        told = (project(question, asked) + self.first.bias).unsqueeze(-2)
        return self.rest(add_pairs(project(x, first) + told, project(x, second))), pair_mask(mask)


class QuestionedSet(nn.Module):
    """A set and a question about it to a vector: elements with the question, then a pooling.

    Args:
        question: words to (B, Q), as `QuestionLSTM`.
        elements: `QuestionedElements` or `QuestionedPairs`.
        pooling: any pooling of `setexp.encoders`.
        scale: multiplies what is pooled.

    Shapes: a `SetBatch` with x (B, N, D) and words (B, L) to an `Encoding` with z (B, C).
    """

    def __init__(
        self, *, question: nn.Module, elements: nn.Module, pooling: nn.Module, scale: float
    ) -> None:
        super().__init__()
        self.question, self.elements, self.pooling = question, elements, pooling
        self.scale = scale

    def forward(self, s: SetBatch, words: Tensor) -> Encoding:
        x, mask = self.elements(s.x, s.mask, self.question(words))
        pooled, order = self.pooling(x, mask)
        return Encoding(z=self.scale * pooled, order=order, elements=s)


def _after(hidden: int, rest: Sequence[int], init: LinearInit) -> nn.Module:
    """What follows a first layer: a ReLU after every layer, the last one included."""
    if not rest:
        return nn.ReLU()
    return nn.Sequential(nn.ReLU(), *MLP([hidden, *rest], init=init), nn.ReLU())
