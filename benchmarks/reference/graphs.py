"""Graph classification as a first implementation would have it: PyTorch Geometric's loader, layers
and padding, an FSPool for each layer's output.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference import sets


class Network(nn.Module):
    """Five GIN layers, each pooled on padded graphs, and a classifier (Thesis, A.3.4)."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        from torch_geometric.nn import GINConv

        super().__init__()
        self.layers = nn.ModuleList()
        for inner, outer in pairwise([features, *[width] * 5]):
            parts = [nn.Linear(inner, outer), nn.ReLU(), nn.BatchNorm1d(outer)]
            parts += [nn.Linear(outer, outer), nn.ReLU(), nn.BatchNorm1d(outer)]
            self.layers.append(GINConv(nn.Sequential(*parts), eps=inner))
        self.pools = nn.ModuleList(sets.FSPool(width, 5, True, False) for _ in range(5))
        self.head = nn.Sequential(nn.BatchNorm1d(5 * width), nn.Linear(5 * width, width), nn.ReLU(),
                                  nn.Dropout(0.0), nn.Linear(width, classes))  # fmt: skip

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        from torch_geometric.utils import to_dense_batch

        pooled = []
        for layer, pool in zip(self.layers, self.pools, strict=True):
            x = layer(x, edge_index)
            padded, mask = to_dense_batch(x, batch)
            pooled.append(pool(padded, mask.to(x.dtype))[0])
        return self.head(torch.cat(pooled, dim=1))


def epoch(dataset: Any, device: torch.device) -> Callable[[], None]:
    """One epoch of the training graphs and an evaluation of the others, batches of 32, width 16."""
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader

    def graphs(split: str) -> list[Any]:
        found = []
        one = dataset.batches(split, 1, torch.Generator(), shuffle=False, drop_last=False)
        for (x, _, first, neighbour, edge), label, _ in one:
            count = int(first[-1])
            target = torch.arange(count).repeat_interleave(edge.diff()[:count])
            pairs = torch.stack([neighbour[: len(target)], target])
            found.append(Data(x=x[:count], edge_index=pairs, y=label))
        return found

    training = graphs("train")
    network = Network(training[0].x.shape[1], 16, 2).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    train = DataLoader(training, 32, shuffle=True)
    others = [DataLoader(graphs(split), 128) for split in ("val", "test")]

    def run() -> None:
        network.train()
        for batch in train:
            batch = batch.to(device)
            optimizer.zero_grad()
            F.cross_entropy(network(batch.x, batch.edge_index, batch.batch), batch.y).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for split in others:
                right = 0
                for batch in split:
                    batch = batch.to(device)
                    scores = network(batch.x, batch.edge_index, batch.batch)
                    right += int((scores.argmax(1) == batch.y).sum())

    return run
