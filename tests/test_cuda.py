"""What only a GPU can show; skipped without one."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils._pytree import tree_leaves

from setexp.build import build
from setexp.config import compose_run, plain, register
from setexp.experiment import evaluation_of
from setexp.training.loop import Fit
from setexp.training.randomness import for_run
from setexp.training.settings import Tracking, TrackingMode
from setexp.training.tracking import Tracker

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def make_fit(experiment: str, folder: Path, seeds: list[int], *overrides: str) -> Fit:
    register()
    place = ["scale=smoke", f"paths.data={folder}"]
    config = compose_run([f"experiment={experiment}", *place, *overrides])
    nodes = plain(config)
    device = torch.device("cuda")
    folders = [folder / str(seed) for seed in seeds]
    dataset = build(nodes["dataset"], "dataset").to(device)
    return Fit(
        lambda _: build(nodes["task"], "task"),
        [for_run(dataset, seed) for seed in seeds],
        evaluation_of(nodes["evaluation"]),
        OmegaConf.to_object(config.trainer),
        seeds,
        folders,
        device,
        lambda i, identity, step: Tracker(
            folders[i], Tracking(mode=TrackingMode.disabled), {}, identity=identity, step=step
        ),
    )


@pytest.mark.parametrize(
    "experiment", ["polygons_fspool", "polygons_mlp_chamfer", "dspn_mnist", "graphs_bio"]
)
def test_a_step_never_waits_for_the_device(tmp_path: Path, experiment: str) -> None:
    fit = make_fit(experiment, tmp_path, [0])
    batches = next(fit._batches(0))
    fit._step(batches)  # first calls may initialise libraries
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        fit._step(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    fit._check()


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop"])
def test_a_resumed_optimisers_state_is_where_it_was(tmp_path: Path, optimizer: str) -> None:
    """A counter of steps that comes back on the device is read from there in every step."""

    def devices(fit: Fit) -> list[dict[str, str]]:
        states = [fit.optimizer.state[p] for p in fit.parameters.values()]
        return [{k: v.device.type for k, v in state.items()} for state in states]

    how = ("polygons_fspool", tmp_path, [0], f"trainer.optimizer={optimizer}")
    fit = make_fit(*how)
    fit._step(next(fit._batches(0)))
    fit._save()
    assert devices(make_fit(*how)) == devices(fit)


@pytest.mark.parametrize(
    "experiment", ["polygons_mlp_hungarian", "dspn_clevr_state", "numbering_idspn"]
)
def test_only_the_matching_waits(
    tmp_path: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = make_fit(experiment, tmp_path, [0])
    batches = next(fit._batches(0))
    fit._step(batches)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchronizing") as caught:
            fit._step(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in caught if "synchronizing" in str(w.message)]) == 1


@pytest.mark.parametrize(
    "experiment",
    [
        "polygons_fspool",
        "dspn_mnist",
        "dspn_clevr_boxes",
        "clevr_idspn",
        "clevr_slot_attention",
        "clevr_slot_mlp",
    ],
)
def test_training_and_evaluation_run(tmp_path: Path, experiment: str) -> None:
    fit = make_fit(experiment, tmp_path, [0])
    fit.train()
    _, metrics = fit.final(0)
    assert metrics
    assert all(value == value for value in metrics.values())


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize("how", ["precision=tf32", "precision=bf16", "compile=true"])
@pytest.mark.parametrize("experiment", ["polygons_fspool", "multisets_idspn"])
def test_each_precision_trains_alone_and_stacked(
    tmp_path: Path, experiment: str, how: str, seeds: list[int]
) -> None:
    fit = make_fit(experiment, tmp_path, seeds, f"trainer.{how}")
    before = [p.detach().clone() for p in fit.parameters.values()]
    fit.train()
    assert all(p.is_cuda and p.isfinite().all() for p in fit.parameters.values())
    assert any(not torch.equal(p, b) for p, b in zip(fit.parameters.values(), before, strict=True))


@pytest.mark.parametrize("experiment", ["multisets_idspn", "numbering_idspn", "sslr_circles_srn"])
def test_fixed_sets_are_those_of_a_cpu(tmp_path: Path, experiment: str) -> None:
    register()
    nodes = plain(compose_run([f"experiment={experiment}", "scale=smoke", "paths.data=none"]))
    how = {"shuffle": False, "drop_last": False}

    def drawn(device: torch.device) -> list[torch.Tensor]:
        data = for_run(build(nodes["dataset"], "dataset").to(device), 0)
        return tree_leaves(
            [b.input for b in data.batches("val", 4, torch.Generator(device), **how)]
        )

    for one, same in zip(*map(drawn, map(torch.device, ("cpu", "cuda"))), strict=True):
        assert torch.equal(one, same.cpu())
