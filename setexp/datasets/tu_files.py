"""Graph data sets as text files, in the format of the TU collection.

`NAME_A.txt` has an edge "i, j" a line, in both directions, nodes counted from 1 through all graphs;
`NAME_graph_indicator.txt` the graph of each node, from 1; `NAME_graph_labels.txt` the class of each
graph; `NAME_node_labels.txt` and `NAME_node_attributes.txt`, where there are any, those of each
node.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from setexp.errors import ConfigError

REQUIRED = ("A", "graph_indicator", "graph_labels")


class TUGraphs(NamedTuple):
    """All graphs of a data set, laid end to end.

    Args:
        sizes: nodes of each graph, (G,).
        edges: (E, 2) from 0, sorted, both directions, neither loops nor repeats.
        labels: class of each graph, (G,), from 0 without gaps.
        features: of nodes, (N, D) float32: attributes, then labels one-hot; None where there are
            neither.
    """

    sizes: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None


def read_tu(folder: Path, name: str, *, attributes: bool = True) -> TUGraphs:
    """Read a data set; what PyTorch Geometric's `read_tu_data` makes of the same files.

    Args:
        folder: holds the files. name: they begin with it.
        attributes: read those of nodes; otherwise their labels alone.

    Raises:
        ConfigError: a file is missing, truncated or contradicts another; a graph has no nodes. What
            to do about it is the caller's to say.
    """
    parts = (*REQUIRED, "node_labels", "node_attributes")
    paths = {part: folder / f"{name}_{part}.txt" for part in parts}
    for part in REQUIRED:
        if not paths[part].is_file():
            raise _damage(paths[part], "is missing")
    graph = _numbers(paths["graph_indicator"], 1)[:, 0]
    labels = _numbers(paths["graph_labels"], 1)[:, 0]
    if np.any(np.diff(graph) < 0) or graph[0] < 1:
        raise _damage(paths["graph_indicator"], "does not list graph after graph from 1")
    if graph[-1] > len(labels):
        text = f"has {len(labels)} lines for {graph[-1]} graphs of the indicator: truncated"
        raise _damage(paths["graph_labels"], text)
    sizes = np.bincount(graph, minlength=len(labels) + 1)[1:]
    if not sizes.all():
        raise _damage(paths["graph_indicator"], f"gives graph {int(sizes.argmin()) + 1} no nodes")
    edges = _edges(paths["A"], graph)
    features = []
    for part, kind in (("node_attributes", float), ("node_labels", int)):
        if not paths[part].is_file() or (part == "node_attributes" and not attributes):
            continue
        values = _numbers(paths[part], None, kind)
        if len(values) != len(graph):
            text = f"has {len(values)} lines for {len(graph)} nodes: truncated"
            raise _damage(paths[part], text)
        columns = [_one_hot(column) for column in values.T] if kind is int else [values]
        features += [column.astype(np.float32) for column in columns]
    return TUGraphs(
        sizes,
        edges,
        np.unique(labels, return_inverse=True)[1],
        np.concatenate(features, axis=1) if features else None,
    )


def write_tu(
    folder: Path,
    name: str,
    *,
    sizes: np.ndarray,
    edges: np.ndarray,
    labels: np.ndarray,
    node_labels: np.ndarray | None,
) -> None:
    """Write a data set, all its files or none.

    Args:
        folder: made here. edges: (E, 2) from 0, both directions. node_labels: (N,), or none.

    Raises:
        OSError: they cannot be written, or are there already.
    """
    tables = {
        "A": edges + 1,
        "graph_indicator": np.repeat(np.arange(len(sizes)), sizes)[:, None] + 1,
        "graph_labels": labels[:, None],
    }
    if node_labels is not None:
        tables["node_labels"] = node_labels[:, None]
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        for part, table in tables.items():
            np.savetxt(scratch / f"{name}_{part}.txt", table, fmt="%d", delimiter=", ")
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _edges(path: Path, graph: np.ndarray) -> np.ndarray:
    """Edges from 0, sorted by their first node."""
    edges, count = _numbers(path, 2) - 1, len(graph)
    wrong = edges[(edges < 0) | (edges >= count)]
    if len(wrong):
        text = f"names node {wrong[0] + 1} of {count}; this or the indicator is truncated"
        raise _damage(path, text)
    if np.any(graph[edges[:, 0]] != graph[edges[:, 1]]):
        raise _damage(path, "joins two graphs")
    edges = edges[edges[:, 0] != edges[:, 1]]
    codes, back = (np.unique(a * count + b) for a, b in (edges.T, edges.T[::-1]))
    if not np.array_equal(codes, back):
        code = int(np.setxor1d(codes, back)[0])
        pair = f"{code // count + 1}, {code % count + 1}"
        raise _damage(path, f"has one direction of {pair} alone: truncated")
    return np.stack([codes // count, codes % count], axis=1)


def _numbers(path: Path, columns: int | None, kind: type = int) -> np.ndarray:
    """A file's lines as rows."""
    try:
        lines = io.StringIO(path.read_text().strip() or "nothing")
        table: np.ndarray = np.loadtxt(lines, delimiter=",", dtype=kind, ndmin=2, comments=None)
    except (OSError, ValueError) as error:
        reason = str(error).split(";")[0]
        raise _damage(path, f"is truncated or no table of numbers ({reason})") from None
    if columns is not None and table.shape[1] != columns:
        text = f"has {len(table)} lines of {table.shape[1]} numbers, expected {columns}"
        raise _damage(path, text)
    return table


def _one_hot(column: np.ndarray) -> np.ndarray:
    """As PyTorch Geometric does, codes that never occur have a column as well."""
    return np.eye(int(np.ptp(column)) + 1, dtype=np.float32)[column - column.min()]


def _damage(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path}: {what}")
