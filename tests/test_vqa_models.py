"""VQA v2: models, loss, accuracies, and the way from official files to a submission."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from smoke_runs import ROOT, complaint, config, perform, script, train
from torch import Tensor, nn
from torch.testing import assert_close
from vqa_release import FEATURES, write_release

from setexp.build import build
from setexp.datasets.vqa.prepare import OFFICIAL, real_folder
from setexp.encoders.count_survivors import Candidates, CountSurvivors
from setexp.encoders.question_gru import QuestionGRU
from setexp.losses.soft_cross_entropy import SoftCrossEntropyLoss
from setexp.metrics.question_accuracy import QuestionAccuracy, pairs
from setexp.ops.attention import Fusion, glimpses
from setexp.ops.boxes import pairwise_iou
from setexp.ops.nms import survivors
from setexp.ops.votes import agreement
from setexp.sets import Batch, SetBatch
from setexp.training.loop import steps_per_epoch
from setexp.training.optimise import learning_rate
from setexp.training.settings import Trainer

MODELS = ("vqa_baseline", "vqa_nms", "vqa_counting")


def model(experiment: str, *overrides: str) -> Any:
    return build(config(f"experiment={experiment}", "scale=smoke", *overrides)["task"], "task")


def batch(size: int = 4, n: int = 20) -> Batch:
    """Random proposals, some of them padding, and questions of 2 to 5 words."""
    corner = torch.rand(size, n, 2) * 50
    x = torch.cat([torch.rand(size, n, 6), corner, corner + 30], -1)
    mask = (torch.arange(n) < torch.randint(10, n + 1, (size, 1))).float()
    length = torch.arange(size) % 4 + 2
    word = torch.randint(1, 64, (size, 6)) * (torch.arange(6) < length.unsqueeze(1))
    target = torch.rand(size, 20)
    about = {name: torch.zeros(size, dtype=torch.int64) for name in ("question_id", "kind")}
    aux = {"word": word, "length": length, **about, "counting": about["kind"]}
    aux["partner"] = torch.full((size, 1), -1)
    return Batch(SetBatch(x * mask.unsqueeze(-1), mask), target / target.sum(1, True), aux)


# Accuracy


def test_votes_are_the_official_average() -> None:
    with np.load(ROOT / "tests/golden/vqa_text.npz") as golden:
        votes = torch.from_numpy(golden["votes"]).double()
        for name in ("accuracy", "accuracy_ten_choose_nine"):
            assert_close(agreement(votes), torch.from_numpy(golden[name]), atol=1e-12, rtol=0)
        counts, scores = (torch.from_numpy(golden[k]) for k in ("vote_counts", "scores"))
        chosen = counts.gather(1, scores.argmax(1, keepdim=True)).squeeze(1)
        wanted = torch.from_numpy(golden["batch_accuracy"])
        assert_close(agreement(chosen), wanted, atol=1e-12, rtol=0)
    for count in range(11):
        said = [1] * count + [0] * (10 - count)
        subsets = [min(sum(nine) / 3, 1) for nine in itertools.combinations(said, 9)]
        assert float(agreement(torch.tensor(float(count)))) == pytest.approx(np.mean(subsets))


def test_accuracies_by_hand() -> None:
    stats = {
        "accuracy": torch.tensor([1.0, 0.6, 1.0, 1.0, 0.0, 1.0]),
        "kind": torch.tensor([1, 1, 1, 0, 2, -1]),
        "counting": torch.tensor([1, 1, 0, 0, 0, 1]),
        "question_id": torch.tensor([10, 40, 30, 20, 50, 60]),
        # 10 and 40, 10 and 30, 20 and 50; the partner of 60 is in another split
        "partner": torch.tensor([[40, 30], [10, -1], [10, -1], [50, -1], [20, -1], [99, -1]]),
    }
    assert sorted(zip(*(p.tolist() for p in pairs(stats["question_id"], stats["partner"])),
                      strict=True)) == [(0, 1), (0, 2), (3, 4)]  # fmt: skip
    found = QuestionAccuracy()(stats)
    assert found == pytest.approx(
        {
            "accuracy_yes_no": 1.0,
            "accuracy_number": 2.6 / 3,
            "accuracy_other": 0.0,
            "accuracy_count": 0.8,
            "accuracy_all": 0.72,
            "pair_number": 0.5,
            "pair_count": 0.0,
            "pair_all": 1 / 3,
        }
    )
    unanswered = {**stats, "kind": torch.full((6,), -1)}
    assert QuestionAccuracy()(unanswered) == {}  # the server has the answers


def test_the_loss_is_the_mean_over_people() -> None:
    logits, votes = torch.randn(3, 5), torch.tensor([[3, 0, 2, 0, 1], [10, 0, 0, 0, 0], [0] * 5])
    loss = SoftCrossEntropyLoss()(logits, votes / 10)
    said = [[0, 0, 0, 2, 2, 4], [0] * 10, []]
    for row, people in enumerate(said):  # those who gave other answers count nothing
        each = nn.functional.cross_entropy(
            logits[row].expand(len(people), 5), torch.tensor(people, dtype=torch.int64),
            reduction="sum",
        )  # fmt: skip
        assert_close(loss[row], each / 10)


# Parts


def test_fusion_and_glimpses_are_the_formulas() -> None:
    fusion = Fusion(first=3, second=2, width=4, first_bias=False, dropout=0.5).eval()
    nn.init.normal_(fusion.second.bias)
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    a, b = x @ fusion.first.weight.T, y @ fusion.second.weight.T + fusion.second.bias
    assert fusion.first.bias is None
    assert_close(fusion(x, y), (a + b).relu() - (a - b) ** 2)
    elements, logits = torch.randn(2, 7, 3), torch.randn(2, 7, 2)
    weights = logits.softmax(1)
    wanted = [(weights[..., g : g + 1] * elements).sum(1) for g in range(2)]
    assert_close(glimpses(elements, logits), torch.cat(wanted, -1))


def test_what_follows_the_last_word_does_not_matter() -> None:
    gru = QuestionGRU(words=9, embedding=4, hidden=5, dropout=0.5).eval()
    word, length = torch.tensor([[3, 4, 0, 0], [5, 6, 7, 8]]), torch.tensor([2, 4])
    other = word.clone()
    other[0, 2:] = torch.tensor([7, 8])
    assert torch.equal(gru(word, length), gru(other, length))
    alone = gru(word[:1, :2], length[:1])
    assert_close(gru(word, length)[:1], alone)
    assert gru.embedding.padding_idx == 0


boxes = st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=7)


@given(boxes, st.integers(0, 2**16))
def test_suppression_is_the_greedy_one(corners: list[tuple[int, ...]], seed: int) -> None:
    torch.manual_seed(seed)
    box = torch.tensor(corners, dtype=torch.float32)
    box = torch.cat([box[:, :2], box[:, :2] + box[:, 2:] + 1], -1)
    score = torch.rand(len(box))
    kept: list[int] = []
    overlap = pairwise_iou(box, box, plus_one=False)
    for i in score.argsort(descending=True).tolist():
        if all(overlap[i, k] <= 0.5 for k in kept):
            kept.append(i)
    found = survivors(box.unsqueeze(0), score.unsqueeze(0), threshold=0.5)
    assert found[0].nonzero().squeeze(1).tolist() == sorted(kept)


@pytest.mark.parametrize(("threshold", "both"), [(0.49, False), (0.5, True)])
def test_a_box_goes_only_where_it_overlaps_more_than_the_threshold(
    threshold: float, both: bool
) -> None:
    """The second box is half of the first."""
    box, score = torch.tensor([[[0.0, 0, 1, 1], [0, 0, 1, 0.5]]]), torch.tensor([[2.0, 1.0]])
    assert survivors(box, score, threshold=threshold).tolist() == [[True, both]]


def apart(count: int) -> Tensor:
    """Boxes that do not touch, each twice."""
    left = 10.0 * torch.arange(count).repeat_interleave(2).unsqueeze(-1)
    return torch.cat([left, left, left + 5, left + 5], -1).unsqueeze(0)


@pytest.mark.parametrize(("candidates", "count"), [("top10", 5), ("all_clamped", 8)])
def test_survivors_are_counted(candidates: str, count: int) -> None:
    """Of eight things seen twice; the ten best proposals show five of them."""
    counter = CountSurvivors(objects=10, threshold=0.5, candidates=Candidates[candidates])
    logits = -torch.arange(20.0).view(1, 20, 1).expand(1, 20, 2)
    box, mask = apart(10), (torch.arange(20) < 16).float().unsqueeze(0)
    found = counter(box, logits, mask)
    assert found.shape == (1, 11) and found.argmax().item() == count and found.sum() == 1
    many = counter(apart(13), torch.zeros(1, 26, 2), torch.ones(1, 26)).argmax().item()
    assert many == 10 if candidates == "all_clamped" else 5 <= many <= 10


def test_survivors_are_scored_by_all_glimpses() -> None:
    """Two boxes overlap a third between them; by the mean of the glimpses that one is the best."""
    counter = CountSurvivors(objects=10, threshold=0.3, candidates=Candidates.all_clamped)
    boxes = torch.tensor([[[0.0, 0, 10, 10], [5.0, 0, 15, 10], [10.0, 0, 20, 10]]])
    middle_best = torch.tensor([[[2.0, -2.0], [1.5, 1.5], [-2.0, 2.0]]])
    for logits, count in ((middle_best, 1), (middle_best[..., :1], 2), (middle_best[..., 1:], 2)):
        assert counter(boxes, logits, torch.ones(1, 3)).argmax().item() == count


def test_only_the_direction_of_a_proposals_features_counts() -> None:
    task, given = model("vqa_baseline").eval(), batch()
    x = given.input.x.clone()
    x[..., :-4] *= torch.rand(x.shape[:2]).unsqueeze(-1) + 0.5
    other = given._replace(input=SetBatch(x, given.input.mask))
    assert_close(task(given).loss, task(other).loss)


@pytest.mark.parametrize("experiment", MODELS)
def test_the_order_of_proposals_does_not_matter(experiment: str) -> None:
    task, given = model(experiment).double().eval(), batch()
    order = torch.rand(20).argsort()
    x, mask = given.input.x.double(), given.input.mask.double()
    given = given._replace(input=SetBatch(x, mask), target=given.target.double())
    shuffled = given._replace(input=SetBatch(x[:, order], mask[:, order]))
    assert_close(task(given).loss, task(shuffled).loss)


def test_counts_reach_the_answer_and_gradients_the_attention() -> None:
    task = model("vqa_counting")
    given = batch()
    task(given).loss.mean().backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
    assert task.encoder.count.count.weight.grad.abs().sum() > 0
    still = model("vqa_nms")
    attended = still.encoder(given.input, given.aux["word"], given.aux["length"])
    assert not attended.counted.requires_grad and attended.counted.shape == (4, 11)


def test_sizes_are_those_of_the_thesis() -> None:
    with torch.device("meta"):
        tasks = {name: build(config(f"experiment={name}")["task"], "task") for name in MODELS}
    sizes = {name: sum(p.numel() for p in task.parameters()) for name, task in tasks.items()}
    # Linear(11, 1024) and a batch norm; and eight functions of 16 pieces
    assert sizes["vqa_nms"] - sizes["vqa_baseline"] == 12 * 1024 + 2 * 1024
    assert sizes["vqa_counting"] - sizes["vqa_nms"] == 8 * 16
    task = tasks["vqa_baseline"]
    assert task.encoder.fusion.first.weight.shape == (512, 2048)
    assert task.decoder.fusion.first.weight.shape == (1024, 4096)
    assert task.decoder.scores.weight.shape == (3000, 1024)
    trainer: Any = type("Trainer", (), config("experiment=vqa_baseline")["trainer"])
    assert learning_rate(trainer, 0, 100_000) == pytest.approx(1.5e-3 / 4)


# Runs


def test_a_count_that_nothing_takes_is_refused() -> None:
    assert complaint("experiment=vqa_counting", "decoder.counts=0") == (
        "decoder.counts=0: give the numbers of what encoder.count yields, and 0 where that is null"
    )


def documented(words: dict[str, str]) -> list[list[str]]:
    """The commands from TSV files to a submission in docs/data.md, some of their words replaced."""
    page = (ROOT / "docs/data.md").read_text()
    block = page.partition("in three commands:")[2].split("```")[1]
    for said, meant in words.items():
        assert said in block
        block = block.replace(said, meant)
    return [shlex.split(line)[1:] for line in block.strip().splitlines()]


def test_a_last_batch_of_one_is_refused(data_root: Path, tmp_path: Path) -> None:
    where = [f"paths.data={data_root}", f"paths.outputs={tmp_path}", "scale=smoke"]
    count = build(config("experiment=vqa_baseline", *where)["dataset"], "dataset").sizes("train")
    for size in (1, count - 1):
        message = complaint("experiment=vqa_baseline", f"trainer.batch_size={size}", *where)
        assert message.startswith(f"trainer.batch_size={size}: batch norm cannot train on a batch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("experiment", "questions", "steps"),
    # the first has no number in print but that of its batches, 1,697 of 256
    [("vqa_baseline", 434_400, 1697), ("ban", 443_757, 3963)],
)
def test_the_last_batch_of_an_epoch_is_trained(experiment: str, questions: int, steps: int) -> None:
    asked: Any = type("Asked", (), {"sizes": lambda *_: questions})()
    trainer = Trainer(**config(f"experiment={experiment}")["trainer"])
    assert steps_per_epoch(asked, trainer) == steps


def refused(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> str:
    """The one line with which `submit_vqa` refuses its arguments."""
    capsys.readouterr()
    assert script(monkeypatch, "submit_vqa", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_from_official_files_to_a_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/data.md, on a release in miniature and at smoke scale."""
    data, target = tmp_path / "data", tmp_path / "test.json"
    axes = f"dataset.classes=5,dataset.features={FEATURES},trainer.steps=2"
    words = {
        "/path/to/files": str(write_release(tmp_path / "official")),
        "--root data": f"--root {data}",
        "outputs/": f"{tmp_path}/",
        "default/paper-real": f"{axes}/smoke-real",
        "test.json": str(target),
    }
    (prepare, *given), (program, *arguments), (submit, run_folder, *to) = documented(words)
    programs = ["scripts/prepare_vqa.py", "train.py", "scripts/submit_vqa.py"]
    assert [prepare, program, submit] == programs
    assert script(monkeypatch, "prepare_vqa", *given) == 0
    arguments += [*axes.split(","), f"paths.data={data}"]
    run = train(tmp_path, *arguments) / "seed-0"
    assert run == Path(run_folder)
    record = json.loads((run / "result.json").read_text())
    assert record["source"] == "real" and set(record["metrics"]) == {"loss_test", "loss_test_dev"}

    capsys.readouterr()
    assert script(monkeypatch, "submit_vqa", run_folder, *to) == 0
    assert "12 answers" in capsys.readouterr().out
    found = json.loads(target.read_text())
    asked = json.loads(
        (tmp_path / f"official/v2_OpenEnded_mscoco_{OFFICIAL['test']}_questions.json").read_text()
    )["questions"]
    assert [item["question_id"] for item in found] == [item["question_id"] for item in asked]
    node = config(*arguments, "scale=smoke")["dataset"]
    answers = build(node, "dataset").answers
    assert {item["answer"] for item in found} <= set(answers)

    # weights mean nothing with other numbers of words and answers
    other = tmp_path / "other"
    procedural = ["dataset.source=procedural", f"paths.data={other}", "dataset.features=3"]
    message = complaint(
        "experiment=vqa_counting_trainval", "scale=smoke", *procedural, "dataset.classes=5",
        "mode=eval", f"checkpoint={run}/checkpoint.pt",
    )  # fmt: skip
    assert "another vocabulary: its words and answers are numbered as in" in message
    path = real_folder(data) / "vocabulary-trainval.json"
    content = json.loads(path.read_text())
    content["answers"].reverse()
    path.write_text(json.dumps(content))
    target.unlink()
    assert "another vocabulary" in refused(monkeypatch, capsys, run_folder, *to)
    assert "holds no run" in refused(monkeypatch, capsys, str(tmp_path), *to)
    assert "holds no run" in refused(monkeypatch, capsys, f"{run}/checkpoint.pt", *to)
    no_device = refused(monkeypatch, capsys, run_folder, *to, "--device", "gpu")
    assert "device=gpu: no such device; use auto, cpu or cuda" in no_device
    (run / "result.json").write_text(json.dumps({**record, "status": "paused"}))
    assert "its run is not finished" in refused(monkeypatch, capsys, run_folder, *to)
    assert not target.exists()


def test_saved_weights_are_evaluated_again(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["experiment=vqa_nms", f"paths.data={data_root}", "trainer.steps=2"]
    run = train(tmp_path, *overrides) / "seed-0"
    perform(*overrides, "scale=smoke", "mode=eval", f"checkpoint={run}/checkpoint.pt")
    again = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert again == json.loads((run / "result.json").read_text())["metrics"]
    assert {"accuracy_count", "pair_count", "accuracy_yes_no"} <= set(again)
    target = tmp_path / "val.json"
    assert script(monkeypatch, "submit_vqa", str(run), "--split", "val", "--to", str(target)) == 0
    dataset = build(config(*overrides, "scale=smoke")["dataset"], "dataset")
    assert len(json.loads(target.read_text())) == dataset.sizes("val")


def test_where_no_answers_can_be_written_is_said_before_any_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for target in (tmp_path, file / "answers.json"):
        said = refused(monkeypatch, capsys, str(tmp_path / "run"), "--to", str(target))
        assert said.startswith(f"error: --to {target}: cannot be written: ")
