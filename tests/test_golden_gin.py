"""The graph network agrees with the authors' own, gradients included."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from setexp.decoders.normed_classifier import NormedClassifier
from setexp.encoders.gin import GIN, Epsilon, GINLayer
from setexp.encoders.readout import FSPoolReadout, SumReadout
from setexp.losses.cross_entropy import CrossEntropyLoss
from setexp.ops.norm import rows
from setexp.ops.position_weights import WeightInit
from setexp.ops.segments import segments
from setexp.sets import Batch, GraphBatch
from setexp.tasks.classify import Classify

pytestmark = pytest.mark.usefixtures("float64")

Golden = Callable[[str], dict[str, Tensor]]


def graphs(g: dict[str, Tensor], padding: int = 0) -> GraphBatch:
    """The file's batch, with some nodes and edges of padding."""
    nodes, batch = len(g["x"]), g["batch"]
    source, target = g["edge_index"][:, g["edge_index"][1].argsort(stable=True)]
    count = int(batch.max()) + 1
    zero, degree = batch.new_zeros(1), torch.bincount(target, minlength=nodes + padding)
    return GraphBatch(
        torch.cat([g["x"], g["x"].new_zeros(padding, g["x"].shape[1])]),
        torch.cat([batch, batch.new_full((padding,), count)]),
        torch.cat([zero, torch.bincount(batch).cumsum(0)]),
        torch.cat([source, source.new_zeros(2 * padding)]),
        torch.cat([zero, degree.cumsum(0)]),
    )


def fspool(features: int) -> FSPoolReadout:
    return FSPoolReadout(features=features, n_pieces=5, init=WeightInit.ones, descending=False)


def load(module: nn.Module, arrays: dict[str, Tensor]) -> None:
    for name, parameter in module.named_parameters():
        parameter.data.copy_(arrays[name])


def renamed(name: str) -> str:
    """A parameter's name in the files."""
    for ours, theirs in (("first.linear", "layer1"), ("second.linear", "layer2"),
                         ("first.norm", "norm1"), ("second.norm", "norm2"),
                         ("first", "layer1"), ("second", "layer2"),
                         ("encoder.layers.", "w.block"), ("decoder", "w.head")):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("padding", [0, 3])
def test_layer_and_readouts(golden: Golden, padding: int) -> None:
    g = golden("gin_layer")
    batch, nodes = graphs(g, padding), len(g["x"])
    x, graph, first, neighbour, edge = batch
    x.requires_grad_()
    layer, readout = GINLayer(3, 4, eps=Epsilon.in_channels), fspool(4)
    names = {n: renamed(n).replace(".", "_") for n, _ in layer.named_parameters()}
    load(layer, {n: g[other] for n, other in names.items()})
    load(readout, {"weights.weight": g["pool_weight"]})
    neighbours = segments(neighbour.unsqueeze(0), edge.unsqueeze(0), len(x))
    given = (x.unsqueeze(0), neighbours, rows(torch.tensor([[nodes]]), len(x), x.dtype))
    hidden = layer(*given).squeeze(0)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(hidden[:nodes], g["hidden_train"], **close)
    for norm, other in (("first.norm", "norm1"), ("second.norm", "norm2")):
        for kind in ("running_mean", "running_var"):
            found = getattr(layer.get_submodule(norm), kind)
            torch.testing.assert_close(found, g[f"{other}_{kind}"], **close)
    pooled = readout(hidden, graph, first)
    torch.testing.assert_close(pooled, g["readout_fspool"], **close)
    for mean, name in ((False, "readout_sum"), (True, "readout_mean")):
        torch.testing.assert_close(SumReadout(mean=mean)(hidden, graph, first), g[name], **close)
    total = (hidden[:nodes] * g["cotangent_hidden"]).sum() + (pooled * g["cotangent_readout"]).sum()
    total.backward()
    exact = {"rtol": 1e-9, "atol": 1e-9}
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, g[f"grad_{names[name]}"], **exact)
    torch.testing.assert_close(readout.weights.weight.grad, g["grad_pool_weight"], **exact)
    torch.testing.assert_close(x.grad[:nodes], g["grad_x"], **exact)
    assert not x.grad[nodes:].any()
    evaluated = layer.eval()(*given).squeeze(0)
    torch.testing.assert_close(evaluated[:nodes], g["hidden_eval"], **close)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("kind", ["fsort", "sum", "mean"])
def test_network(golden: Golden, kind: str, padding: int) -> None:
    g = golden("gin_network")
    readout = fspool(20) if kind == "fsort" else SumReadout(mean=kind == "mean")
    encoder = GIN(features=3, width=4, layers=5, eps=Epsilon.in_channels, readout=readout)
    decoder = NormedClassifier(latent=20, hidden=4, classes=2, dropout=0.0)
    task = Classify(encoder=encoder, decoder=decoder, loss=CrossEntropyLoss())
    pools = [g[f"w.block{i}.pool_weight"] for i in range(5)]
    arrays = {n: g[renamed(n)] for n, _ in task.named_parameters() if "readout" not in n}
    load(task, arrays | {"encoder.readout.weights.weight": torch.cat(pools)})
    batch = Batch(graphs(g, padding), None, {"label": g["label"]})
    log_prob = task.decoder(task.encoder(batch.input)).log_softmax(-1)
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(log_prob, g[f"{kind}_log_prob"], **exact)
    loss = task(batch).loss.mean()
    torch.testing.assert_close(loss, g[f"{kind}_loss"], **exact)
    if kind != "fsort":
        return
    loss.backward()
    for name, parameter in task.named_parameters():
        if "readout" in name:
            expected = torch.cat([g[f"grad.block{i}.pool_weight"] for i in range(5)])
        else:
            expected = g[f"grad.{renamed(name).removeprefix('w.')}"]
        torch.testing.assert_close(parameter.grad, expected, **exact)
