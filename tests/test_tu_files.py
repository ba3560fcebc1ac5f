"""Graph files: what is written is read, as PyTorch Geometric reads it; damage is one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from setexp.datasets.graph_families import Family, draw_graphs
from setexp.datasets.tu_files import TUGraphs, read_tu, write_tu
from setexp.errors import ConfigError


def drawn(family: str = "molecules", labels: int = 5, graphs: int = 12) -> dict[str, np.ndarray]:
    return draw_graphs(
        Family[family], graphs=graphs, classes=3, labels=labels, nodes=12, most=30, seed=0
    )  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tu(tmp_path / "raw", "SET", **drawn())
    return tmp_path / "raw"


@pytest.mark.parametrize("family", ["molecules", "circles", "threads"])
def test_what_is_written_is_read(family: str, tmp_path: Path) -> None:
    data = drawn(family)
    write_tu(tmp_path / "raw", "SET", **data)
    read = read_tu(tmp_path / "raw", "SET")
    for name in ("sizes", "edges", "labels"):
        assert np.array_equal(getattr(read, name), data[name]), name
    if family != "molecules":
        assert read.features is None
        return
    assert np.array_equal(read.features.argmax(1), data["node_labels"])
    assert np.array_equal(read.features.sum(1), np.ones(len(read.features)))


@pytest.mark.parametrize("attributes", [False, True])
def test_it_is_what_pytorch_geometric_reads(folder: Path, attributes: bool) -> None:
    from torch_geometric.io import read_tu_data

    if attributes:
        count = len(read_tu(folder, "SET").features)
        values = np.random.default_rng(0).random((count, 2)).round(3)
        np.savetxt(folder / "SET_node_attributes.txt", values, fmt="%.3f", delimiter=", ")
    ours, (theirs, slices, _) = read_tu(folder, "SET"), read_tu_data(str(folder), "SET")
    assert np.array_equal(ours.features, theirs.x.numpy())
    labels = read_tu(folder, "SET", attributes=False).features
    assert np.array_equal(labels, ours.features[:, 2 * attributes :])
    assert np.array_equal(ours.labels, theirs.y.numpy())
    start = np.cumsum(ours.sizes) - ours.sizes
    graph = np.repeat(np.arange(len(start)), ours.sizes)
    assert np.array_equal(ours.edges - start[graph[ours.edges]], theirs.edge_index.numpy().T)
    assert np.array_equal(np.cumsum(ours.sizes), slices["x"][1:].numpy())


def test_loops_and_repeats_are_left_out(folder: Path) -> None:
    before, path = read_tu(folder, "SET"), folder / "SET_A.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["3, 3", lines[0], *lines]) + "\n")
    assert np.array_equal(read_tu(folder, "SET").edges, before.edges)


def cut(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")


def cut_within_a_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1][:1] + ","]))


def without_nodes(path: Path) -> None:
    text = "".join(f"{1 + int(line) + (int(line) > 4)}\n" for line in path.read_text().split())
    path.write_text("1\n" + text)


@pytest.mark.parametrize(
    ("part", "damage", "said"),
    [
        ("A", Path.unlink, "is missing"),
        ("graph_indicator", Path.unlink, "is missing"),
        ("graph_labels", Path.unlink, "is missing"),
        ("A", cut, "has one direction of"),
        ("A", cut_within_a_line, "is truncated or no table of numbers"),
        ("A", lambda path: path.write_text(""), "is truncated or no table of numbers"),
        ("A", lambda path: path.write_text("1\n2\n"), "has 2 lines of 1 numbers, expected 2"),
        ("A", lambda path: path.write_text("1, 900\n900, 1\n"), "names node 900 of"),
        ("A", lambda path: path.write_text("0, 1\n1, 0\n"), "names node 0 of"),
        ("A", lambda path: path.write_text("1, 90\n90, 1\n"), "joins two graphs"),
        ("graph_indicator", lambda path: path.write_text("2\n1\n"), "does not list graph after"),
        ("graph_indicator", lambda path: path.write_text("-1\n1\n"), "does not list graph after"),
        ("graph_labels", cut, "has 11 lines for 12 graphs of the indicator: truncated"),
        ("node_labels", cut, "nodes: truncated"),
        ("node_labels", cut_within_a_line, "is truncated or no table of numbers"),
    ],
)
def test_damage_is_one_clear_line(
    folder: Path, part: str, damage: Callable[[Path], object], said: str
) -> None:
    path = folder / f"SET_{part}.txt"
    damage(path)
    with pytest.raises(ConfigError) as caught:
        read_tu(folder, "SET")
    message = str(caught.value)
    assert message.startswith(str(path)) and said in message
    assert "\n" not in message


def test_a_truncated_indicator_is_noticed(folder: Path) -> None:
    cut(folder / "SET_graph_indicator.txt")
    with pytest.raises(ConfigError, match="this or the indicator is truncated"):
        read_tu(folder, "SET")


def test_a_graph_of_an_absurd_number_is_noticed(folder: Path) -> None:
    (folder / "SET_graph_indicator.txt").write_text("1\n999999999999\n")  # no room for as many
    with pytest.raises(ConfigError, match="has 12 lines for 999999999999 graphs"):
        read_tu(folder, "SET")


def test_a_graph_without_nodes_is_named(tmp_path: Path) -> None:
    data = drawn()
    data["sizes"] = np.insert(data["sizes"], 4, 0)
    data["labels"] = np.insert(data["labels"], 4, 0)
    write_tu(tmp_path / "raw", "SET", **data)
    with pytest.raises(ConfigError, match=r"SET_graph_indicator\.txt: gives graph 5 no nodes"):
        read_tu(tmp_path / "raw", "SET")


def test_a_second_writer_leaves_the_first_ones_files(folder: Path) -> None:
    before = read_tu(folder, "SET")
    with pytest.raises(OSError, match="not empty"):
        write_tu(folder, "SET", **drawn("threads"))
    assert same(read_tu(folder, "SET"), before)
    assert [p.name for p in folder.parent.iterdir()] == ["raw"]


def same(a: TUGraphs, b: TUGraphs) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("family", "nodes", "most"),
    [("molecules", 18, 28), ("circles", 20, 136), ("threads", 430, 3063)],
)
def test_families_have_the_sizes_asked_for(family: str, nodes: float, most: int) -> None:
    data = draw_graphs(
        Family[family], graphs=300, classes=2, labels=3, nodes=nodes, most=most, seed=1
    )
    sizes, edges = data["sizes"], data["edges"]
    assert sizes.max() == most and abs(sizes.mean() / nodes - 1) < 0.15
    assert np.bincount(edges[:, 0], minlength=sizes.sum()).min() > 0  # everyone knows someone
    again = draw_graphs(
        Family[family], graphs=300, classes=2, labels=3, nodes=nodes, most=most, seed=1
    )
    assert np.array_equal(again["edges"], edges)


@pytest.mark.parametrize("family", ["molecules", "circles", "threads"])
def test_classes_differ_and_overlap(family: str) -> None:
    """Edges a node of the first and the last class: means apart, single graphs not."""
    data = draw_graphs(Family[family], graphs=400, classes=2, labels=3, nodes=30, most=90, seed=2)
    graph = np.repeat(np.arange(400), data["sizes"])
    pairs = np.bincount(graph[data["edges"][:, 0]], minlength=400)
    density = pairs / (data["sizes"] if family == "molecules" else data["sizes"] ** 1.5)
    if family == "threads":  # trees have as many edges; hubs tell
        degree = np.bincount(data["edges"][:, 0])
        density = np.maximum.reduceat(degree, np.cumsum(data["sizes"]) - data["sizes"])
        density = density / data["sizes"]
    a, b = (density[data["labels"] == c] for c in (0, 1))
    gap = abs(a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2)
    assert 0.3 < gap < 4
