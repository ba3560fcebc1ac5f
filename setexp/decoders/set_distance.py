"""How far apart the objects of two images are, from their latent sets (SSLR, 4.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from setexp.ops.assignment import assignment
from setexp.ops.costs import Cost, pair_cost
from setexp.ops.layers import Linear, LinearInit
from setexp.ops.rows import take_rows


class Distance(NamedTuple):
    """Of each pair of sets, (B,) each.

    Args:
        location: what is predicted.
        attribute: how unlike the matched elements are; zero where nothing is matched.
    """

    location: Tensor
    attribute: Tensor


class SetDistance(nn.Module):
    """Elements are matched by what they are and compared by where they are (SSLR, C.1).

    Two linear maps of every element; the matching is exact, on Huber costs of attributes without
    their gradient; both distances are sums of squares over matched elements.

    Args:
        element_dim: D.
        embed_dim: attributes, and as many locations.

    Shapes: two sets, (B, N, D) each, to a `Distance`.
    """

    def __init__(self, *, element_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.attribute = Linear(element_dim, embed_dim, init=LinearInit.pytorch)
        self.location = Linear(element_dim, embed_dim, init=LinearInit.pytorch)

    def forward(self, first: Tensor, second: Tensor) -> Distance:
        mine, theirs = self.attribute(first), self.attribute(second)
        costs = pair_cost(mine.detach(), theirs.detach(), Cost.huber)
        partner = assignment(costs)

        def apart(a: Tensor, b: Tensor) -> Tensor:
            return (a - take_rows(b, partner)).square().sum((-2, -1))

        return Distance(apart(self.location(first), self.location(second)), apart(mine, theirs))


class VectorDistance(nn.Module):
    """A linear map of the squared differences of two vectors, which are sets of one (naive CNN).

    Args:
        features: L.

    Shapes: two sets of one, (B, 1, L) each, to a `Distance` without attributes.
    """

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.score = Linear(features, 1, init=LinearInit.pytorch)

    def forward(self, first: Tensor, second: Tensor) -> Distance:
        location = self.score((first - second).square()).flatten()
        return Distance(location, torch.zeros_like(location))
