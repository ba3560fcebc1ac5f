"""Set encoders: an element (or pair) network, a pooling, a head. The parts combine freely."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from setexp.ops.layers import MLP, Linear, LinearInit, project
from setexp.ops.pairs import add_pairs, pair_mask
from setexp.sets import Encoding, SetBatch


class ElementMLP(nn.Module):
    """The same MLP on every element (Deep Sets).

    Args:
        widths: input, hidden and output widths.
        init: see `LinearInit`.

    Shapes: (B, N, D) to (B, N, C), mask unchanged.
    """

    def __init__(self, *, widths: Sequence[int], init: LinearInit) -> None:
        super().__init__()
        self.mlp = MLP(widths, init=init)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.mlp(x), mask


class PairMLP(nn.Module):
    """The same MLP on every ordered pair of elements, first element first (relation network).

    Args:
        widths: width of *one element*, then hidden and output widths.
        init: see `LinearInit`.

    Shapes: (B, N, D) to (B, N * N, C), pair i, j at row i * N + j; a pair is present if both are.
    """

    def __init__(self, *, widths: Sequence[int], init: LinearInit) -> None:
        super().__init__()
        element, hidden, *rest = widths
        self.pair = Linear(2 * element, hidden, init=init)
        after = MLP([hidden, *rest], init=init)
        self.rest = nn.Sequential(nn.ReLU(), *after) if rest else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # the weights see the concatenated pair; each half is applied once per element
        first, second = self.pair.weight.chunk(2, dim=-1)
        hidden = add_pairs(project(x, first) + self.pair.bias, project(x, second))
        return self.rest(hidden), pair_mask(mask)


class SetEncoder(nn.Module):
    """Elements, pooling, head (Thesis, 2.3; Deep Sets and relation networks alike).

    Args:
        elements: `ElementMLP` or `PairMLP`.
        pooling: any pooling of `setexp.encoders`.
        head: widths of an MLP on the pooled vector; empty for none.
        mask_channel: append the mask to every element (DSPN: it is a feature like any other).
        divide_by_rows: divide features by their number of rows before pooling (DSPN; iDSPN, F).

    Shapes: a `SetBatch` with x (B, N, D) to an `Encoding` with z (B, L).
    """

    def __init__(
        self,
        *,
        elements: nn.Module,
        pooling: nn.Module,
        head: Sequence[int],
        mask_channel: bool,
        divide_by_rows: bool,
    ) -> None:
        super().__init__()
        self.elements, self.pooling, self.head = elements, pooling, MLP(head)
        self.mask_channel, self.divide_by_rows = mask_channel, divide_by_rows

    def forward(self, s: SetBatch) -> Encoding:
        x, mask = self.elements(s.with_mask_channel() if self.mask_channel else s.x, s.mask)
        after = getattr(self.pooling, "homogeneous", False)  # the same, with much less to divide
        if self.divide_by_rows and not after:
            x = x / x.shape[-2]
        pooled, order = self.pooling(x, mask)
        if self.divide_by_rows and after:
            pooled = pooled / x.shape[-2]
        return Encoding(z=self.head(pooled), order=order, elements=s)
