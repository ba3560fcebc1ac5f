"""Evaluation without training, and selection by evaluations."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import (
    complaint,
    config,
    curve,
    perform,
    read,
    train,
)
from torch import nn

from setexp.datasets.polygons import Polygons
from setexp.errors import ConfigError
from setexp.sets import Batch, SetBatch
from setexp.tasks.outcome import Outcome
from setexp.training import checkpoint, loop
from setexp.training.evaluate import evaluate, measure
from setexp.training.settings import Evaluation

POLYGONS = "experiment=polygons_fspool"


def evaluated(folder: Path, *overrides: str) -> dict[str, float]:
    perform(f"checkpoint={folder}/checkpoint.pt", "mode=eval", "scale=smoke", *overrides)
    record = read(max(folder.glob("evaluation*.json"), key=lambda path: path.stat().st_mtime_ns))
    assert record["seed"] == int(folder.name.removeprefix("seed-"))
    return record["metrics"]


def test_evaluation_repeats_the_runs_own_numbers(tmp_path: Path) -> None:
    """Fresh polygons, random rotations and a run's own sets are those of the seed that trained."""
    for experiment in ("polygons_fspool", "polygons_random", "multisets_idspn_plain"):
        folder = train(tmp_path / experiment, f"experiment={experiment}", "seeds=[5]") / "seed-5"
        result = read(folder / "result.json")
        assert evaluated(folder, f"experiment={experiment}") == result["metrics"]
        assert read(folder / "result.json") == result


def test_evaluation_at_other_inner_steps(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["experiment=dspn_mnist", f"paths.data={data_root}"]
    steps = ["trainer.steps=2", "evaluation.at=[2,4]", "seeds=[1]"]
    folder = train(tmp_path, *arguments, *steps) / "seed-1"
    trained = read(folder / "result.json")["metrics"]
    names = {"chamfer@2", "chamfer@4", "chamfer_full@2", "chamfer_full@4"}
    assert trained.keys() == names
    again = evaluated(folder, *arguments, "evaluation.at=[0,4,6]", "decoder.steps=4")
    kept = read(next(folder.glob("evaluation-*evaluation.at=_0,4,6_*.json")))
    assert kept["axes"] == {"decoder.steps": 4, "evaluation.at": [0, 4, 6]}
    assert {"chamfer@0", "chamfer@6", "chamfer_full@6"} <= again.keys()
    assert {name: again[name] for name in names & again.keys()} == {
        name: trained[name] for name in names if name.endswith("@4")
    }
    assert "is not evaluated" not in capsys.readouterr().out
    evaluated(folder, *arguments, "evaluation.at=[2]", "decoder.steps=3")
    said = "decoder.steps=3 is not evaluated; add it to evaluation.at=[2]"
    assert said in capsys.readouterr().out


def test_evaluation_reads_the_best_weights_of_a_run_that_reports_them(tmp_path: Path) -> None:
    best = ["trainer.select=best", "trainer.select_metric=direct", "evaluation.during=test"]
    overrides = [POLYGONS, *best, "trainer.select_lower=false"]
    folder = train(tmp_path, *overrides) / "seed-0"
    result = read(folder / "result.json")["metrics"]
    assert evaluated(folder, *overrides) == result
    assert evaluated(folder, POLYGONS, "evaluation.during=test") != result


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        (b"", "damaged, or not a checkpoint"),
        (b"PK\x03\x04 cut short", "damaged, or not a checkpoint"),
    ],
)
def test_evaluation_of_what_is_no_checkpoint(
    content: bytes | None, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is not None:
        path.write_bytes(content)
    text = complaint(POLYGONS, "scale=smoke", "mode=eval", f"checkpoint={path}")
    assert text.startswith(f"checkpoint={path}: {expected}")
    assert "\n" not in text


def test_evaluation_of_another_programs_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {}}, path)
    text = complaint(POLYGONS, "scale=smoke", "mode=eval", f"checkpoint={path}")
    assert text == f"checkpoint={path}: not a checkpoint of this project"


def test_evaluation_of_another_model(tmp_path: Path) -> None:
    path = train(tmp_path, POLYGONS, "trainer.steps=0") / "seed-0/checkpoint.pt"
    text = complaint(POLYGONS, "scale=smoke", "mode=eval", f"checkpoint={path}", "hidden=8")
    assert text.startswith(f"checkpoint={path}: another model") and "\n" not in text
    assert not (path.parent / "evaluation.json").exists()


def test_evaluation_beside_a_checkpoint_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = train(tmp_path, POLYGONS, "trainer.steps=0") / "seed-0/checkpoint.pt"
    capsys.readouterr()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("setexp.evaluate_saved.write_json", refused)
    text = complaint(POLYGONS, "scale=smoke", "mode=eval", f"checkpoint={path}")
    assert text.startswith(f"checkpoint={path}: cannot write") and "Permission denied" in text
    assert "hungarian" in capsys.readouterr().out, "what was measured is shown"


def test_a_number_is_better_than_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that is NaN at first, as an average over no set is, does not stay the best."""
    values = iter([1.0, math.nan, 3.0, 2.0, 4.0])  # the first is of the rehearsal
    monkeypatch.setattr(loop, "measure", lambda *_, **__: {"direct": next(values)})
    best = ["trainer.select=best", "trainer.select_metric=direct", "evaluation.during=test"]
    folder = train(tmp_path, POLYGONS, *best, "trainer.epochs=4", "trainer.evaluate_every=1")
    assert checkpoint.load(folder / "seed-0/checkpoint.pt")["best"]["value"] == 2.0


def test_of_equally_good_evaluations_the_first_stays_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([9.0, 2.0, 1.0, 1.0, 3.0])
    monkeypatch.setattr(loop, "measure", lambda *_, **__: {"direct": next(values)})
    best = ["trainer.select=best", "trainer.select_metric=direct", "evaluation.during=test"]
    folder = train(tmp_path, POLYGONS, *best, "trainer.epochs=4", "trainer.evaluate_every=1")
    state = checkpoint.load(folder / "seed-0/checkpoint.pt")
    assert state["best"]["step"] == state["step"] / 2


def test_selection_by_a_metric_that_is_not_evaluated(tmp_path: Path) -> None:
    best = ["trainer.select=best", "trainer.select_metric=accuracy", "evaluation.during=test"]
    with pytest.raises(ConfigError, match=r"trainer\.select_metric=accuracy: .*direct"):
        train(tmp_path, POLYGONS, *best)
    assert config(POLYGONS, "scale=smoke")["trainer"]["epochs"] == 2


def test_a_stat_that_the_task_does_not_measure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.stats: accuracy: of each set .* nothing$"):
        train(tmp_path, POLYGONS, "evaluation.stats=[accuracy]", "trainer.steps=0")


def test_weights_of_another_encoder_are_refused_though_they_fit(tmp_path: Path) -> None:
    classify = ("dataset.source=procedural", "trainer.steps=0")
    path = train(tmp_path, "experiment=mnist_classify_max", *classify) / "seed-0/checkpoint.pt"
    how = ("scale=smoke", "mode=eval", f"checkpoint={path}", *classify)
    text = complaint("experiment=mnist_classify_mean", *how)
    assert text.startswith(f"checkpoint={path}: another model (encoder.pooling")
    assert not (path.parent / "evaluation.json").exists()
    perform("experiment=mnist_classify_max", *how)
    assert read(path.parent / "evaluation.json")["experiment"] == "mnist_classify_max"


def test_weights_of_another_set_encoder_are_refused_though_they_fit(
    tmp_path: Path, data_root: Path
) -> None:
    """DSPN inverts it; how it does so may change."""
    where = ("scale=smoke", "figures=none", f"paths.data={data_root}")
    path = train(tmp_path, "experiment=dspn_clevr_boxes_max", "trainer.steps=0", *where[2:])
    how = (*where, "mode=eval", f"checkpoint={path}/seed-0/checkpoint.pt")
    text = complaint("experiment=dspn_clevr_boxes_sum", *how)
    assert "another model (decoder.set_encoder.pooling._target_: " in text and "\n" not in text
    perform("experiment=dspn_clevr_boxes_max", *how, "decoder.descent.step_size=400")


def test_every_evaluation_of_a_run_is_kept(tmp_path: Path) -> None:
    folder = train(tmp_path, POLYGONS, "dataset.set_size=4", "trainer.steps=0") / "seed-0"
    own = ("dataset.set_size=4", "trainer.steps=0")
    first = evaluated(folder, POLYGONS, *own)
    evaluated(folder, POLYGONS, *own, "dataset.test_size=4", "figures=none")
    evaluated(folder, POLYGONS, "trainer.steps=0", "figures=none", "dataset.set_size=5")
    (folder / "result.json").unlink()
    evaluated(folder, POLYGONS, "dataset.set_size=4", "figures=none")
    assert {path.name for path in folder.glob("evaluation*.json")} == {
        "evaluation.json",
        "evaluation-dataset.test_size=4.json",
        "evaluation-dataset.set_size=5.json",
        "evaluation-dataset.set_size=4.json",
    }
    assert read(folder / "evaluation.json")["metrics"] == first
    assert (folder / "evaluation/pictures").is_dir()


def test_pictures_that_fail_leave_the_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tmp_path, POLYGONS, "trainer.steps=0") / "seed-0"
    monkeypatch.delattr("setexp.figures.polygons.RotatingPolygon.__call__")
    evaluated(folder, POLYGONS, "figures=polygons", "trainer.steps=0")
    said = capsys.readouterr().err
    assert said.startswith("pictures: not drawn (") and "figures=none" in said


def test_weights_of_a_member_name_its_point(tmp_path: Path, data_root: Path) -> None:
    graphs = ("experiment=graphs_bio", "dataset.name=MUTAG", f"paths.data={data_root}")
    run = train(tmp_path, *graphs) / "seed-0"
    member = sorted(run.glob("members/*/fold-0"))[-1]
    how = ("scale=smoke", "mode=eval", f"checkpoint={member}/checkpoint.pt")
    text = complaint(*graphs, *how, "hidden=5")
    assert f"see {run}/config.yaml, and those of its point, {member.parent.name}" in text
    assert " ...; give" in text and "\n" not in text


def test_weights_of_a_member_are_measured_on_its_fold(tmp_path: Path, data_root: Path) -> None:
    """Other folds' test graphs are among those that it learned from."""
    graphs = ("experiment=graphs_bio", "dataset.name=MUTAG", f"paths.data={data_root}")
    run = train(tmp_path, *graphs, "seeds=[1]") / "seed-1"
    point = min(run.glob("members/*"))
    settings = [o for o in point.name.split(",") if not o.startswith("hidden")]
    how = ("scale=smoke", "mode=eval", "hidden=4", *settings)
    for fold in range(3):
        member = point / f"fold-{fold}"
        weights = f"checkpoint={member}/checkpoint.pt"
        split = '+evaluation.final={val: "", test: _test}'
        perform(*graphs, *how, weights, split, "seeds=[0,1]")
        (found,) = (read(path) for path in member.glob("evaluation*.json"))
        assert (found["seed"], found["fold"]) == (1, fold)
        last = curve(member)[-1]
        assert found["metrics"]["accuracy"] == last["val/accuracy"]
        assert found["metrics"]["accuracy_test"] == last["test/accuracy"]
    text = complaint(*graphs, *how, weights, split)
    assert "\n" not in text and text.startswith("seeds=[0]: checkpoint=")


# One pass

SETS = Polygons(set_size=3, element_dim=2, train_size=4, test_size=4)


class Mood(nn.Module):
    """A task whose loss is 1 in training and 0 otherwise; its prediction is the target."""

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        x, mask = (t.expand((steps or 0) + 1, *t.shape) for t in batch.target)
        return Outcome(mask[0, :, 0] * float(self.training), SetBatch(x, mask), {})


@pytest.mark.parametrize("double", [False, True])
def test_an_evaluation_is_no_training(double: bool) -> None:
    how = Evaluation(double=double)
    assert evaluate(Mood().train(), SETS, "test", how, 3, torch.Generator()) == {"loss": 0}


def test_an_inner_step_that_is_named_twice_is_read_once() -> None:
    metrics = {"sets": lambda p, t: {"sets": len(p.x) / len(t.x)}}
    how = Evaluation(metrics=metrics, at=[2, 1, 2])
    found = evaluate(Mood(), SETS, "test", how, 3, torch.Generator())
    assert found == {"sets@2": 1, "sets@1": 1}


class Draws(nn.Module):
    """Measures what an evaluation may draw: of the data's generator, and of the global one."""

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        stats = {"data": batch.target.x[:, 0, 0], "own": torch.rand(len(batch.target.x))}
        return Outcome(stats["own"], batch.target, stats)


def drawn(seed: int = 0, split: str = "train", when: object = 0) -> dict[str, float]:
    how: dict[str, Any] = {"batch_size": 4, "seed": seed, "when": when}
    said = Evaluation(stats=["data", "own"])
    found = measure(Draws(), SETS, split, said, device=torch.device("cpu"), **how)
    return {name: found[name] for name in said.stats}


def test_what_an_evaluation_draws_is_a_function_of_seed_split_and_time() -> None:
    usual, of_split, of_time = drawn(), drawn(split="test"), drawn(when=1)
    assert drawn() == usual
    assert of_split["data"] != usual["data"]
    assert of_time["data"] == usual["data"] and of_time["own"] != usual["own"]
    assert all(value != usual[name] for name, value in drawn(seed=1).items())
