"""VQA v2: stores to batches, and procedural scenes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from vqa_release import (
    ASKED,
    COUNTS,
    FEATURES,
    RECIPE,
    images,
    make,
    one_pass,
    prepared,
    write_release,
)

from setexp.datasets.array_store import Store
from setexp.datasets.vqa.prepare import prepare, real_folder
from setexp.datasets.vqa.procedural import procedural, write_official
from setexp.datasets.vqa.proposals import prepare_proposals
from setexp.datasets.vqa.scenes import draw_scenes
from setexp.datasets.vqa.sentences import TEMPLATES, ask, people
from setexp.datasets.vqa.split import partners
from setexp.datasets.vqa.text import words_of
from setexp.errors import ConfigError


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "official")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return procedural(tmp_path_factory.mktemp("data"), RECIPE, COUNTS)


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
        ({"features": 9}, "dataset.features=9: those of .* have 3; set it to that"),
        (
            {"set_size": 12},
            "dataset.set_size=12: .* has images of 13 proposals; give at least that",
        ),
        ({"source": "fake"}, "dataset.source=fake: choose one of auto, real, procedural"),
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


def test_batches_are_the_same_from_memory_and_from_the_file(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("setexp.datasets.vqa.padded_proposals._COPY_ROWS", 7)
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
    for name, recipe in (("a", RECIPE), ("b", RECIPE), ("c", RECIPE._replace(data_seed=1))):
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
