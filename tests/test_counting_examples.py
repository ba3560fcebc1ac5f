"""Figure 3.11: which questions it shows, and that it shows what the model saw."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from smoke_runs import config
from torch import nn
from torch.testing import assert_close

from setexp.build import build
from setexp.datasets.vqa.dataset import VQA
from setexp.figures import canvas
from setexp.figures.counting_examples import CountingExamples, Example, titles
from setexp.sets import Batch

WANTED = ["2", "0", "1", "blue"]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("data")
    return config("experiment=vqa_counting", "scale=smoke", f"paths.data={root}")


@pytest.fixture
def task(nodes: dict[str, Any]) -> nn.Module:
    return build(nodes["task"], "task")


@pytest.fixture
def dataset(nodes: dict[str, Any]) -> VQA:
    return build(nodes["dataset"], "dataset")


def figure(**changes: Any) -> CountingExamples:
    how = {"counting": "encoder.count.count", "split": "val", "answers": WANTED, "batch_size": 7}
    return CountingExamples(**{**how, **changes})


def shown(task: nn.Module, dataset: VQA, **changes: Any) -> list[Example]:
    return figure(**changes).examples(task, dataset, torch.Generator())


def first(dataset: VQA, answer: str) -> Batch:
    """The first counting question to which most people gave an answer, alone."""
    how = {"shuffle": False, "drop_last": False}
    for batch in dataset.batches("val", 1, torch.Generator(), **how):
        if batch.aux["counting"] and dataset.answers[int(batch.target.argmax())] == answer:
            return batch
    raise AssertionError


def test_each_answer_has_its_first_counting_question(task: nn.Module, dataset: VQA) -> None:
    found = shown(task, dataset)
    assert [example.said for example in found] == WANTED[:3]  # no count is blue
    for example in found:
        batch = first(dataset, example.said)
        words = batch.aux["word"][0, : batch.aux["length"][0]]
        assert example.question == dataset.question(words.tolist())
        assert example.question.startswith("how many ")
        assert example.votes == round(10 * float(batch.target.max()))
        outcome = task(batch)
        assert example.predicted == dataset.answers[int(outcome.stats["answer"])]
    assert shown(task, dataset, answers=["blue"]) == []


def test_what_is_shown_is_what_the_model_saw(task: nn.Module, dataset: VQA) -> None:
    (example,) = shown(task, dataset, answers=["2"])
    batch = first(dataset, "2")
    x, mask = batch.input
    attended = task.encoder(batch.input, batch.aux["word"], batch.aux["length"])
    place = torch.arange(11.0)
    count = (attended.counted[0] * place).sum() / attended.counted[0].sum()
    assert_close(count.item(), example.c, rtol=1e-4, atol=1e-4)
    A, _, C = example.matrices
    assert_close(A, example.weight.unsqueeze(0) * example.weight.unsqueeze(1))
    assert_close(C.sum().sqrt().item(), example.c, rtol=1e-4, atol=1e-4)
    there = x[0, mask[0] > 0][:, -4:] / x[0, :, -4:].amax(0)[2:].repeat(2)
    distance = torch.cdist(example.boxes, torch.cat([there, torch.zeros(1, 4)])).amin(1)
    assert distance.max() < 1e-6  # its proposals, or padding
    assert not task.encoder.count.count._forward_pre_hooks  # the model is left as it was


def test_titles_say_question_prediction_and_answer() -> None:
    parts = {"boxes": torch.rand(2, 4), "weight": torch.rand(2), "matrices": torch.rand(3, 2, 2)}
    right = Example("how many cats are there", "2", "2", 7, **parts, c=2.1)
    text, color = titles(right)
    assert text == "how many cats are there?\n2; people: 2 (7 of 10)" and color == canvas.INK
    assert titles(right._replace(predicted="3"))[1] == canvas.MISTAKE
    none = right._replace(predicted="")  # where there are fewer answers than classes
    assert titles(none) == (text.replace("\n2;", "\nno answer;"), canvas.MISTAKE)


def test_rows_are_drawn_for_the_questions_there_are(
    task: nn.Module, dataset: VQA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    save = canvas.save
    monkeypatch.setattr(canvas, "save", lambda f, path: drawn.append(f) or save(f, path))
    (path,) = figure()(task, dataset, tmp_path, torch.Generator())
    assert path.read_bytes().startswith(b"\x89PNG")
    panels = drawn[0].axes
    assert len(panels) == 4 * 3 and len(panels[0].patches) == 10
    boxes = [axes.get_position() for axes in panels[::4]]
    room = [above.y0 - below.y1 for above, below in pairwise(boxes)]
    assert min(room) * drawn[0].get_figheight() > 0.5  # inches for a title
    assert figure(answers=["blue"])(task, dataset, tmp_path, torch.Generator()) == []
