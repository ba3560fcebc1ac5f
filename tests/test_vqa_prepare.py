"""VQA v2: text, official files to stores, and what is refused on the way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from smoke_runs import ROOT, script
from vqa_release import (
    ASKED,
    FEATURES,
    SAID,
    edit,
    images,
    make,
    prepared,
    write_release,
    write_table,
)

from setexp.datasets.array_store import Store
from setexp.datasets.vqa import prepare as prepare_module
from setexp.datasets.vqa import proposals as proposals_module
from setexp.datasets.vqa.prepare import prepare, real_folder
from setexp.datasets.vqa.proposals import prepare_proposals
from setexp.datasets.vqa.text import normalise_answer, words_of
from setexp.errors import ConfigError


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "official")


# Text


def test_answers_and_words_are_those_of_the_released_code() -> None:
    with np.load(ROOT / "tests/golden/vqa_text.npz") as golden:
        for name, ours in (("answer", normalise_answer), ("question", words_of)):
            given, wanted = golden[f"{name}_in"], golden[f"{name}_out"]
            for text, result in zip(given, wanted, strict=True):
                assert ours(json.loads(text)) == json.loads(result)


# Official files to stores


def test_stores_hold_what_the_files_say(release: Path) -> None:
    folder = real_folder(prepared(release))
    store = Store(folder / "proposals-trainval.h5").verify()
    given = [*images("train"), *images("val")]
    assert store.array("image_id").tolist() == [image.image_id for image in given]
    assert store.array("count").tolist() == [10, 11, 12, 13] * 2
    assert store.array("size").tolist() == [[640, 480]] * 8
    assert np.array_equal(store.mapped("features"), np.concatenate([i.features for i in given]))
    assert np.array_equal(store.array("boxes"), np.concatenate([i.boxes for i in given]))

    asked = Store(folder / "questions-val.h5").verify()
    words, answers = asked.texts("words"), asked.texts("answers")
    found = [[words[i] for i in row if i >= 0] for row in asked.array("word")[:3]]
    assert found == [words_of(text) for text in ASKED]
    for row, said in zip(asked.array("answer")[:3], SAID, strict=True):
        assert [answers[i] for i in row] == [normalise_answer(text) for text in said]
    assert asked.array("kind")[:3].tolist() == [1, 2, 0]
    assert asked.array("counting")[:3].tolist() == [1, 0, 0]
    assert asked.array("pair").tolist() == [[2000, 2010], [2001, 2011], [2020, 2030]]

    of_test = Store(folder / "questions-test.h5")
    assert (of_test.array("answer") == -1).all() and (of_test.array("kind") == -1).all()


def test_frequent_words_and_answers_come_first_ties_backwards(release: Path) -> None:
    folder = real_folder(prepared(release))
    vocabulary = json.loads((folder / "vocabulary-train.json").read_text())
    counts = Counter(normalise_answer(a) for said in SAID for a in said)
    assert vocabulary["answers"] == ["yes", "2", "light blue", "3", "blue white", "red", "no"]
    assert [counts[a] for a in vocabulary["answers"]] == [9, 6, 5, 4, 3, 2, 1]
    assert vocabulary["words"][0] == "is"  # twice; the others once, "what" last in the alphabet
    assert vocabulary["words"][1] == "what"
    both = json.loads((folder / "vocabulary-trainval.json").read_text())
    assert both["answers"] == vocabulary["answers"] and both["from"] != vocabulary["from"]


def test_half_precision_is_an_option(release: Path, tmp_path: Path) -> None:
    store = prepare_proposals(tmp_path / "p.h5", [release / "val.tsv"], dtype="float16")
    assert store.mapped("features").dtype == np.float16
    assert store.array("boxes").dtype == np.float32


def test_an_interrupted_preparation_goes_on(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [release / "train.tsv", release / "val.tsv"]
    whole = prepare_proposals(tmp_path / "whole.h5", files)
    read, lines = proposals_module.read_line, []

    def counted(line: bytes, where: str) -> Any:
        lines.append(where)
        if len(lines) == 6:
            raise KeyboardInterrupt
        return read(line, where)

    monkeypatch.setattr(proposals_module, "read_line", counted)
    path = tmp_path / "parts.h5"
    with pytest.raises(KeyboardInterrupt):
        prepare_proposals(path, files, part_images=2)
    assert not path.exists()
    damaged = sorted((tmp_path / "parts").parent.rglob("*.parts/00/00001.h5"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    store = prepare_proposals(path, files, part_images=2)
    # 3 and 4 of the damaged part, and all of the second file
    assert [int(where.split()[-1]) for where in lines[6:]] == [3, 4, 1, 2, 3, 4]
    assert store.digest == whole.digest
    assert not list(tmp_path.rglob("*.parts"))
    lines.clear()
    (tmp_path / ".parts.h5.0.parts").mkdir()  # of a process that was killed at its very end
    prepare_proposals(path, files, part_images=2)
    assert lines == [] and not list(tmp_path.rglob("*.parts"))
    monkeypatch.undo()
    write_table(files[1], images("val", 3))  # other files are noticed
    assert len(prepare_proposals(path, files).array("image_id")) == 7


def truncate(folder: Path) -> None:
    path = folder / "val.tsv"
    path.write_bytes(path.read_bytes()[:-30])


def cut_fields(folder: Path) -> None:
    path = folder / "val.tsv"
    path.write_bytes(b"\t".join(path.read_bytes().split(b"\t")[:-2]))


def replace_table(folder: Path, **changes: Any) -> None:
    rows = images("val")
    rows[1] = rows[1]._replace(**changes)
    write_table(folder / "val.tsv", rows)


def more_boxes(folder: Path) -> None:
    image = images("val")[1]
    content = (folder / "val.tsv").read_bytes()
    of = b"201\t640\t480\t"
    (folder / "val.tsv").write_bytes(content.replace(of + b"11", of + b"12"))
    assert len(image.boxes) == 11


def unknown_image(folder: Path) -> None:
    write_table(folder / "val.tsv", images("val", 3))


SAID_OF_VAL, ASKED_OF_VAL = "mscoco_val2014_annotations", "OpenEnded_mscoco_val2014_questions"
GUARDS: dict[str, tuple[Any, str]] = {
    "cut off": (truncate, "val.tsv: line 4 is cut off"),
    "fields": (cut_fields, "val.tsv: line 4 is cut off; download or copy the file again (4 of 6"),
    "boxes": (more_boxes, "line 2, image 201: num_boxes=12, but boxes hold 11"),
    "none": (
        lambda f: replace_table(f, boxes=np.zeros((0, 4), np.float32)),
        "line 2, image 201: num_boxes=0; there must be 1 to 100",
    ),
    "no size": (
        lambda f: replace_table(f, size=(640, 0)),
        "line 2, image 201: a size of 640 x 0 pixels",
    ),
    "features": (
        lambda f: replace_table(f, features=np.zeros((5, FEATURES), np.float32)),
        "num_boxes=11, but its 15 features are not so many rows",
    ),
    "widths": (
        lambda f: replace_table(f, features=np.zeros((11, 5), np.float32)),
        "line 2 has 5 features a box, earlier ones 3",
    ),
    "twice": (lambda f: replace_table(f, image_id=200), "image 200 is in the TSV files 2 times"),
    "empty": (lambda f: (f / "val.tsv").write_bytes(b""), "val.tsv is empty"),
    "no table": (
        lambda f: [p.unlink() for p in f.glob("[tv]*n.tsv")] + [(f / "val.tsv").unlink()],
        "no bottom-up features of trainval images (*.tsv) there",
    ),
    "unknown image": (
        unknown_image,
        "val2014_questions.json: 3 of 12 questions are about images without proposals",
    ),
    "annotations": (
        lambda f: edit(f, SAID_OF_VAL, lambda c: c["annotations"].pop(2)),
        "has 11 annotations of 12 questions, none of question 2002",
    ),
    "answers": (
        lambda f: edit(f, SAID_OF_VAL, lambda c: c["annotations"][0]["answers"].pop()),
        "question 2000 has 9 answers of type number; there must be 10",
    ),
    "no text": (
        lambda f: edit(
            f, SAID_OF_VAL, lambda c: c["annotations"][0]["answers"][0].update(answer=3)
        ),
        "question 2000 has 9 answers of type number; there must be 10",
    ),
    "no number": (
        lambda f: edit(f, ASKED_OF_VAL, lambda c: c["questions"][3].update(image_id="x")),
        "questions.json is no official file of questions (no questions, or one without question_id",
    ),
    "twice asked": (
        lambda f: edit(f, ASKED_OF_VAL, lambda c: c["questions"][3].update(question_id=2000)),
        "val2014_questions.json has a question_id twice; download it again",
    ),
    "pairs": (
        lambda f: edit(f, "mscoco_val2014_complementary_pairs", lambda c: c.append([1, 2])),
        "names questions that are not in its split",
    ),
    "no JSON": (
        lambda f: (f / f"v2_{SAID_OF_VAL}.json").write_text('{"annotations": [{}'),
        "is no official file of annotations",
    ),
    "no annotations": (
        lambda f: (f / f"v2_{SAID_OF_VAL}.json").unlink(),
        "annotations.json is missing",
    ),
    "no pairs": (
        lambda f: (f / "v2_mscoco_val2014_complementary_pairs.json").unlink(),
        "it comes with the official annotations",
    ),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_what_is_wrong_is_one_line_and_nothing_is_half_written(
    guard: str, release: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = GUARDS[guard]
    spoil(release)
    root = release.parent / "data"
    code = script(monkeypatch, "prepare_vqa", "--source", str(release), "--root", str(root))
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and line.startswith("error: ") and message in line
    folder = real_folder(root)
    for path in folder.rglob("*.h5") if folder.exists() else ():
        Store(path).verify()  # parts and stores that are there are whole
    assert not list(root.rglob("*.unfinished"))
    assert not (folder / "vocabulary-train.json").exists()


def test_the_script_prepares_and_verifies(
    release: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = release.parent / "data"
    arguments = ("--source", str(release), "--root", str(root), "--verify")
    assert script(monkeypatch, "prepare_vqa", *arguments) == 0
    printed = capsys.readouterr().out
    assert "proposals-test2015.h5: content" in printed
    assert "14 words, 7 answers" in printed
    path = real_folder(root) / "proposals-trainval.h5"
    store = Store(path)
    with path.open("r+b") as file:
        file.seek(store.mapped("features").offset)
        file.write(b"xxxx")
    assert script(monkeypatch, "prepare_vqa", *arguments) == 2
    assert "is damaged in features" in capsys.readouterr().err


def test_half_precision_stays_and_what_cannot_be_read_or_written_is_one_line(
    release: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = release.parent / "data"
    arguments = ("--source", str(release), "--root", str(root))
    assert script(monkeypatch, "prepare_vqa", *arguments, "--dtype", "float16") == 0
    path = real_folder(root) / "proposals-trainval.h5"
    before = Store(path).digest
    assert script(monkeypatch, "prepare_vqa", *arguments) == 0
    assert Store(path).about["dtype"] == "float16" and Store(path).digest == before
    assert script(monkeypatch, "prepare_vqa", *arguments, "--vectors", "glove.txt") == 2
    assert "glove.txt cannot be read (no such file)" in capsys.readouterr().err
    (release.parent / "file").write_text("")
    assert script(monkeypatch, "prepare_vqa", *arguments[:3], str(release.parent / "file")) == 2
    assert "cannot write" in capsys.readouterr().err
    gone = release / "gone.tsv"  # since the files were listed
    monkeypatch.setattr(prepare_module, "_tables", lambda *_: [gone])
    assert script(monkeypatch, "prepare_vqa", *arguments) == 2
    assert capsys.readouterr().err == f"error: [Errno 2] No such file or directory: '{gone}'\n"


def another_layout(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["layout"] = 0


def no_store(path: Path) -> None:
    path.write_bytes(b"none")


@pytest.mark.parametrize("spoil", [no_store, another_layout], ids=lambda spoil: spoil.__name__)
def test_preparing_again_mends_what_cannot_be_read(release: Path, spoil: Any) -> None:
    """ "Prepare it again" is what every complaint about a file says."""
    folder = real_folder(prepared(release))
    paths = sorted(folder.glob("*.*"))
    before = {path: path.read_bytes() for path in paths}
    for path in paths:
        spoil(path) if path.suffix == ".h5" else path.write_text('["a", 1')
        prepare(release, folder)
        assert {p: p.read_bytes() for p in paths} == before
    vocabulary = folder / "vocabulary-train.json"
    vocabulary.write_text("[1]")
    with pytest.raises(ConfigError, match="is missing or no vocabulary"):
        make(folder.parents[1]).sizes("val")
    with pytest.raises(ConfigError, match="part_images=0: at least 1"):
        prepare(release, folder, part_images=0)
