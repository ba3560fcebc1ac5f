"""Soft attention on a set that another vector asks about (Thesis, Figure 3.10 and A.1)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from setexp.ops.layers import Linear


class Attended(NamedTuple):
    """What an answer is found from.

    Args:
        seen: elements summed by the weights of each glimpse, (B, G * D).
        question: (B, Q).
        counted: (B, n + 1), or None of a model that does not count.
    """

    seen: Tensor
    question: Tensor
    counted: Tensor | None


class Fusion(nn.Module):
    """ReLU(Wx + Vy) - (Wx - Vy)^2, with dropout on x and y (Thesis, Eq. A.1).

    Args:
        first, second: widths of x and y. width: of the result. first_bias: of W; V has one.

    Shapes: x (..., first) and y (..., second), broadcast, to (..., width).
    """

    def __init__(
        self, *, first: int, second: int, width: int, first_bias: bool, dropout: float
    ) -> None:
        super().__init__()
        self.first = Linear(first, width, bias=first_bias)
        self.second = Linear(second, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.first(self.dropout(x)), self.second(self.dropout(y))
        return (x + y).relu() - (x - y).square()


def glimpses(x: Tensor, logits: Tensor) -> Tensor:
    """Sums of all elements, weighted by each glimpse's softmax, one after the other.

    Shapes: x (B, N, D) and logits (B, N, G) to (B, G * D).
    """
    return (logits.softmax(-2).mT @ x).flatten(-2)
