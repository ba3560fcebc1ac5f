"""Training and evaluation steps of all experiments on a device that only knows shapes.

    python tests/fake_gpu_step.py DATA_FOLDER EXPERIMENT ...

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
from torch.utils._pytree import tree_map

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.sets import Batch
from setexp.training import seeds
from setexp.training.evaluate import read_at
from setexp.training.optimise import clip_gradients, make_optimizer
from setexp.training.randomness import for_run
from setexp.training.seeds import Alone, Stacked, stackable
from setexp.training.settings import Trainer

DEVICE = "fakegpu"


def set_up() -> torch.library.Library:
    """Register the device; keep what is returned, or its kernels go with it."""
    registration._setup_privateuseone_for_python_backend(DEVICE)
    getattr(torch, DEVICE).get_amp_supported_dtype = lambda: [torch.bfloat16]
    library = torch.library.Library("aten", "IMPL")

    # the backward of batch norm allocates without asking the fake mode
    def strided(size: Any, stride: Any, dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")

    def dense(size: Any, dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    library.impl("empty_strided", strided, "PrivateUse1")
    library.impl("empty.memory_format", dense, "PrivateUse1")

    # of a step of PyTorch's GRU, shapes are known for no device
    def cell(gates: Tensor, _: Tensor, hidden: Tensor, *__: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(hidden), hidden.new_empty(len(hidden), 5 * hidden.shape[1])

    def cell_backward(gradient: Tensor, *_: Any) -> tuple[Tensor, ...]:
        size, wide = len(gradient), 3 * gradient.shape[1]
        gates, bias = gradient.new_empty(size, wide), gradient.new_empty(wide)
        return gates, gates.clone(), torch.empty_like(gradient), bias, bias.clone()

    library.impl("_thnn_fused_gru_cell", cell, "Meta")
    library.impl("_thnn_fused_gru_cell_backward", cell_backward, "Meta")
    # models are built on the device; moving and copying them reads memory that is not there
    nn.Module.to = lambda module, *_, **__: module  # type: ignore[method-assign, assignment]
    copies = SimpleNamespace(deepcopy=lambda module: module)
    seeds.copy = torch.nn.modules.transformer.copy = copies  # type: ignore[assignment, attr-defined]
    return library


def config(experiment: str, data_root: str) -> dict[str, Any]:
    """An experiment at smoke scale with few inner steps: only shapes are at work."""
    overrides = [*f"experiment={experiment}".split(), "scale=smoke", f"paths.data={data_root}"]
    nodes = plain(compose_run(overrides))
    if "threshold" in nodes["dataset"]:  # digits of few points, for the decoders that list them
        nodes = plain(compose_run([*overrides, "dataset.threshold=0.99", "dataset.set_size=150"]))
    if "steps" in nodes["task"].get("decoder", {}):
        nodes["task"]["decoder"]["steps"] = 2
        nodes["evaluation"]["at"] = [0, 3] if nodes["evaluation"]["at"] else []
    return nodes


def real_batch(dataset: Any, split: str, size: int) -> Batch:
    """One batch of an experiment's data, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    how = {"shuffle": True, "drop_last": False}
    return next(iter(for_run(dataset, 0).batches(split, size, generator, **how)))


def fake(batch: Batch, device: str = DEVICE) -> Batch:
    """Tensors of the same shapes and types on the device, without their numbers."""

    def of(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    given = tree_map(of, batch.input)
    target = given if batch.target is batch.input else tree_map(of, batch.target)
    return Batch(given, target, tree_map(of, batch.aux))


def train_step(learner: Alone | Stacked, batches: list[Batch]) -> None:
    parameters = learner.named_parameters()
    optimizer = make_optimizer(parameters, Trainer(), learner.count)
    losses = learner.losses(batches)
    assert losses.device.type == DEVICE and losses.shape == (learner.count,)
    losses.sum().backward()
    clip_gradients(parameters.values(), 1.0, learner.count)
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


def steps(experiment: str, data_root: str) -> None:
    """One training step alone, one in a stack where it can be stacked, one evaluation step."""
    nodes = config(experiment, data_root)
    trained, evaluation = nodes["trainer"]["steps"] != 0, nodes["evaluation"]
    dataset = build(nodes["dataset"], "dataset")
    given = real_batch(dataset, "train", nodes["trainer"]["batch_size"])
    judged = real_batch(dataset, next(iter(evaluation["final"]), "train"), 4)

    with FakeTensorMode(), torch.device(DEVICE):
        task = build(nodes["task"], "task")
        if trained:
            train_step(Alone(task), [fake(given)])
        if trained and stackable(task):
            train_step(Stacked([task, task]), [fake(given), fake(given)])
        if evaluation["double"]:
            torch.set_default_dtype(torch.float64)
            task = build(nodes["task"], "task")
        evaluation_step(task, evaluation, fake(judged))
        torch.set_default_dtype(torch.float32)


def misplaced_target(experiment: str, data_root: str) -> None:
    """The same training step with the targets left on the CPU."""
    nodes = config(experiment, data_root)
    given = real_batch(build(nodes["dataset"], "dataset"), "train", 4)
    with FakeTensorMode(), torch.device(DEVICE):
        batch = fake(given)._replace(target=fake(given, "cpu").target)
        train_step(Alone(build(nodes["task"], "task")), [batch])


def misplaced_weights(experiment: str, data_root: str) -> None:
    """The same training step with one weight left on the CPU."""
    nodes = config(experiment, data_root)
    given = real_batch(build(nodes["dataset"], "dataset"), "train", 4)
    with FakeTensorMode(), torch.device(DEVICE):
        learner = Alone(build(nodes["task"], "task"))
        layer = next(m for m in learner.task.modules() if isinstance(m, nn.Linear))
        layer.weight = nn.Parameter(torch.rand(layer.weight.shape, device="cpu"))
        train_step(learner, [fake(given)])


def failure(check: Callable[[str, str], None], experiment: str, data_root: str) -> str:
    try:
        check(experiment, data_root)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


if __name__ == "__main__":
    kernels = set_up()  # kept until the end
    register()
    root, *experiments = sys.argv[1:]
    found = {name: failure(steps, name, root) for name in experiments}
    for check in (misplaced_target, misplaced_weights):
        found[check.__name__] = failure(check, "polygons_mlp_chamfer", root)
    json.dump(found, sys.stdout)
