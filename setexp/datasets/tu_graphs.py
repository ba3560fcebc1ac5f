"""Graph classification sets of the TU collection and their cross-validation (Thesis, 5.6.5, A.3.4).

All graphs lie end to end on the device. A pass is laid out in one go: nodes and edges of its graphs
in their order, each batch padded to a size that depends on its number of graphs alone, almost
always, so that the folds of a cross-validation have batches of one shape.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.graph_families import Family, draw_graphs
from setexp.datasets.passes import batch_spans
from setexp.datasets.sources import SOURCES
from setexp.datasets.tu_files import REQUIRED, TUGraphs, read_tu, write_tu
from setexp.errors import ConfigError, one_of
from setexp.files import made_once
from setexp.sets import Batch, GraphBatch

_VERSION = 1  # of the procedural graphs
# Standard deviations above its mean size that a batch is padded to; larger ones get one more each.
_ROOM = 2.5


class TUDataset:
    """One data set of the TU collection; before `fold` is called, its first fold.

    Args:
        root: folder that holds `TU/NAME/raw`, and the procedural sets once they are drawn.
        source: `real` reads the files and downloads them through PyTorch Geometric where they are
            missing; `procedural` draws graphs; `auto` is real where there are files.
        name: as the collection has it. sets: what is known of each that may be named: `family`,
            `graphs`, `nodes` (mean), `most` nodes, `features` and `classes`.
        element_dim: features of a node; narrower files are filled up with zeros.
        classes: of graphs.
        graphs: of a procedural set; real ones are used whole.
        degrees: nodes get a constant and their one-hot degree; otherwise attributes and labels, or
            a constant where there are none.
        constant: leave it out beside the degrees if false.
        attributes: leave them out beside the labels if false.
        folds: of the cross-validation.
        shared_shuffle: the folds divide one order of the graphs, so that every graph is tested
            once; otherwise each shuffles anew, as the released code does.
        data_seed: of a procedural set.

    Batches: input `GraphBatch`, target and `aux["label"]` (B,) int64. Splits: `train`, `val`,
    `test`; "val+test" is one after the other.

    Raises:
        ConfigError: unknown source, missing or damaged files, widths that do not fit.
    """

    def __init__(
        self,
        *,
        root: str,
        source: str,
        name: str,
        sets: Mapping[str, Mapping[str, Any]],
        element_dim: int,
        classes: int,
        graphs: int,
        degrees: bool,
        constant: bool,
        attributes: bool,
        folds: int,
        shared_shuffle: bool,
        data_seed: int,
    ) -> None:
        one_of("dataset.source", source, SOURCES)
        if folds < 3:
            raise ConfigError(f"dataset.folds={folds}: test, validation and training need 3")
        folder = Path(root).expanduser() / "TU" / name / "raw"
        found = any((folder / f"{name}_{part}.txt").is_file() for part in REQUIRED)
        self.source = "real" if source == "real" or (source == "auto" and found) else "procedural"
        if self.source == "procedural":
            folder = _drawn(Path(root), name, sets[name], graphs, data_seed)
        elif not found:
            _download(folder, name)
        try:
            data = read_tu(folder, name, attributes=attributes)
        except ConfigError as error:
            remedy = "put the whole data set there, or set dataset.source=procedural"
            if self.source == "procedural":
                remedy = f"delete {folder.parent}, and it is drawn again"
            raise ConfigError(f"{error}; {remedy}") from None
        x = _features(data, degrees, constant)
        if x.shape[1] > element_dim:
            raise ConfigError(
                f"dataset.element_dim={element_dim}: nodes of {folder} have {x.shape[1]} features"
            )
        if int(data.labels.max()) + 1 != classes:
            raise ConfigError(
                f"dataset.classes={classes}: {folder} has {int(data.labels.max()) + 1} classes"
            )
        if len(data.sizes) < 2 * folds:
            raise ConfigError(f"dataset.folds={folds}: too many for {len(data.sizes)} graphs")
        self.folds, self.shared_shuffle = folds, shared_shuffle
        self.fingerprint = _fingerprint(data, name, folds, shared_shuffle)
        self._lay_out(data, np.pad(x, ((0, 1), (0, element_dim - x.shape[1]))))
        self._seed, self._rows = 0, _split(len(data.sizes), 0, 0, folds, shared_shuffle)

    def _lay_out(self, data: TUGraphs, x: np.ndarray) -> None:
        count = len(data.sizes)
        first = np.cumsum(data.sizes) - data.sizes
        graph = np.repeat(np.arange(count), data.sizes)
        degree = np.bincount(data.edges[:, 0], minlength=len(graph))
        edges = np.bincount(graph[data.edges[:, 0]], minlength=count)
        self._host = {"nodes": data.sizes, "edges": edges}
        self._moments = {k: (float(v.mean()), float(v.std())) for k, v in self._host.items()}
        arrays = {
            "x": x,  # the last row is padding's
            "degree": np.append(degree, 0),
            "node": np.append(first, len(graph)),
            "edge": np.append(np.cumsum(edges) - edges, len(data.edges)),
            "neighbour": np.append(data.edges[:, 1] - first[graph[data.edges[:, 1]]], 0),
            "label": np.append(data.labels, 0),
        }
        self._data = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
        self.statistics = {
            "graphs": float(count),
            "classes": float(data.labels.max() + 1),
            "mean_nodes": float(data.sizes.mean()),
            "max_nodes": float(data.sizes.max()),
        }

    def to(self, device: torch.device) -> TUDataset:
        """Move all graphs; batches appear on this device from now on."""
        self._data = {k: v.to(device) for k, v in self._data.items()}
        return self

    def for_run(self, seed: int) -> TUDataset:
        """The folds of one repeat."""
        return self._with(seed, 0)

    def fold(self, index: int) -> TUDataset:
        """One of the folds."""
        return self._with(self._seed, index)

    def _with(self, seed: int, fold: int) -> TUDataset:
        other = copy.copy(self)
        other._seed = seed
        count = len(self._host["nodes"])
        other._rows = _split(count, seed, fold, self.folds, self.shared_shuffle)
        return other

    def sizes(self, split: str) -> int:
        """Graphs in one pass over a split."""
        return len(self._graphs(split))

    def batches(
        self,
        split: str,
        batch_size: int,
        generator: torch.Generator,
        *,
        start: int = 0,
        shuffle: bool,
        drop_last: bool,
    ) -> Iterator[Batch]:
        """One pass."""
        rows = self._graphs(split)
        if shuffle:
            order = torch.randperm(len(rows), generator=generator, device=generator.device)
            rows = rows[order.cpu().numpy()]
        parts = [rows[span] for span in batch_spans(len(rows), batch_size, start, drop_last)]
        return self._produce(parts) if parts else iter(())

    def _produce(self, parts: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Batches of the given graphs, laid out together but for features, which may be many; each
        ends in a segment of padding."""
        data, device, count = self._data, self._data["x"].device, len(self._host["nodes"])
        graphs = _sent([np.append(p, count) for p in parts], device)
        place = _sent([np.arange(len(p) + 1) for p in parts], device)
        nodes, edges = (self._lengths(kind, parts) for kind in ("nodes", "edges"))
        first = _sent([np.cumsum(n) - n for n in nodes], device)
        node, of = _places(data["node"], graphs, nodes)
        graph = place.index_select(0, of)
        edge = torch.nn.functional.pad(data["degree"].index_select(0, node).cumsum(0), (1, 0))
        entry, of = _places(data["edge"], graphs, edges)
        offset = torch.where(graphs == count, 0, first)
        neighbour = data["neighbour"].index_select(0, entry) + offset.index_select(0, of)
        label = data["label"].index_select(0, graphs)
        a = b = c = 0
        for n, e in zip(nodes, edges, strict=True):
            i, j, k = a + len(n), b + int(n.sum()), c + int(e.sum())
            x, own = data["x"].index_select(0, node[b:j]), edge[b : j + 1]
            target = label[a : i - 1]
            yield Batch(
                GraphBatch(x, graph[b:j], first[a:i], neighbour[c:k], own - own[:1]),
                target,
                {"label": target},
            )
            a, b, c = i, j, k

    def _lengths(self, kind: str, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Nodes or edges of each graph of the batches, and of their padding."""
        sizes, (mean, deviation), lengths = self._host[kind], self._moments[kind], []
        for part in parts:
            own, n = sizes[part], len(part)
            total = int(own.sum())
            # of the sum over so many of the set's graphs, none twice
            spread = deviation * (n * (len(sizes) - n) / (len(sizes) - 1)) ** 0.5
            room, step = math.ceil(n * mean + _ROOM * spread), max(16, math.ceil(spread))
            room += max(0, -((room - total) // step)) * step
            lengths.append(np.append(own, room - total))
        return lengths

    def _graphs(self, split: str) -> np.ndarray:
        parts = split.split("+")
        if not set(parts) <= self._rows.keys():
            raise ConfigError(f"split {split}: graphs have train, val and test")
        return np.concatenate([self._rows[part] for part in parts])


def _sent(parts: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Arrays one after the other on a device, for which nothing waits."""
    whole = torch.from_numpy(np.concatenate(parts))
    whole = whole.pin_memory() if device.type == "cuda" else whole
    return whole.to(device, non_blocking=True)


def _places(begin: Tensor, graphs: Tensor, lengths: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Places of all nodes or edges of some graphs in the whole data, and which of the graphs each
    is of; where a graph begins is given, and last, where all end, which is padding's place."""
    size = _sent(lengths, graphs.device)
    total = int(sum(n.sum() for n in lengths))
    ids = torch.arange(len(graphs), device=graphs.device)
    of = torch.repeat_interleave(ids, size, output_size=total)
    begins = begin.index_select(0, graphs) - size.cumsum(0) + size
    place = torch.arange(total, device=graphs.device) + begins.index_select(0, of)
    return torch.minimum(place, begin[-1]), of


def _split(count: int, seed: int, fold: int, folds: int, shared: bool) -> dict[str, np.ndarray]:
    """Graphs of each split: one part of a random order is tested; the first of the rest, as many as
    the largest part has, validate. Classes are not balanced."""
    # repeats of neighbouring seeds share no order (the released code's seeds for ten folds)
    generator = torch.Generator().manual_seed(seed if shared else seed + folds * fold)
    order = torch.randperm(count, generator=generator).numpy()
    test = np.array_split(order, folds)[fold]
    rest = order[~np.isin(order, test)]
    part = -(-count // folds)
    return {"test": test, "val": rest[:part], "train": rest[part:]}


def _features(data: TUGraphs, degrees: bool, constant: bool) -> np.ndarray:
    count = int(data.sizes.sum())
    one = np.ones((count, 1), dtype=np.float32)
    if not degrees:
        return one if data.features is None else data.features
    degree = np.bincount(data.edges[:, 0], minlength=count)
    one_hot = np.eye(degree.max() + 1, dtype=np.float32)[degree]
    return np.concatenate([one, one_hot], axis=1) if constant else one_hot


def _fingerprint(data: TUGraphs, name: str, folds: int, shared: bool) -> str:
    content = hashlib.blake2b(digest_size=6)
    for array in data:
        content.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    order = "one shuffle" if shared else "a shuffle a fold"
    return f"tu-3 {name} {content.hexdigest()} {folds} folds, {order}"


def _drawn(root: Path, name: str, known: Mapping[str, Any], graphs: int, seed: int) -> Path:
    """Folder of a procedural set, drawn if it is not there."""
    about = {k: known[k] for k in ("classes", "features", "nodes", "most")}
    text = f"{_VERSION} {name} {known['family']} {sorted(about.items())} {graphs} {seed}"
    key = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    folder = root.expanduser() / "TU" / f"procedural-{name}-{key}" / "raw"

    def make() -> None:
        drawn = draw_graphs(
            Family[known["family"]],
            graphs=graphs,
            classes=known["classes"],
            labels=known["features"],
            nodes=known["nodes"],
            most=known["most"],
            seed=seed,
        )
        write_tu(folder, name, **drawn)

    return made_once(folder, make)


def _download(folder: Path, name: str) -> None:
    try:
        with warnings.catch_warnings():  # of what it calls in PyTorch, which is none of the user's
            warnings.simplefilter("ignore", FutureWarning)
            from torch_geometric.datasets import TUDataset as Collection

        Collection(str(folder.parents[1]), name)
    except Exception as error:  # whatever a network or a broken archive raises
        cause = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"dataset.source=real: {name} is not in {folder} and could not be downloaded "
            f"({cause}); put its files there, or set dataset.source=procedural"
        ) from error
