"""Runs that begin with another run's weights, and reports and pauses on the way."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from smoke_runs import assert_same_run, complaint, config, entry, only, perform, read, train

from setexp import pretrained, run
from setexp.config import compose_run
from setexp.errors import ConfigError
from setexp.files import write_text
from setexp.overrides import places
from setexp.report.records import run_folder
from setexp.training import checkpoint
from setexp.training.loop import Fit

CLASSIFY = ["experiment=mnist_classify_sum", "pretrained.use=frozen"]


@pytest.fixture
def place(tmp_path: Path, data_root: Path) -> list[str]:
    return ["scale=smoke", "figures=none", f"paths.outputs={tmp_path}", f"paths.data={data_root}"]


def encoder(folder: Path) -> dict[str, torch.Tensor]:
    model = checkpoint.load(folder / "checkpoint.pt")["model"]
    return {k: v for k, v in model.items() if k.startswith("encoder.")}


def run_of(tmp_path: Path, experiment: str, data: str = "smoke-procedural") -> Path:
    (folder,) = (tmp_path / experiment).glob(f"*/{data}/seed-0")
    return folder


def test_a_missing_run_is_named_with_its_command_before_anything_is_written(
    tmp_path: Path, place: list[str]
) -> None:
    said = complaint(*CLASSIFY, "dataset.noise=0.05", *place)
    command = "python train.py experiment=mnist_sum dataset.noise=0.05 seeds=[0] scale=smoke"
    where = sorted(o for o in place if o.startswith("paths."))
    assert said.endswith(" ".join([command, *where]))
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_does_not_exist_is_named(place: list[str]) -> None:
    said = complaint(*CLASSIFY, "pretrained.row=Sum + MPL", *place)
    assert "pretrained.row=Sum + MPL" in said and "Sum + MLP" in said


def test_the_command_of_a_missing_run_has_the_places_that_were_given(tmp_path: Path) -> None:
    given = ["dataset.source=procedural", "paths.data='/d 1'", f"paths.outputs={tmp_path}"]
    overrides = [*CLASSIFY, "seeds=[0]", "trainer.lr=0.1", "threads=1", *given]
    node = config(*overrides)["pretrained"]
    with pytest.raises(ConfigError) as error:
        pretrained.trained(node, 0, tmp_path, "smoke", "procedural", places(overrides))
    command = shlex.split(str(error.value).partition("python train.py ")[2])
    assert command == ["experiment=mnist_sum", "seeds=[0]", "scale=smoke", *given]


def test_what_is_no_science_is_said_to_the_first_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr(run, "execute", lambda _, overrides: told.append(overrides))
    for_both = ["threads=2", "device=cpu", "seeds=[1]"]
    given = [*CLASSIFY, *for_both, "trainer.steps=1"]
    run.train_first(compose_run(given), given)
    assert set(for_both) <= set(*told) and "trainer.steps=1" not in told[0]


@pytest.mark.parametrize("part", ["null", "3", "[]", "[encoder,1]"])
def test_a_part_that_is_no_name_is_refused(part: str, place: list[str]) -> None:
    said = complaint(*CLASSIFY, f"pretrained.part={part}", *place)
    assert "pretrained.part=" in said and "name a submodule of both models" in said


@pytest.mark.parametrize("text", ["[1]", "{}", "{"])
def test_a_result_that_is_no_record_is_named(text: str, tmp_path: Path) -> None:
    node = config(*CLASSIFY)["pretrained"]
    path = run_folder(pretrained.origin(node), 0, tmp_path, "smoke", "procedural") / "result.json"
    write_text(path, text)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: not ")):
        pretrained.trained(node, 0, tmp_path, "smoke", "procedural")


def test_what_holds_for_both_runs_is_said_to_both(tmp_path: Path, place: list[str]) -> None:
    alike = "dataset.noise_on_padding=false"
    both = [alike, f'pretrained.overrides=["{alike}"]']
    said = complaint(*CLASSIFY, *both, *place)
    assert f"python train.py experiment=mnist_sum {alike} seeds=[0] scale=smoke" in said
    perform("experiment=mnist_sum", alike, *place)
    perform(*CLASSIFY, *both, *place)
    first, second = (encoder(run_of(tmp_path, e)) for e in ("mnist_sum", "mnist_classify_sum"))
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    assert "pretrained.overrides: x: " in complaint(*CLASSIFY, "pretrained.overrides=[x]", *place)


@pytest.mark.parametrize("use", ["frozen", "unfrozen"])
def test_a_table_trains_the_run_with_the_weights_first(
    use: str, tmp_path: Path, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"run=sum-1ep_{use}"
    code, errors = entry(capsys, "table=thesis_5_7", run, "seeds=[0]", *place)
    assert (code, errors) == (0, [])
    first, second = (run_of(tmp_path, e) for e in ("mnist_sum", "mnist_classify_sum"))
    assert read(first / "result.json")["status"] == "done"
    same = [torch.equal(v, encoder(second)[k]) for k, v in encoder(first).items()]
    assert all(same) if use == "frozen" else not any(same)
    shutil.rmtree(tmp_path / "mnist_sum")
    assert entry(capsys, "table=thesis_5_7", run, "seeds=[0]", *place)[0] == 0
    assert not (tmp_path / "mnist_sum").exists(), "what is done needs it no more"


def test_seeds_begin_with_the_weights_of_their_own_runs(tmp_path: Path, place: list[str]) -> None:
    """In a stack, too, and the fixed weights of each stay its own."""
    train(tmp_path / "both", "experiment=mnist_sum", "seeds=[0,1]", *place[3:])
    outputs = [f"paths.outputs={tmp_path / 'both'}", *place[3:]]
    perform(*CLASSIFY, "seeds=[0,1]", "scale=smoke", *outputs)

    for seed in (0, 1):
        (first,) = (tmp_path / "both/mnist_sum").glob(f"*/*/seed-{seed}")
        (second,) = (tmp_path / "both/mnist_classify_sum").glob(f"*/*/seed-{seed}")
        before, after = encoder(first), encoder(second)
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert read(second / "result.json")["provenance"]["stacked_seeds"] == 2


def test_seeds_get_their_weights_beside_one_that_has_begun(
    tmp_path: Path, place: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies before its first step has a checkpoint, others have none."""

    def dies(*_: object) -> None:
        raise RuntimeError("out of memory")

    perform("experiment=mnist_sum", "seeds=[0,1]", *place)
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_step", dies)
        with pytest.raises(ConfigError, match="first batch failed: RuntimeError: out of memory"):
            perform(*CLASSIFY, "seeds=[0]", *place)
    perform(*CLASSIFY, "seeds=[0,1]", *place)
    for seed in (0, 1):
        first, second = (
            encoder(run_of(tmp_path, name).with_name(f"seed-{seed}"))
            for name in ("mnist_sum", "mnist_classify_sum")
        )
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_finished_run_is_kept_where_its_weights_are_gone(
    tmp_path: Path, place: list[str]
) -> None:
    perform("experiment=mnist_sum", *place)
    perform(*CLASSIFY, *place)
    shutil.rmtree(tmp_path / "mnist_sum")
    assert "is missing" in complaint(*CLASSIFY, *place, "restart=true")
    assert read(run_of(tmp_path, "mnist_classify_sum") / "result.json")["status"] == "done"


def test_several_parts_begin_with_the_weights_of_one_run(tmp_path: Path, place: list[str]) -> None:
    train(tmp_path, "experiment=sslr_circles_srn", *place[3:])
    outputs = ["scale=smoke", f"paths.outputs={tmp_path}", *place[3:]]
    perform("experiment=sslr_matching_srn_r", "pretrained.use=frozen", *outputs)
    first, second = (
        checkpoint.load(run_of(tmp_path, e, "smoke-synthetic") / "checkpoint.pt")
        for e in ("sslr_circles_srn", "sslr_matching_srn_r")
    )
    first, second = first["best"]["model"], second["model"]
    taken = [k for k in first if not re.search("running|tracked", k)]
    assert {k.split(".")[0] for k in taken} == {"encoder", "decoder", "picture"}
    assert all(torch.equal(first[k], second[k]) for k in taken)
    assert {k.split(".")[0] for k in second.keys() - first.keys()} == {"distance"}


@pytest.mark.parametrize("selected", [False, True])
def test_weights_are_those_that_the_run_reports(selected: bool, tmp_path: Path) -> None:
    last, best = ({"encoder.weight": torch.rand(1, 2)} for _ in range(2))
    state = {"seed": 0, "step": 9, "model": last, "best": {"model": best} if selected else None}
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 1, bias=False)})
    pretrained.load(model, "encoder", tmp_path)
    assert torch.equal(model["encoder"].weight, (best if selected else last)["encoder.weight"])


def test_a_pause_reports_and_the_same_command_goes_on(tmp_path: Path, data_root: Path) -> None:
    arguments = ["experiment=mnist_classify_max", f"paths.data={data_root}", "trainer.epochs=3"]
    whole = train(tmp_path / "whole", *arguments) / "seed-0"
    paused = train(tmp_path / "cut", *arguments, "trainer.until=1") / "seed-0"
    record = read(paused / "result.json")
    assert (record["status"], record["epochs"]) == ("paused", 1.0)
    assert record["metrics"].keys() == {"loss_ep1", "accuracy_ep1"}
    train(tmp_path / "cut", *arguments, "trainer.until=1")
    assert read(paused / "result.json") == record  # nothing to do
    train(tmp_path / "cut", *arguments, "trainer.until=2")
    assert read(paused / "result.json")["epochs"] == 2.0
    assert_same_run(train(tmp_path / "cut", *arguments) / "seed-0", whole)
    assert only(tmp_path / "cut") == paused.parent
