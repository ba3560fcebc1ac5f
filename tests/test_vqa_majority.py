"""VQA v2 as BAN reads it: answers of the majority, 14 words, relative boxes, word vectors."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from smoke_runs import ROOT, script
from vqa_release import (
    ASKED,
    COUNTS,
    RECIPE,
    edit,
    images,
    make,
    one_pass,
    prepared,
    write_release,
)

from setexp.datasets.array_store import Store
from setexp.datasets.vqa.majority import canonical_answer
from setexp.datasets.vqa.prepare import answers_path, real_folder, vectors_path
from setexp.datasets.vqa.procedural import procedural
from setexp.datasets.vqa.text import words_of
from setexp.errors import ConfigError

BAN = {"majority": 3, "most_words": 5, "relative": True}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return prepared(write_release(tmp_path / "official"))


def test_answers_are_canonical_by_the_official_rules() -> None:
    with np.load(ROOT / "tests/golden/vqa_text.npz") as golden:
        for text, result in zip(golden["full_in"], golden["full_out"], strict=True):
            assert canonical_answer(json.loads(text)) == json.loads(result)


def test_answers_are_the_majoritys_and_count_as_they_were_written(root: Path) -> None:
    dataset = make(root, **BAN)
    # each question is asked of 4 images of train and 4 of val
    assert dataset.answers == ["yes", "light blue", "2", "", ""]  # two classes are no answer's
    given, target, aux = one_pass(dataset)[0]
    # six say 2; five write light-blue, which is not how the answer is written; nine say yes
    shares = torch.zeros(3, 5)
    shares[0, 2], shares[2, 0] = 0.6, 0.9
    assert torch.allclose(target[:3], shares)
    assert dataset.sizes("train") == 12  # questions without such an answer, too
    assert set(make(root, **BAN | {"majority": 9}).answers) == {""}
    with pytest.raises(
        ConfigError, match=r"dataset.classes=2: the majority gave 3 answers .* least 3"
    ):
        make(root, **BAN, classes=2).sizes("val")

    first = images("val")[0]
    boxes = first.boxes / np.array([640, 480, 640, 480], np.float32)
    assert np.allclose(given.x[0, :10, -4:], boxes) and (given.x[given.mask == 0] == 0).all()
    assert aux["word"].shape == (5, 5) and aux["length"].tolist()[:3] == [5, 5, 4]
    words = json.loads((real_folder(root) / "vocabulary-train.json").read_text())["words"]
    for row, text in enumerate(ASKED):
        assert [words[i - 1] for i in aux["word"][row] if i] == words_of(text)[:5]
    assert one_pass(make(root, **BAN | {"most_words": 20}))[0].aux["word"].shape == (5, 20)
    assert one_pass(dataset, "test")[0].target.eq(0).all()


def test_choices_have_fingerprints_and_vocabularies_of_their_own(
    tmp_path: Path, root: Path
) -> None:
    assert make(tmp_path).fingerprint == "vqa-procedural-04da565632"  # as without these choices
    assert make(root, **BAN).vocabulary != make(root).vocabulary
    changes: list[dict[str, Any]] = [{}, BAN, BAN | {"majority": 4}, BAN | {"relative": False}]
    changes.append(BAN | {"most_words": None})
    for place in (tmp_path, root):
        assert len({make(place, **change).fingerprint for change in changes}) == len(changes)


@pytest.mark.parametrize("name", ["majority", "most_words"])
def test_choices_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{name}=0: at least 1, or null"):
        make(tmp_path, **{name: 0})


def test_what_an_earlier_version_prepared_is_completed(tmp_path: Path) -> None:
    folder = procedural(tmp_path, RECIPE, COUNTS)
    whole = Store(answers_path(folder, "val"))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("[pq]*.h5")}
    whole.path.unlink()
    assert procedural(tmp_path, RECIPE, COUNTS) == folder
    assert Store(answers_path(folder, "val")).digest == whole.digest
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("[pq]*.h5")}
    shutil.copytree(folder, real_folder(tmp_path))
    answers_path(real_folder(tmp_path), "val").unlink()
    with pytest.raises(ConfigError, match=r"answers-val.h5 is missing; prepare it"):
        make(tmp_path, **BAN, features=4).sizes("val")


def test_answers_of_other_questions_are_refused(root: Path) -> None:
    folder = real_folder(root)
    shutil.copy(answers_path(folder, "train"), answers_path(folder, "val"))
    with pytest.raises(ConfigError, match=r"answers-val.h5 was prepared for other questions than"):
        make(root, **BAN).sizes("val")


def test_the_official_majority_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_release(tmp_path / "official")
    name = "mscoco_val2014_annotations"
    edit(source, name, lambda c: c["annotations"][3].pop("multiple_choice_answer"))
    arguments = ("--source", str(source), "--root", str(tmp_path / "data"))
    assert script(monkeypatch, "prepare_vqa", *arguments) == 2
    assert (
        "one without question_id or answers or answer_type or multiple" in capsys.readouterr().err
    )


# Word vectors


def test_vectors_of_words_and_of_those_they_are_asked_with(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = json.loads((real_folder(root) / "vocabulary-train.json").read_text())["words"]
    vectors = {w: np.random.default_rng(i).random(3) for i, w in enumerate(words) if w != "shirt"}
    file = root / "vectors.txt"
    lines = [" ".join([w, *map(str, v)]) for w, v in {**vectors, "other": np.ones(3)}.items()]
    file.write_text("\n".join(lines) + "\n")
    source = root.parent / "official"
    arguments = ("--source", str(source), "--root", str(root), "--vectors", str(file))
    assert script(monkeypatch, "prepare_vqa", *arguments) == 0
    assert "vectors-train.npy: word vectors" in capsys.readouterr().out
    rows = np.load(vectors_path(real_folder(root), "train"))
    assert rows.shape == (len(words) + 1, 6) and not rows[0].any()
    asked = [words_of(text) for text in ASKED] * 4
    count = Counter(w for question in asked for w in question)
    for number, word in enumerate(words, start=1):
        own, sums, total = vectors.get(word, np.zeros(3)), np.zeros(3), 0.0
        for question in asked:
            for i, one in enumerate(question):
                for j, other in enumerate(question):
                    if one == word and i != j:
                        sums = sums + vectors.get(other, np.zeros(3)) / count[other]
                        total += 1 / count[other]
        assert np.allclose(rows[number, :3], own), word
        assert np.allclose(rows[number, 3:], sums / total), word

    for content, message in (
        (None, "vectors.txt cannot be read"),
        (
            "is 1 2\nthe 1",
            "vectors.txt: a line is no word and its vector (the has 1 numbers, others 2",
        ),
        ("is 1 2\nthe 1 x", "could not convert string to float: 'x'"),
        ("dogma 1 2", "vectors.txt has vectors of none of the 14 words"),
    ):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        assert script(monkeypatch, "prepare_vqa", *arguments) == 2
        assert message in capsys.readouterr().err
