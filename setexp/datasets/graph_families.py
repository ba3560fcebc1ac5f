"""Procedural graphs: stand-ins for the data sets of the TU collection.

Sizes follow the real sets' mean and largest number of nodes. Classes differ in structure, and in
labels where there are any, but overlap: no single graph is sure of its class.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

_LEAST = 4  # nodes of a graph
_OVERLAP = 0.15  # share of graphs that look like one of any class


class Family(Enum):
    """How graphs come about.

    molecules: chains with branches and rings, labelled atoms (bioinformatics).
    circles: a person and groups of others who all know each other (IMDB, COLLAB).
    threads: who answered whom, around a few who are answered most (REDDIT).
    """

    molecules = "molecules"
    circles = "circles"
    threads = "threads"


def draw_graphs(
    family: Family, *, graphs: int, classes: int, labels: int, nodes: float, most: int, seed: int
) -> dict[str, Any]:
    """Draw a data set: `sizes`, `edges`, `labels` and `node_labels` of `setexp.datasets.tu_files`.

    Args:
        graphs, classes, labels: how many; labels are those of nodes, without 1 or more there are
            none.
        nodes, most: mean and largest number of nodes.
    """
    random = np.random.default_rng([seed, graphs, most])
    spread = 0.35 if family is Family.molecules else 0.7  # of the logarithm of the sizes
    wanted = nodes * np.exp(spread * random.standard_normal(graphs) - spread**2 / 2)
    sizes = np.clip(np.round(wanted), _LEAST, most).astype(np.int64)
    sizes[random.integers(graphs)] = most
    of = np.arange(graphs) % classes
    looks = np.where(random.random(graphs) < _OVERLAP, random.integers(classes, size=graphs), of)
    graph = np.repeat(np.arange(graphs), sizes)
    place = np.arange(len(graph)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kind = (looks / max(classes - 1, 1))[graph]  # 0 in the first class, 1 in the last
    draw = {Family.molecules: _molecules, Family.circles: _circles, Family.threads: _threads}
    child, parent = draw[family](place, kind, random)
    edges = np.concatenate([np.stack([child, parent], 1), np.stack([parent, child], 1)])
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    atoms = None
    if family is Family.molecules:
        share = 0.5 ** np.arange(labels)
        tilt = np.arange(labels) % 2 * (kind[:, None] - 0.5)  # a class has more of every other one
        running = np.cumsum(share * np.exp(tilt), axis=1)
        atoms = (random.random((len(graph), 1)) * running[:, -1:] > running).sum(1)
    return {"sizes": sizes, "edges": edges, "labels": of, "node_labels": atoms}


Edges = tuple[np.ndarray, np.ndarray]


def _molecules(place: np.ndarray, kind: np.ndarray, random: np.random.Generator) -> Edges:
    """A node hangs on the one before, or on one a little earlier; some close a ring of 5 or 6."""
    node = np.arange(len(place))
    back = np.where(random.random(len(place)) < 0.25, random.integers(2, 5, len(place)), 1)
    chain = node - np.minimum(back, place)
    length = np.where(random.random(len(place)) < 0.3 + 0.4 * kind, 5, 4)
    closes = (random.random(len(place)) < 0.08 + 0.1 * kind) & (place >= length)
    return np.append(node, node[closes]), np.append(chain, (node - length)[closes])


def _threads(place: np.ndarray, kind: np.ndarray, random: np.random.Generator) -> Edges:
    """A node answers one of the first few, of which the classes have 1 to 5, or any before it."""
    hubs = np.minimum(1 + np.round(4 * kind), np.maximum(place, 1))
    to_hub = random.random(len(place)) < 0.75 - 0.3 * kind
    target = np.floor(random.random(len(place)) * np.where(to_hub, hubs, place)).astype(np.int64)
    node = np.arange(len(place))
    return node, node - place + np.minimum(target, np.maximum(place - 1, 0))


def _circles(place: np.ndarray, kind: np.ndarray, random: np.random.Generator) -> Edges:
    """Everyone knows the first; others come in groups, fewer and larger ones in the last class."""
    starts = (random.random(len(place)) < 0.3 - 0.2 * kind) | (place <= 1)
    group = np.cumsum(starts)
    first = np.flatnonzero(starts)[group - 1]
    earlier = np.arange(len(place)) - first  # in the same group
    a = np.repeat(np.arange(len(place)), earlier)
    rank = np.arange(len(a)) - np.repeat(np.cumsum(earlier) - earlier, earlier)
    b = np.repeat(first, earlier) + rank
    node = np.arange(len(place))
    return np.append(a, node), np.append(b, node - place)
