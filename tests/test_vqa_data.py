"""VQA v2: official files to stores, what is refused, procedural scenes, batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from smoke_runs import ROOT, script
from vqa_release import ASKED, FEATURES, SAID, images, write_release, write_table

from setexp.datasets.array_store import Store
from setexp.datasets.vqa import proposals as proposals_module
from setexp.datasets.vqa.dataset import VQA
from setexp.datasets.vqa.prepare import prepare, real_folder
from setexp.datasets.vqa.procedural import procedural, write_official
from setexp.datasets.vqa.proposals import prepare_proposals
from setexp.datasets.vqa.scenes import Recipe, draw_scenes
from setexp.datasets.vqa.sentences import TEMPLATES, ask, people
from setexp.datasets.vqa.split import partners
from setexp.datasets.vqa.text import normalise_answer, words_of
from setexp.errors import ConfigError
from setexp.sets import Batch

RECIPE = Recipe(features=4, objects=4, duplicates=2, distractors=4, seed=0)
COUNTS = {"train": 30, "val": 20, "test": 10}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "official")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return procedural(tmp_path_factory.mktemp("data"), RECIPE, COUNTS)


def make(root: Path, **changes: Any) -> VQA:
    arguments = {
        "root": str(root), "set_size": 20, "features": FEATURES, "words": 64, "classes": 5,
        "objects": 4, "duplicates": 2, "distractors": 4, "train_images": 30, "val_images": 20,
        "test_images": 10,
    }  # fmt: skip
    return VQA(**{**arguments, **changes})


def one_pass(dataset: VQA, split: str = "val", **how: Any) -> list[Batch]:
    how = {"shuffle": False, "drop_last": False} | how
    return list(dataset.batches(split, 5, torch.Generator().manual_seed(3), **how))


def prepared(release: Path) -> Path:
    root = release.parent / "data"
    prepare(release, real_folder(root))
    return root


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


def edit(folder: Path, name: str, change: Any) -> None:
    path = folder / f"v2_{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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


# Stores to batches


def test_a_store_of_another_version_is_refused(release: Path) -> None:
    root = prepared(release)
    path = real_folder(root) / "questions-val.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["layout"] = 0
    with pytest.raises(ConfigError, match="has layout 0, this version reads 1; delete it"):
        make(root).sizes("val")
    path.write_bytes(b"none")
    with pytest.raises(ConfigError, match="is not a store"):
        make(root).sizes("val")


def test_stores_that_do_not_belong_together_are_refused(release: Path) -> None:
    root = prepared(release)
    folder = real_folder(root)
    prepare_proposals(folder / "proposals-trainval.h5", [release / "val.tsv"])
    with pytest.raises(ConfigError, match="was prepared for other proposals"):
        make(root).sizes("val")
    (folder / "vocabulary-train.json").write_text(
        '{"layout": 1, "from": [], "words": [], "answers": []}'
    )
    with pytest.raises(ConfigError, match="is of other questions, or another version"):
        make(root).sizes("val")
    (folder / "vocabulary-train.json").write_text("{}")
    with pytest.raises(ConfigError, match="is missing or no vocabulary"):
        make(root).sizes("val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": 14}, "dataset.words=14: the questions have 14 words; give at least 15"),
        ({"features": 9}, "dataset.features=9: those of .* have 3"),
        ({"set_size": 12}, "dataset.set_size=12: .* has images of 13 proposals"),
        ({"source": "fake"}, "dataset.source=fake: choose one of"),
        ({"learned": "val"}, "dataset.learned=val: choose one of train, trainval"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    release: Path, changes: dict[str, Any], message: str
) -> None:
    root = prepared(release)
    with pytest.raises(ConfigError, match=message):
        make(root, **changes).sizes("val")


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.source=real, but .*scripts/prepare_vqa.py"):
        make(tmp_path, source="real")
    with pytest.raises(ConfigError, match="dataset.set_size=11: scenes have up to 12"):
        make(tmp_path, set_size=11)
    with pytest.raises(ConfigError, match="dataset.objects=0: at least 1"):
        make(tmp_path, objects=0)
    with pytest.raises(ConfigError, match="dataset.distractors=-1: at least 0"):
        make(tmp_path, distractors=-1)
    with pytest.raises(ConfigError, match="dataset.data_seed=-1: at least 0"):
        make(tmp_path, data_seed=-1)
    with pytest.raises(ConfigError, match="dataset.classes=0: at least 1"):
        make(tmp_path, classes=0)


def test_half_a_release_is_not_taken_for_none(release: Path) -> None:
    root = prepared(release)
    (real_folder(root) / "vocabulary-train.json").unlink()
    assert make(root, learned="trainval").source == "real"
    with pytest.raises(ConfigError, match=r"dataset.source=auto: .*real is prepared in part; run"):
        make(root)
    assert make(root, source="procedural").source == "procedural"


def test_batches_of_the_release(release: Path) -> None:
    dataset = make(prepared(release))
    assert dataset.source == "real" and dataset.sizes("train") == 12
    assert dataset.answers == ["yes", "2", "light blue", "3", "blue white"]
    given, target, aux = one_pass(dataset)[0]
    assert given.x.shape == (5, 20, FEATURES + 4) and target.shape == (5, 5)
    assert given.mask.sum(1).tolist() == [10, 10, 10, 11, 11]
    first = images("val")[0]
    assert np.array_equal(given.x[0, :10], np.concatenate([first.features, first.boxes], 1))
    assert (given.x[given.mask == 0] == 0).all()
    assert torch.allclose(target[:3], torch.tensor(
        [[0, 0.6, 0, 0.4, 0], [0, 0, 0.5, 0, 0.3], [0.9, 0, 0, 0, 0]]
    ))  # fmt: skip
    words = json.loads((Path(dataset._real) / "vocabulary-train.json").read_text())["words"]
    assert [words[i - 1] for i in aux["word"][0, : aux["length"][0]]] == words_of(ASKED[0])
    assert (aux["word"][0, aux["length"][0] :] == 0).all()
    assert aux["partner"].squeeze(1).tolist() == [2010, 2011, -1, 2000, 2001]
    assert dataset.sizes("test") == 12 and (one_pass(dataset, "test")[0].target == 0).all()
    (real_folder(release.parent / "data") / "questions-test_dev.h5").unlink()
    with pytest.raises(ConfigError, match="split test_dev: .* is missing"):
        dataset.sizes("test_dev")


def test_what_is_learned_is_a_choice(release: Path) -> None:
    root = prepared(release)
    one, both = make(root), make(root, learned="trainval")
    assert both.sizes("train") == 24 and both.fingerprint != one.fingerprint
    few = make(root, classes=2)
    assert few.sizes("train") == 8 and few.sizes("val") == 12  # no colour can be learned
    assert few.vocabulary != one.vocabulary == both.vocabulary
    assert make(root, classes=9).answers[5:] == ["red", "no", "", ""]  # nobody said more


def test_the_fingerprint_is_of_the_proposals_too(release: Path) -> None:
    """The same questions about features in half precision are other data."""
    root = prepared(release)
    before = make(root).fingerprint
    assert make(root).fingerprint == before
    prepare(release, real_folder(root), dtype="float16")
    assert make(root).fingerprint != before


def test_a_pass_is_a_function_of_its_generator(scenes: Path) -> None:
    dataset = make(scenes.parents[1], features=4)
    how = {"shuffle": True, "drop_last": True}
    whole, rest = one_pass(dataset, "train", **how), one_pass(dataset, "train", start=3, **how)
    assert len(whole) == dataset.sizes("train") // 5 == len(rest) + 3
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.input.x, b.input.x) and torch.equal(a.target, b.target)
    assert one_pass(dataset, "train", start=len(whole), **how) == []


def test_batches_are_the_same_from_memory_and_from_the_file(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("setexp.datasets.vqa.rows._COPY_ROWS", 7)
    passes = []
    for resident in (True, False):
        monkeypatch.setattr("setexp.datasets.vqa.dataset.fits", lambda *_, r=resident: r)
        passes.append(one_pass(make(scenes.parents[1], features=4)))
    for a, b in zip(*passes, strict=True):
        assert torch.equal(a.input.x, b.input.x) and torch.equal(a.input.mask, b.input.mask)


def test_partners_of_questions_in_several_pairs() -> None:
    found = partners(np.array([7, 5, 9, 8]), np.array([[5, 7], [5, 9]]))
    assert found.tolist() == [[5, -1], [7, 9], [5, -1], [-1, -1]]
    assert partners(np.array([1, 2]), np.zeros((0, 2), np.int64)).tolist() == [[-1], [-1]]


# Procedural scenes


def test_procedural_files_are_a_function_of_the_recipe(tmp_path: Path) -> None:
    for name, recipe in (("a", RECIPE), ("b", RECIPE), ("c", RECIPE._replace(seed=1))):
        write_official(tmp_path / name, recipe, COUNTS)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 15
    for file in files:
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b != c


def test_questions_have_the_answers_that_the_scenes_show() -> None:
    rng = np.random.default_rng(1)
    scenes = draw_scenes(rng, 60, RECIPE._replace(objects=8))
    asked = ask(rng, scenes, 4)
    seen = Counter()
    for image, template, noun, colour, truth in zip(*asked[:5], strict=True):
        there = scenes.noun[image] == noun
        coloured = there & (scenes.colour[image] == colour)
        _, asks, named = TEMPLATES[template]
        seen[asks] += 1
        if asks in ("colour", "digit"):
            assert there.sum() == 1
            assert getattr(scenes, asks)[image][there] == truth
        elif asks == "all":
            assert truth == (coloured.sum() == there.sum()) and there.sum() > 1
        else:
            found = (coloured if named else there).sum()
            assert truth == (found if asks == "count" else found > 0)
    assert set(seen) == {asks for _, asks, _ in TEMPLATES}
    first, second = asked.pair.T
    assert len(first) > len(asked.truth) // 4
    for part in (asked.template, asked.noun, asked.colour):
        assert (part[first] == part[second]).all()
    assert (asked.truth[first] != asked.truth[second]).all()
    said = people(rng, asked)
    agreeing = (said == asked.truth[:, None]).mean()
    assert said.shape == (len(asked.truth), 10) and said.min() >= 0 and 0.85 < agreeing < 0.97


def test_procedural_proposals(scenes: Path) -> None:
    store = Store(scenes / "proposals-trainval.h5")
    counts, boxes = store.array("count"), store.array("boxes")
    assert counts.min() >= 10 and counts.max() <= RECIPE.most_boxes == 12
    assert (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 640
    assert store.mapped("features").min() >= 0
    annotations = json.loads((scenes / "official/v2_mscoco_val2014_annotations.json").read_text())[
        "annotations"
    ]
    assert {item["answer_type"] for item in annotations} == {"yes/no", "number", "other"}


def test_a_store_of_procedural_scenes_that_is_gone_is_made_again(tmp_path: Path) -> None:
    folder = procedural(tmp_path, RECIPE, COUNTS)
    before = {path.name: Store(path).digest for path in folder.glob("*.h5")}
    for name in ("proposals-trainval.h5", "questions-val.h5"):
        (folder / name).unlink()
        procedural(tmp_path, RECIPE, COUNTS)
        assert {path.name: Store(path).digest for path in folder.glob("*.h5")} == before


def test_procedural_scenes_are_drawn_once(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("setexp.datasets.vqa.procedural.write_official", never)
    assert procedural(scenes.parents[1], RECIPE, COUNTS) == scenes
