"""Sums and orders within the segments of one long list of rows, as a batch of graphs holds nodes.

Everything here has a leading axis of seeds, of length 1 where there is none. A stack of S batches
is laid end to end and worked on in one call, in which each segment keeps its own order: a seed gets
the same bits alone and in a stack.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from setexp.ops.hard_sort import sortable_bits


class Segments(NamedTuple):
    """Which rows are summed, for all seeds end to end.

    Args:
        rows: of (S * N) rows, segment after segment and seed after seed, each with its padding.
        first: place of each segment's first one; the last segment of a seed is its padding.
        seeds: S.
    """

    rows: Tensor
    first: Tensor
    seeds: int


def segments(index: Tensor, first: Tensor, nodes: int) -> Segments:
    """Segment b of a seed is rows index[first[b] : first[b + 1]] of its `nodes` rows.

    Shapes: index (S, E), first (S, B + 1); from first[B] on there is padding.
    """
    seed = torch.arange(len(index), device=index.device).unsqueeze(-1)
    rows = (index + seed * nodes).flatten()
    return Segments(rows, (first + seed * index.shape[-1]).flatten(), len(index))


def _sums(x: Tensor, of: Segments) -> Tensor:
    """Sums of rows x (S, N, C) in all segments: (S, B, C)."""
    sums = torch.embedding_bag(x.reshape(-1, x.shape[-1]), of.rows, of.first)[0]
    return sums.view(of.seeds, -1, x.shape[-1])[:, :-1]


class NeighbourSum(torch.autograd.Function):
    """Sum over the neighbours of each node, plus `own` times the node itself.

    Shapes: x (S, N, C) to the same; segments are the neighbours of each node. Graphs are
    undirected, so that the gradient is the same sum.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Segments, own: float) -> Tensor:
        ctx.neighbours, ctx.own = neighbours, own
        return torch.add(_sums(x, neighbours), x, alpha=own)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return NeighbourSum.apply(grad, ctx.neighbours, ctx.own), None, None


class GraphSum(torch.autograd.Function):
    """Sum over the nodes of each graph.

    Shapes: x (S, N, C), graph (S, N) and first (S, B + 1) to (S, B, C); see `GraphBatch`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Tensor, first: Tensor) -> Tensor:
        ctx.save_for_backward(graph)
        return _graph_sums(x, first)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _to_nodes(grad, *ctx.saved_tensors), None, None


class SortedSum(torch.autograd.Function):
    """Sum over each graph's sorted nodes, each feature sorted by itself, with weights per place.

    Weights are carried to nodes, which keep their place: sorted features are never formed.

    Shapes: x (S, N, C), weights (S, C, N) of the places of all graphs, graph (S, N) and first
    (S, B + 1) to (S, B, C); see `GraphBatch`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, graph: Tensor, first: Tensor, descending: bool
    ) -> Tensor:
        whole = torch.compiler.is_compiling()  # a step's graph is to have it as one operator
        order = (_order_operator if whole else order_within)(x, graph, descending)
        carried = torch.empty_like(weights).scatter_(-1, order, weights).mT.contiguous()
        ctx.save_for_backward(x, graph, carried, order)
        return _graph_sums(x * carried, first)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, graph, carried, order = ctx.saved_tensors
        grad = _to_nodes(grad, graph)
        by_weight = (grad * x).mT.contiguous().gather(-1, order)
        return grad.mul_(carried), by_weight, None, None, None


def _graph_sums(x: Tensor, first: Tensor) -> Tensor:
    rows = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    return _sums(x, segments(rows, first, x.shape[1])).contiguous()


def _to_nodes(values: Tensor, graph: Tensor) -> Tensor:
    """Each node's row of values per graph (S, B, C), zeros of padding: (S, N, C)."""
    s, b, c = values.shape
    rows = torch.cat([values, values.new_zeros(s, 1, c)], dim=1).view(-1, c)
    seed = torch.arange(s, device=graph.device).unsqueeze(-1)
    return rows.index_select(0, (graph + seed * (b + 1)).flatten()).view(s, -1, c)


def order_within(x: Tensor, graph: Tensor, descending: bool) -> Tensor:
    """Which node is at each place when each feature is sorted within every graph.

    Graphs keep their places, as does padding; equal numbers keep theirs. Shapes: x (S, N, C), graph
    (S, N) to int64 (S, C, N). On a CPU this is NumPy, many times faster than `torch.sort`.
    """
    s, n, c = x.shape
    if x.device.type != "cpu" or x.dtype == torch.float64:
        by_value = torch.argsort(x.mT, dim=-1, descending=descending, stable=True)
        graphs = graph.unsqueeze(1).expand(s, c, n).gather(-1, by_value)
        return by_value.gather(-1, torch.argsort(graphs, dim=-1, stable=True))
    bits = int(n).bit_length()  # of a key hold the node; 32 above them its number, above its graph
    order = np.empty((s, c, n), dtype=np.int64)
    places = (graph.numpy() << (32 + bits)) | np.arange(n)
    for keys, place, rows in zip(order, places, x.float().numpy(), strict=True):
        np.multiply(sortable_bits(rows, descending).T, 1 << bits, out=keys, dtype=np.int64)
        keys += place
        keys.sort(-1)
        keys &= (1 << bits) - 1
    return torch.from_numpy(order)


_order_operator = torch.library.custom_op("setexp::order_within", order_within, mutates_args=())


@_order_operator.register_fake
def _(x: Tensor, graph: Tensor, descending: bool) -> Tensor:
    return torch.empty(x.mT.shape, dtype=torch.int64, device=x.device)
