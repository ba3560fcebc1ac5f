"""Graph isomorphism network (Xu et al.) as the thesis uses it (5.6.5, A.3.4)."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn

from setexp.ops.norm import NormedLayer, Rows, rows
from setexp.ops.segments import NeighbourSum, Segments, segments
from setexp.sets import Encoding, GraphBatch


class Epsilon(Enum):
    """What a node counts itself beyond once: its number of features, as the released code does, or
    nothing (GIN-0, as the text says)."""

    in_channels = "in_channels"
    zero = "zero"


class GINLayer(nn.Module):
    """Neighbours and node summed, then linear, ReLU, batch norm, twice (Thesis, A.3.4).

    Args:
        features, width: of a node before and after. eps: see `Epsilon`.

    Shapes: x (S, N, features) to (S, N, width), with S = 1 of one seed; `neighbours` of each node;
    `given` are the nodes that are no padding.
    """

    def __init__(self, features: int, width: int, *, eps: Epsilon) -> None:
        super().__init__()
        self.own = 1.0 + (features if Epsilon(eps) is Epsilon.in_channels else 0)
        self.first, self.second = NormedLayer(features, width), NormedLayer(width, width)

    def forward(self, x: Tensor, neighbours: Segments, given: Rows) -> Tensor:
        x = NeighbourSum.apply(x, neighbours, self.own)
        return self.second(self.first(x, given), given)


class GIN(nn.Module):
    """Layers of message passing, the outputs of all of which are read out (jumping knowledge).

    The readout sees the layers' outputs side by side: it acts on each feature by itself, so that
    this is a readout per layer, concatenated.

    Args:
        features: of a node. width: of all layers. layers: how many. eps: see `Epsilon`.
        readout: nodes to graphs; see `setexp.encoders.readout`.

    Shapes: a `GraphBatch` to an `Encoding` with z (B, layers * width). A leading axis of seeds may
    be on all, parameters included: a stack is one large batch of graphs, without `vmap`.
    """

    stacks_itself = True

    def __init__(
        self, *, features: int, width: int, layers: int, eps: Epsilon, readout: nn.Module
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GINLayer(width if i else features, width, eps=eps) for i in range(layers)
        )
        self.readout = readout

    def forward(self, graphs: GraphBatch) -> Encoding:
        alone = graphs.x.dim() == 2
        one = (t.unsqueeze(0) if alone else t for t in graphs)
        x, graph, first, neighbour, edge = one
        given = rows(first[:, -1:], x.shape[1], x.dtype)
        neighbours = segments(neighbour, edge, x.shape[1])
        outputs = []
        for layer in self.layers:
            x = layer(x, neighbours, given)
            outputs.append(x)
        z = self.readout(torch.cat(outputs, dim=-1), graph, first)
        return Encoding(z=z.squeeze(0) if alone else z)
