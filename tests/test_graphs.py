"""Graphs: batches, readouts, message passing, normalisation and dropout, on any number of seeds."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import complaint, config
from torch import Tensor, nn

from setexp.build import build
from setexp.datasets.tu_files import read_tu
from setexp.datasets.tu_graphs import TUDataset
from setexp.encoders.fspool import FSPool
from setexp.encoders.gin import GIN, Epsilon
from setexp.encoders.readout import FSPoolReadout, SumReadout
from setexp.errors import ConfigError
from setexp.ops.dropout import Dropout
from setexp.ops.norm import BatchNorm, NormedLayer, rows
from setexp.ops.position_weights import WeightInit
from setexp.ops.segments import GraphSum, NeighbourSum, SortedSum, order_within, segments

SIZES = [3, 1, 6, 2]


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def dataset(root: Path, *overrides: str) -> TUDataset:
    nodes = config("experiment=graphs_bio", f"paths.data={root}", "dataset.graphs=40", *overrides)
    return build(nodes["dataset"], "dataset")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw(data: TUDataset, root: Path) -> Any:
    (folder,) = (root / "TU").glob("procedural-MUTAG-*/raw")
    return read_tu(folder, "MUTAG")


# Batches


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_batches_hold_the_files_graphs(batch_size: int, tmp_path: Path) -> None:
    data = dataset(tmp_path)
    files, rows = raw(data, tmp_path), data._rows["train"]
    start = np.cumsum(files.sizes) - files.sizes
    at = 0
    for batch in data.batches("train", batch_size, generator(), shuffle=False, drop_last=False):
        x, graph, first, neighbour, edge = batch.input
        count = len(batch.target)
        assert torch.equal(batch.target, batch.aux["label"]) and len(first) == count + 1
        for i, row in enumerate(rows[at : at + count]):
            a, z, origin = int(first[i]), int(first[i + 1]), start[row]
            own = slice(origin, origin + files.sizes[row])
            assert int(batch.target[i]) == files.labels[row]
            assert np.array_equal(x[a:z].numpy(), files.features[own])
            assert (graph[a:z] == i).all()
            inside = (files.edges[:, 0] >= own.start) & (files.edges[:, 0] < own.stop)
            found = [
                (node - a, int(other) - a)
                for node in range(a, z)
                for other in neighbour[edge[node] : edge[node + 1]]
            ]
            assert found == [tuple(pair) for pair in (files.edges[inside] - origin).tolist()]
        nodes = int(first[-1])
        assert (graph[nodes:] == count).all() and not x[nodes:].any()
        assert (edge[nodes:] == edge[-1]).all() and int(edge[-1]) <= len(neighbour)
        assert int(neighbour.max()) < len(x)
        at += count
    assert at == len(rows) == data.sizes("train")


def test_batches_mostly_have_one_shape(tmp_path: Path) -> None:
    data = dataset(tmp_path, "dataset.graphs=188")
    shapes = [
        (batch.input.x.shape, batch.input.neighbour.shape)
        for fold in range(10)
        for batch in data.fold(fold).batches(
            "train", 32, generator(fold), shuffle=True, drop_last=True
        )
    ]
    most = max(set(shapes), key=shapes.count)
    assert shapes.count(most) > 0.8 * len(shapes) == 0.8 * 40


@pytest.mark.parametrize("shared", [True, False])
def test_folds(shared: bool, tmp_path: Path) -> None:
    """One shuffle divides the graphs among ten test sets; a shuffle a fold does not."""
    data = dataset(tmp_path, f"dataset.shared_shuffle={shared}", "dataset.graphs=43").for_run(9)
    folds = [data.fold(k)._rows for k in range(10)]
    for fold in folds:
        everything = np.concatenate([fold["test"], fold["val"], fold["train"]])
        assert sorted(everything) == list(range(43))
        assert len(fold["val"]) == 5  # one of the ten parts, not a tenth of the other nine (A.3.4)
    assert [len(fold["test"]) for fold in folds] == [5, 5, 5, 4, 4, 4, 4, 4, 4, 4]
    tested = np.concatenate([fold["test"] for fold in folds])
    assert (len(set(tested)) == 43) == shared
    other = data.for_run(10).fold(0)._rows["test"]
    assert not np.array_equal(np.sort(other), np.sort(folds[0]["test"]))
    assert data.sizes("val+test") == data.sizes("val") + data.sizes("test")


def test_no_fold_of_a_repeat_is_one_of_another(tmp_path: Path) -> None:
    data = dataset(tmp_path, "dataset.graphs=43")
    rows = [data.for_run(s).fold(k)._rows["test"] for s in range(10) for k in range(10)]
    assert len({tuple(sorted(tested)) for tested in rows}) == 100


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset.name=MUTTAG"], "dataset.name=MUTTAG: choose one of MUTAG, PTC_MR"),
        (["dataset.source=maybe"], "dataset.source=maybe: choose one of auto, real, procedural"),
        (["dataset.element_dim=3"], "dataset.element_dim=3: nodes of"),
        (["dataset.classes=4"], "dataset.classes=4:"),
        (["dataset.folds=2"], "dataset.folds=2: test, validation and training need 3"),
        (["dataset.folds=30"], "dataset.folds=30: too many for 24 graphs"),
    ],
)
def test_bad_settings_are_one_clear_line(overrides: list[str], said: str, tmp_path: Path) -> None:
    where = (f"paths.data={tmp_path}", f"paths.outputs={tmp_path}/out")
    message = complaint("experiment=graphs_bio", "scale=smoke", *where, *overrides)
    assert said in message and "\n" not in message
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"cannot write /dev/null/x/TU/procedural-.*: Not a dir"):
        dataset(Path("/dev/null/x"))


def test_a_damaged_procedural_set_says_what_to_delete(tmp_path: Path) -> None:
    dataset(tmp_path)
    (path,) = tmp_path.glob("TU/procedural-*/raw/*_A.txt")
    path.write_text("")
    with pytest.raises(ConfigError, match=f"table of numbers .*; delete {path.parents[1]}, and"):
        dataset(tmp_path)
    shutil.rmtree(path.parents[1])
    dataset(tmp_path)
    left = {item.name for item in path.parents[1].iterdir()}
    assert left == {"raw", ".raw.lock"}


def test_incomplete_real_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "TU/MUTAG/raw").mkdir(parents=True)
    (tmp_path / "TU/MUTAG/raw/MUTAG_A.txt").write_text("1, 2\n2, 1\n")
    said = r"MUTAG_graph_indicator\.txt: is missing; put .* or set dataset.source=procedural$"
    with pytest.raises(ConfigError, match=said):
        dataset(tmp_path)


def test_real_data_are_read_where_they_are() -> None:
    """The sample beside a checkout, where there is one."""
    root = next((p / "shared/datasets" for p in Path(__file__).resolve().parents
                 if (p / "shared/datasets/TU/MUTAG").is_dir()), None)  # fmt: skip
    if root is None:
        pytest.skip("no sample of real data")
    data = dataset(root)
    assert data.source == "real"
    assert data.statistics["graphs"] == 188 and data.statistics["max_nodes"] == 28
    assert abs(data.statistics["mean_nodes"] - 17.9) < 0.05


def test_degrees_and_constants_are_features(tmp_path: Path) -> None:
    without = ["dataset.constant=false", "dataset.element_dim=136"]
    for name, width, how in (
        ("IMDB-BINARY", 137, []), ("IMDB-BINARY", 136, without), ("REDDIT-BINARY", 1, []),
    ):  # fmt: skip
        nodes = config("experiment=graphs_social", f"paths.data={tmp_path}", "dataset.graphs=30",
                       f"dataset.name={name}", *how)  # fmt: skip
        data = build(nodes["dataset"], "dataset")
        (batch,) = data.batches("val", 99, generator(), shuffle=False, drop_last=False)
        x, _, first, _, edge = batch.input
        nodes_there = int(first[-1])
        assert x.shape[1] == width
        assert how or (x[:nodes_there, 0] == 1).all()
        if width > 1:
            degrees = x[:nodes_there, width - 136 :]
            assert torch.equal(degrees.argmax(1), edge.diff()[:nodes_there])
            assert (degrees.sum(1) == 1).all()


# Readouts


def nodes(features: int, padding: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, batch vector and first nodes of graphs of `SIZES`, with some padding."""
    sizes = torch.tensor([*SIZES, padding])
    index = torch.arange(len(sizes)).repeat_interleave(sizes)
    first = torch.cat([sizes.new_zeros(1), sizes[:-1].cumsum(0)])
    return torch.randn(int(sizes.sum()), features, generator=generator(seed)), index, first


def fspool(features: int, descending: bool = False) -> FSPoolReadout:
    return FSPoolReadout(
        features=features, n_pieces=5, init=WeightInit.normal, descending=descending
    )


@pytest.mark.parametrize("descending", [True, False])
def test_fspool_is_the_set_encoders_on_each_graph(descending: bool) -> None:
    x, index, first = nodes(4)
    readout = fspool(4, descending)
    pooled = readout(x, index, first)
    whole = FSPool(features=4, n_pieces=5, set_size=None, init=WeightInit.normal,
                   descending=descending, masked=True, relaxed=False,
                   legacy_singleton_mask=False)  # fmt: skip
    whole.load_state_dict(readout.state_dict())
    for i, size in enumerate(SIZES):
        own = x[first[i] : first[i] + size].unsqueeze(0)
        torch.testing.assert_close(pooled[i], whole(own, torch.ones(1, size))[0][0])


@pytest.mark.parametrize("kind", ["sum", "mean", "fspool"])
def test_readouts_see_no_order_of_nodes(kind: str) -> None:
    x, index, first = nodes(3)
    readout: nn.Module = fspool(3) if kind == "fspool" else SumReadout(mean=kind == "mean")
    order = torch.cat([a + torch.randperm(n) for a, n in zip(first, [*SIZES, 2], strict=True)])
    torch.testing.assert_close(readout(x[order], index, first), readout(x, index, first))


@pytest.mark.parametrize("kind", ["sum", "mean", "fspool"])
def test_readouts_take_what_pytorch_geometrics_aggregations_take(kind: str) -> None:
    from torch_geometric.nn import MeanAggregation, SimpleConv, SumAggregation

    x, index, first = nodes(3, padding=0)
    readout: nn.Module = fspool(3) if kind == "fspool" else SumReadout(mean=kind == "mean")
    if kind == "fspool":
        nn.init.ones_(readout.weights.weight)  # type: ignore[union-attr, arg-type]
    theirs = MeanAggregation() if kind == "mean" else SumAggregation()
    for how in ({"ptr": first}, {}, {"dim_size": 4, "dim": 0}):
        torch.testing.assert_close(readout(x, index, **how), theirs(x, index))
    edges = torch.tensor([[1, 2, 0, 5, 4], [0, 0, 1, 4, 5]])  # sorted by target, as a readout needs
    convolution = SimpleConv()
    convolution.aggr_module = readout
    torch.testing.assert_close(convolution(x, edges), SimpleConv(aggr=theirs)(x, edges))


def test_padding_and_empty_graphs() -> None:
    x, index, first = nodes(3)
    first = torch.cat([first[:2], first[1:]])  # the second graph has no nodes
    index = index + (index > 0)
    for readout in (fspool(3), SumReadout(mean=True)):
        pooled = readout(x, index, first)
        assert not pooled[1].any() and pooled.isfinite().all()
        changed = torch.cat([x[:-2], 1e6 * torch.ones(2, 3)])
        assert torch.equal(readout(changed, index, first), pooled)


@pytest.mark.usefixtures("double")
def test_gradients() -> None:
    x, index, first = (t.unsqueeze(0).expand(2, *t.shape) for t in nodes(3))
    x = (x + 0.1 * torch.randn(x.shape)).requires_grad_()
    weights = torch.randn(2, 3, x.shape[1], requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(lambda x: GraphSum.apply(x, index, first), (x,))
    assert check(lambda x, w: SortedSum.apply(x, w, index, first, False), (x, weights))
    path = torch.tensor([1, 0, 2, 1, 4, 3])  # 0-1-2, 3-4, and padding
    edge = torch.tensor([0, 1, 3, 4, 5, 6]).expand(2, -1)
    neighbours = segments(path.expand(2, -1), edge, 5)
    assert check(lambda x: NeighbourSum.apply(x, neighbours, 1.5), (x[:, :5],))
    layer, all_rows = NormedLayer(3, 4), rows(torch.tensor([[9]]), 9, x.dtype)
    assert check(lambda x: layer(x, all_rows), (x[:1, :9],))


@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_order_within_is_sorting_each_graph(seed: int, descending: bool, wide: bool) -> None:
    x, index, first = nodes(3, seed=seed % 1000)
    x = (x * 2).round().to(torch.float64 if wide else torch.float32)  # ties, zeros of both signs
    order = order_within(x.unsqueeze(0), index.unsqueeze(0), descending)[0]
    for a, n in zip(first.tolist(), [*SIZES, 2], strict=True):
        expected = torch.sort(x[a : a + n].mT, dim=-1, descending=descending, stable=True).indices
        assert torch.equal(order[:, a : a + n], expected + a)


# Message passing


def test_neighbours_are_summed_as_pytorch_geometric_does(tmp_path: Path) -> None:
    from torch_geometric.nn import GINConv

    data = dataset(tmp_path)
    batch = next(iter(data.batches("train", 8, generator(), shuffle=True, drop_last=True)))
    x, _, _, neighbour, edge = batch.input
    target = torch.arange(len(x)).repeat_interleave(edge.diff())
    theirs = GINConv(nn.Identity(), eps=7.0)(x, torch.stack([neighbour[: len(target)], target]))
    neighbours = segments(neighbour.unsqueeze(0), edge.unsqueeze(0), len(x))
    ours = NeighbourSum.apply(x.unsqueeze(0), neighbours, 8.0)[0]
    torch.testing.assert_close(ours, theirs)


def test_epsilon_is_the_width_in_the_released_code() -> None:
    readout = SumReadout(mean=False)
    as_code, as_text = (
        GIN(features=7, width=4, layers=2, eps=eps, readout=readout)
        for eps in (Epsilon.in_channels, Epsilon.zero)
    )
    assert [layer.own for layer in as_code.layers] == [8, 5]
    assert [layer.own for layer in as_text.layers] == [1, 1]


# Normalisation and dropout


@pytest.mark.usefixtures("double")
def test_batch_norm_is_pytorchs_on_what_is_no_padding() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(1, 9, 4)
    present = rows(torch.tensor([[7]]), 9, x.dtype)
    for _ in range(3):
        y, other = ours(x, present), theirs(x[0, :7])
        torch.testing.assert_close(y[0, :7], other)
    torch.testing.assert_close(dict(ours.named_buffers()), {
        k: v for k, v in theirs.named_buffers() if k != "num_batches_tracked"
    })  # fmt: skip
    torch.testing.assert_close(ours.eval()(x, present)[0], theirs.eval()(x[0]))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("training", [True, False])
def test_normed_layer_is_its_three_parts(training: bool) -> None:
    layer = NormedLayer(3, 4)
    nn.init.normal_(layer.linear.bias)
    nn.init.normal_(layer.norm.weight)
    parts = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4))
    parts[0].load_state_dict(layer.linear.state_dict())
    parts[2].load_state_dict(layer.norm.state_dict(), strict=False)
    all_rows = rows(torch.tensor([[6]]), 6, torch.float64)
    x = torch.randn(1, 6, 3, requires_grad=True)
    cotangent = torch.randn(6, 4)
    found = []
    for module, y in (
        (layer, layer.train(training)(x, all_rows)[0]),
        (parts, parts.train(training)(x[0])),
    ):
        gradients = torch.autograd.grad((y * cotangent).sum(), [x, *module.parameters()])
        found.append([y, *gradients, *(b for b in module.buffers() if b.dim())])
    torch.testing.assert_close(*found)


def test_a_lone_row_is_normalised_to_the_shift() -> None:
    norm = BatchNorm(2)
    assert not norm(torch.randn(1, 1, 2), rows(torch.tensor([[1]]), 1, torch.float32)).any()
    assert all(b.isfinite().all() for b in norm.buffers())


def test_dropout() -> None:
    torch.manual_seed(1)
    layer, x = Dropout(0.5), torch.ones(400, 50)
    one, two = layer(x), layer(x)
    assert set(one.unique().tolist()) == {0.0, 2.0}
    assert abs(one.mean() - 1) < 0.03 and abs((one * two).mean() - 1) < 0.05
    assert abs((one[:, :-1] * one[:, 1:]).mean() - 1) < 0.05
    assert abs((one[:-1] * one[1:]).mean() - 1) < 0.05
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5)(x), one)
    assert not torch.equal(Dropout(0.5)(x), one)  # another key
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(layer.eval()(x), x)
    with pytest.raises(ValueError, match="dropout=1"):
        Dropout(1.0)
