"""Readouts: the nodes of each graph to one vector, on the batch vector alone.

Their `forward` takes what PyTorch Geometric's aggregations take, so that either can stand where the
other does; the index must be in order, as a batch vector is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.ops.position_weights import PositionWeights, WeightInit
from setexp.ops.segments import GraphSum, SortedSum


class SumReadout(nn.Module):
    """Sum or mean over the nodes of each graph.

    Args:
        mean: divide by the number of nodes.

    Shapes: x (N, C), index (N,) graph of each node and ptr (B + 1,) first node of each graph, or
    None, to (B, C). Nodes from ptr[B] on are padding, of index B. A leading axis of seeds may be on
    all, parameters included.
    """

    def __init__(self, *, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(
        self,
        x: Tensor,
        index: Tensor,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        rows, graph, first = _stacked(x, index, ptr, dim_size)
        total = GraphSum.apply(rows, graph, first)
        if self.mean:
            total = total / first.diff().clamp(min=1).unsqueeze(-1)
        return total.view(*x.shape[:-2], *total.shape[-2:])


class FSPoolReadout(nn.Module):
    """Featurewise sort pooling of graphs of any size (Thesis, 5.4 and 5.6.5).

    All nodes are sorted by graph and number at once; nothing is padded. A graph of one node has the
    weight at 0, one without nodes gives zeros.

    Args:
        features: C.
        n_pieces, init, descending: see `setexp.encoders.fspool`. Paper: 5 weights; code: 5 pieces.

    Shapes: see `SumReadout`.
    """

    def __init__(self, *, features: int, n_pieces: int, init: WeightInit, descending: bool) -> None:
        super().__init__()
        self.weights = PositionWeights(
            features=features, n_pieces=n_pieces, set_size=None, init=init
        )
        self.descending = descending

    def forward(
        self,
        x: Tensor,
        index: Tensor,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        rows, graph, first = _stacked(x, index, ptr, dim_size)
        # padding has a last place, too, which is not read
        last = torch.nn.functional.pad(first.diff() - 1, (0, 1)).clamp(min=1)
        place = torch.arange(graph.shape[-1], device=x.device) - first.gather(-1, graph)
        weights = self.weights.at(place.to(x.dtype) / last.gather(-1, graph))
        pooled = SortedSum.apply(rows, weights, graph, first, self.descending)
        return pooled.view(*x.shape[:-2], *pooled.shape[-2:])


def _stacked(
    x: Tensor, index: Tensor, ptr: Tensor | None, count: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """All with an axis of seeds, and the first node of each graph where it is not given."""
    if ptr is None:
        ptr = torch.nn.functional.pad(torch.bincount(index, minlength=count or 0).cumsum(0), (1, 0))
    return x.view(-1, *x.shape[-2:]), index.view(-1, index.shape[-1]), ptr.view(-1, ptr.shape[-1])
