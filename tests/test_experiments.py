"""Every experiment and table config: composes, fits together, trains, measures what tables read."""

import copy
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from smoke_runs import (
    EXPERIMENTS,
    assert_same_run,
    config,
    curve,
    interrupt,
    only,
    perform,
    read,
    train,
)

from setexp.build import build, check
from setexp.config import compose_run, plain
from setexp.report.tables import load_tables
from setexp.rules import broken_rules
from setexp.training.randomness import for_run

SCALES = ("paper", "small", "smoke")
TABLES = load_tables()
# At smoke scale, by the beginning of the experiment's name.
STEPS = {
    "polygons": 16,
    "dspn_mnist": 6,
    "mnist": 6,
    "dspn_clevr": 4,
    "multisets": 8,
    "numbering": 4,
    "clevr_questions": 10,
    "clevr": 4,
    "sorting": 16,
    "mosaic": 6,
    "sslr": 4,
    "counting_toy": 8,
    "graphs": 24,  # of 6 models
    "vqa": 8,
    "ban": 8,
}
# The others' data is procedural where the real one is missing.
SYNTHETIC = (
    "polygons",
    "multisets",
    "numbering",
    "sorting",
    "sslr_circles",
    "sslr_matching",
    "counting_toy",
)


def steps(experiment: str) -> int:
    if experiment in ("polygons_random", "mosaic_classifier_shuffled"):
        return 0
    return next(count for prefix, count in STEPS.items() if experiment.startswith(prefix))


def test_the_sweep_is_complete() -> None:
    assert len(EXPERIMENTS) >= 38
    assert len(TABLES) >= 18


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_fits_together_at_every_scale(experiment: str) -> None:
    for scale in SCALES:
        composed = compose_run([f"experiment={experiment}", f"scale={scale}"])
        assert OmegaConf.missing_keys(composed) == set()
        nodes = plain(composed)
        assert nodes["name"] == experiment and nodes["scale"] == scale
        assert broken_rules(nodes) == []
        for part in ("dataset", "task", "evaluation", "figures"):
            assert check(nodes[part], part) == []
        with torch.device("meta"):
            task = build(nodes["task"], "task")
        assert sum(p.numel() for p in task.parameters()) > 0
        if scale == "paper":  # other scales set the widths of several experiments at once
            assert unread_widths(composed) == []


def unread_widths(composed: DictConfig) -> list[str]:
    """Those of `hidden` and `latent` that are set and change nothing: runs would differ by name."""
    unread = []
    for width in ("hidden", "latent"):
        changed = copy.deepcopy(composed)
        changed[width] = 12345
        one, other = ({**plain(c), "hidden": None, "latent": None} for c in (composed, changed))
        unread += [width] if composed[width] is not None and one == other else []
    return unread


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_resumes_and_is_measured(
    experiment: str, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [f"experiment={experiment}", f"paths.data={data_root}"]
    folder = train(tmp_path / "whole", *arguments) / "seed-0"
    record = read(folder / "result.json")
    assert record["steps"] == steps(experiment)
    assert record["source"] == ("synthetic" if experiment.startswith(SYNTHETIC) else "procedural")
    wanted = {
        cell.metric for table in TABLES for cell in table.cells.values()
        if experiment in cell.experiments
    }  # fmt: skip
    assert wanted, f"no table reads {experiment}"
    wanted -= {w for w in wanted if w.endswith("_ep10")}  # later than this run's end
    wanted -= {w for w in wanted if w.startswith("epochs_to_")}  # better than this run is
    wanted -= {"seconds"}  # no metric, but read from the record like one
    assert wanted <= record["metrics"].keys()
    if steps(experiment) == 0:
        return
    kept = next(folder.rglob("checkpoint.pt")).parent
    assert any("train/loss" in line for line in curve(kept))
    interrupt(monkeypatch, tmp_path / "cut", steps(experiment) // 2 + 1, *arguments)
    assert_same_run(train(tmp_path / "cut", *arguments) / "seed-0", folder)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step_in_half_precision(experiment: str, data_root: Path) -> None:
    """As `trainer.precision=bf16` does: forward under autocast, backward outside of it."""
    nodes = config(f"experiment={experiment}", "scale=smoke", f"paths.data={data_root}")
    task = build(nodes["task"], "task")
    dataset = for_run(build(nodes["dataset"], "dataset"), 0).to(torch.device("cpu"))
    size, generator = nodes["trainer"]["batch_size"], torch.Generator().manual_seed(0)
    batch = next(dataset.batches("train", size, generator, shuffle=True, drop_last=True))
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch).loss
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    if not loss.requires_grad:
        assert steps(experiment) == 0
        return
    loss.mean().backward()
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(
    "experiment",
    [
        "polygons_fspool",
        "dspn_mnist",
        "mnist_fspool",
        "dspn_clevr_state",
        "numbering_idspn",
        "multisets_idspn",
        "clevr_idspn",
        "sorting",
        "mosaics_po_u",
        "sslr_circles_srn",
        "sslr_clevr_mlp",
        "clevr_questions_fspool",
        "vqa_counting",
    ],
)
def test_pictures_are_drawn(experiment: str, tmp_path: Path, data_root: Path) -> None:
    arguments = [f"experiment={experiment}", "scale=smoke", "trainer.steps=1"]
    perform(*arguments, f"paths.outputs={tmp_path}", f"paths.data={data_root}")
    pictures = list((only(tmp_path) / "seed-0/pictures").glob("*.png"))
    assert pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_tables_name_experiments_that_exist() -> None:
    named = {e for table in TABLES for cell in table.cells.values() for e in cell.experiments}
    assert named == set(EXPERIMENTS)


def test_every_kind_of_run_of_the_tables_composes() -> None:
    """One run of each experiment and each set of changed keys."""
    kinds = {(r.experiment, *r.axes): r for table in TABLES for r in table.runs if r.axes}
    assert len(kinds) >= 6
    for run in kinds.values():
        nodes = config(*run.overrides, f"seeds={list(run.seeds)}".replace(" ", ""))
        assert nodes["name"] == run.experiment
        assert broken_rules(nodes) == []
