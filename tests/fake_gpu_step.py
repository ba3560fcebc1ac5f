"""Training and evaluation steps of all experiments on a device that only knows shapes.

    python tests/fake_gpu_step.py EXPERIMENT ...

prints {experiment: what failed, or ""} as JSON. The device is a backend without kernels: operations
that mix it with the CPU raise, as they would on a GPU; numbers are never computed. The names that
make it are private to PyTorch, so it must be set up before anything else, in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils.backend_registration as registration
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.sets import Batch, GraphBatch, SetBatch
from setexp.training import seeds
from setexp.training.evaluate import read_at
from setexp.training.optimise import clip_gradients, make_optimizer
from setexp.training.seeds import Alone, Stacked, stackable
from setexp.training.settings import Trainer

DEVICE = "fakegpu"


def set_up() -> torch.library.Library:
    """Register the device; keep what is returned, or its kernels go with it."""
    registration._setup_privateuseone_for_python_backend(DEVICE)
    library = torch.library.Library("aten", "IMPL")

    # the backward of batch norm allocates without asking the fake mode
    def strided(size: Any, stride: Any, dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")

    def dense(size: Any, dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    library.impl("empty_strided", strided, "PrivateUse1")
    library.impl("empty.memory_format", dense, "PrivateUse1")
    # models are built on the device; moving and copying them reads memory that is not there
    nn.Module.to = lambda module, *_, **__: module  # type: ignore[method-assign, assignment]
    copies = SimpleNamespace(deepcopy=lambda module: module)
    seeds.copy = torch.nn.modules.transformer.copy = copies  # type: ignore[assignment, attr-defined]
    return library


def config(experiment: str) -> dict[str, Any]:
    """An experiment at smoke scale with small sets and few inner steps: only shapes are at work."""
    overrides = [f"experiment={experiment}", "scale=smoke"]
    overrides[:1] = overrides[0].split()  # more may follow the name
    if not experiment.startswith("graphs"):
        overrides.append("dataset.set_size=5")
    nodes = plain(compose_run(overrides))
    if "steps" in nodes["task"]["decoder"]:
        nodes["task"]["decoder"]["steps"] = 2
        nodes["evaluation"]["at"] = [0, 3]
    return nodes


def fake_batch(data: dict[str, Any], size: int, device: str) -> Batch:
    """A batch of the shapes that the dataset's config asks for."""
    if "folds" in data:  # graphs, of 5 nodes without edges, and padding
        nodes = torch.rand(5 * size + 3, data["element_dim"], device=device)
        whole = {"dtype": torch.int64, "device": device}
        graph, first = torch.zeros(len(nodes), **whole), torch.zeros(size + 1, **whole)
        label = torch.zeros(size, **whole)
        edges = (torch.zeros(7, **whole), torch.zeros(len(nodes) + 1, **whole))
        return Batch(GraphBatch(nodes, graph, first, *edges), label, {"label": label})
    n, d = data["set_size"], data["element_dim"]
    target = SetBatch(torch.rand(size, n, d, device=device), torch.ones(size, n, device=device))
    if "classes" in data:  # numbers and classes are one-hot: any first entry will do
        classes = torch.rand(size, n, data["classes"], device=device)
        rows = torch.cat([classes, target.x], dim=-1)
        return Batch(target._replace(x=classes), target._replace(x=rows), {})
    if "threshold" in data:  # digits have labels
        return Batch(target, target, {"label": torch.zeros(size, dtype=torch.int64, device=device)})
    if "image_size" not in data:
        return Batch(target, target, {})
    side = data["image_size"]
    return Batch(torch.rand(size, 3, side, side, device=device), target, {})


def train_step(learner: Alone | Stacked, batches: list[Batch]) -> None:
    parameters = learner.named_parameters().values()
    optimizer = make_optimizer(parameters, Trainer(), learner.count)
    losses = learner.losses(batches)
    assert losses.device.type == DEVICE and losses.shape == (learner.count,)
    losses.sum().backward()
    clip_gradients(parameters, 1.0, learner.count)
    optimizer.step()


@torch.no_grad()
def evaluation_step(task: nn.Module, evaluation: dict[str, Any], batch: Batch) -> None:
    task.eval()
    losses = {k: build(v, "evaluation.losses") for k, v in evaluation["losses"].items()}
    outcome = task(batch, steps=max(evaluation["at"], default=None))
    for name in evaluation["stats"]:
        assert outcome.stats[name].device.type == DEVICE
    if outcome.prediction is None:
        return
    for _, prediction in read_at(outcome.prediction, evaluation["at"]):
        assert prediction.x.shape[0] == 1
        for loss in losses.values():
            values = loss(prediction, batch.target)
            assert values.device.type == DEVICE and values.shape == outcome.loss.shape


def steps(experiment: str) -> None:
    """One training step alone, one in a stack where it can be stacked, one evaluation step."""
    nodes = config(experiment)
    size, trained = nodes["trainer"]["batch_size"], nodes["trainer"]["steps"] != 0

    def task() -> nn.Module:
        return build(nodes["task"], "task")

    def batch() -> Batch:
        return fake_batch(nodes["dataset"], size, DEVICE)

    with FakeTensorMode(), torch.device(DEVICE):
        if trained:
            train_step(Alone(task()), [batch()])
        if trained and stackable(task()):
            train_step(Stacked([task(), task()]), [batch(), batch()])
        evaluation_step(task(), nodes["evaluation"], batch())


def misplaced_target(experiment: str) -> None:
    """The same training step with the targets left on the CPU."""
    nodes = config(experiment)
    with FakeTensorMode(), torch.device(DEVICE):
        batch = fake_batch(nodes["dataset"], 4, DEVICE)
        target = fake_batch(nodes["dataset"], 4, "cpu").target
        train_step(Alone(build(nodes["task"], "task")), [batch._replace(target=target)])


def misplaced_weights(experiment: str) -> None:
    """The same training step with one weight left on the CPU."""
    nodes = config(experiment)
    with FakeTensorMode(), torch.device(DEVICE):
        learner = Alone(build(nodes["task"], "task"))
        layer = next(m for m in learner.task.modules() if isinstance(m, nn.Linear))
        layer.weight = nn.Parameter(torch.rand(layer.weight.shape, device="cpu"))
        train_step(learner, [fake_batch(nodes["dataset"], 4, DEVICE)])


def failure(check: Callable[[str], None], experiment: str) -> str:
    try:
        check(experiment)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


if __name__ == "__main__":
    kernels = set_up()  # kept until the end
    register()
    found = {name: failure(steps, name) for name in sys.argv[1:]}
    for check in (misplaced_target, misplaced_weights):
        found[check.__name__] = failure(check, "polygons_mlp_chamfer")
    json.dump(found, sys.stdout)
