"""The data set of CLEVR questions: encoding, sources, caches, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from smoke_runs import load_script

from setexp.datasets.clevr.questions import source
from setexp.datasets.clevr.questions.arrays import first_scenes, join, read_questions
from setexp.datasets.clevr.questions.dataset import ClevrQuestions
from setexp.datasets.clevr.questions.program import ANSWERS
from setexp.datasets.clevr.questions.source import Recipe, draw, official_paths
from setexp.datasets.clevr.questions.wording import vocabulary, words_of
from setexp.datasets.clevr.vocabulary import SCENES
from setexp.errors import ConfigError
from setexp.sets import Batch

RECIPE = Recipe(min_objects=3, max_objects=4, data_seed=0)
SIZES = {"train_size": 3, "test_size": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a release of two splits: generated scenes in the official files."""
    folder = tmp_path_factory.mktemp("data")
    for split, (scene_path, question_path) in official_paths(folder).items():
        scenes, questions = draw(
            split, 0, SIZES["train_size" if split == "train" else "test_size"], RECIPE
        )
        for path, content in (
            (scene_path, {"scenes": scenes}),
            (question_path, {"questions": questions}),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
    # a small training split lacks words that the other has
    train = official_paths(folder)["train"][1]
    asked = json.loads(train.read_text())["questions"]
    asked.append({**asked[0], "question": " ".join(vocabulary())})
    train.write_text(json.dumps({"questions": asked}))
    return folder


def dataset(root: Path, **changes: Any) -> ClevrQuestions:
    settings = {
        "source": "auto", "set_size": 12, "element_dim": 7, "words": 83, "classes": 28,
        "pad": "batch", "min_objects": 3, "max_objects": 4, "train_size": None, "test_size": None,
        "data_seed": 0,
    } | changes  # fmt: skip
    if settings.get("source") == "procedural":
        settings = SIZES | {k: v for k, v in settings.items() if v is not None}
    return ClevrQuestions(root=str(root), **settings)


def one_pass(data: ClevrQuestions, batch_size: int = 8, seed: int = 0, **how: Any) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    settings: dict[str, Any] = {"shuffle": True, "drop_last": False} | how
    return list(data.batches(settings.pop("split", "train"), batch_size, generator, **settings))


def complaint(root: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        dataset(root, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What batches hold.


def test_objects_questions_and_answers_are_the_files(root: Path) -> None:
    scenes, questions = (json.loads(p.read_text()) for p in official_paths(root)["val"])
    data = dataset(root)
    (batch,) = one_pass(data, 100, split="test", shuffle=False)
    known = sorted({w for q in json.loads(official_paths(root)["train"][1].read_text())["questions"]
                    for w in words_of(q["question"])})  # fmt: skip
    order = {"color": "cyan blue yellow purple red green gray brown", "material": "rubber metal",
             "shape": "sphere cube cylinder", "size": "large small"}  # fmt: skip
    for i, question in enumerate(questions["questions"]):
        objects = scenes["scenes"][question["image_index"]]["objects"]
        rows = np.array(
            [
                [*o["3d_coords"], *(w.split().index(o[k]) + 1 for k, w in order.items())]
                for o in objects
            ]
        )
        x, mask = batch.input.x[i], batch.input.mask[i]
        found = x[mask > 0].double().numpy()
        by_place = found[:, 0].argsort(), rows[:, 0].argsort()
        np.testing.assert_allclose(found[by_place[0]], rows[by_place[1]], rtol=1e-6)
        assert mask.tolist() == [1.0] * len(objects) + [0.0] * (12 - len(objects))
        assert not x[mask == 0].any()
        words = batch.aux["question"][i].flip(0)
        said = [known[w - 1] for w in words if w > 0]
        assert said == words_of(question["question"])
        assert not words[len(said) :].any()  # reversed, padding comes first
        assert ANSWERS[batch.aux["label"][i]] == question["answer"]
    assert batch.aux["question"].shape[1] == max(
        len(words_of(q["question"])) for q in questions["questions"]
    )


def test_objects_come_in_a_new_order_in_every_pass(root: Path) -> None:
    a, b = (one_pass(dataset(root), 100, seed, shuffle=False)[0].input.x for seed in (0, 1))
    assert not torch.equal(a, b)
    assert torch.equal(a.sort(1).values, b.sort(1).values)


def test_questions_are_padded_to_the_batch_or_to_all(root: Path) -> None:
    full, batchwise = dataset(root, pad="full"), dataset(root)
    assert not full.ragged and batchwise.ragged
    longest = {b.aux["question"].shape[1] for b in one_pass(full)}
    assert len(longest) == 1 and len({b.aux["question"].shape[1] for b in one_pass(batchwise)}) > 1
    for a, b in zip(one_pass(full), one_pass(batchwise), strict=True):
        short = b.aux["question"]
        assert torch.equal(a.aux["question"][:, -short.shape[1] :], short)
        assert short[:, 0].any()


# Where they come from.


def test_procedural_questions_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tmp_path, source="procedural")
    assert data.source == "procedural" and data.sizes("train") == 30
    first = one_pass(data)

    def refuse(*_: Any) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(source, "draw", refuse)
    again = dataset(tmp_path, source="procedural")
    assert again.fingerprint == data.fingerprint
    for a, b in zip(first, one_pass(again), strict=True):
        assert torch.equal(a.input.x, b.input.x) and torch.equal(a.aux["label"], b.aux["label"])


def test_what_determines_the_data_is_in_the_fingerprint(root: Path, tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [
        {}, {"train_size": 2}, {"test_size": 1}, {"data_seed": 1}, {"pad": "full"},
        {"min_objects": 4},
    ]  # fmt: skip
    prints = [dataset(tmp_path, source="procedural", **s).fingerprint for s in settings]
    prints += [dataset(root).fingerprint, dataset(root, train_size=2).fingerprint]
    assert len(set(prints)) == len(prints)


def test_a_sample_of_the_release_counts_as_a_copy_of_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = dataset(root).fingerprint
    assert re.search(r" sample copy \w+$", sample)
    monkeypatch.setitem(SCENES, "train", SIZES["train_size"])
    monkeypatch.setitem(SCENES, "val", SIZES["test_size"])
    assert dataset(root).fingerprint == sample.partition(" sample copy")[0]


def test_files_of_another_version_are_read_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dataset(root).fingerprint
    monkeypatch.setattr(source, "VERSION", source.VERSION + 1)
    assert dataset(root).fingerprint != before


def test_parts_join_to_the_whole() -> None:
    scenes, questions = draw("train", 0, 4, RECIPE)
    whole = read_questions(scenes, questions, vocabulary())
    halves = [
        read_questions(
            some, [q for q in questions if q["image_index"] in range(*ends)], vocabulary()
        )
        for some, ends in ((scenes[:2], (0, 2)), (scenes[2:], (2, 4)))
    ]
    for a, b in zip(join(halves), whole, strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(first_scenes(whole, 2)[:2], halves[0][:2], strict=True):
        assert np.array_equal(a, b)
    assert first_scenes(whole, 2).scene.max() == 1


def test_splits_and_seeds_differ() -> None:
    texts = {
        "\n".join(q["question"] for q in draw(split, 0, 1, recipe)[1])
        for split in ("train", "val")
        for recipe in (RECIPE, RECIPE._replace(data_seed=1))
    }
    assert len(texts) == 4


# What is refused.


def test_a_release_that_does_not_fit_together_is_refused(root: Path, tmp_path: Path) -> None:
    def release(split_changed: str = "val", **changes: Any) -> Path:
        """A copy of the release in which the third question of a split says something else."""
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for split, pair in official_paths(root).items():
            for old, new in zip(pair, official_paths(folder)[split], strict=True):
                content = json.loads(old.read_text())
                if split == split_changed and "questions" in content:
                    content["questions"][2] |= changes
                new.parent.mkdir(parents=True, exist_ok=True)
                new.write_text(json.dumps(content))
        return folder

    assert complaint(release(image_index=77)).endswith(
        "CLEVR_val_questions.json: question 2 is about scene 77, which the scene file does not "
        "describe; both must come from one release"
    )
    assert "question 2 has the answer 'mauve'; CLEVR has none" in complaint(release(answer="mauve"))
    assert "question 2 has the word 'mauve', which no training" in complaint(
        release(question="How mauve is it?")
    )
    assert "a question has no text" in complaint(release("train", question=7))
    assert "TypeError" in complaint(release(image_index=[1]))
    folder = release()
    path = official_paths(folder)["val"][0]
    content = json.loads(path.read_text())
    content["scenes"][1]["objects"][0]["color"] = "mauve"
    path.write_text(json.dumps(content))
    assert "their scene file has scenes that are not CLEVR's (ValueError" in complaint(folder)
    del content["scenes"][1]["objects"]
    path.write_text(json.dumps(content))
    assert "not CLEVR's (KeyError: 'objects'); unpack it again" in complaint(folder)
    folder = release()
    path = official_paths(folder)["val"][1]
    path.write_text(path.read_text()[:-20])
    assert f"{path} is no CLEVR file of questions" in complaint(folder)
    path.write_text('{"questions": []}')
    assert f"{path} lists no questions" in complaint(folder)
    path.unlink()
    assert f"dataset.source=auto: {path} is missing, though others" in complaint(folder)
    assert f"{path} cannot be read (No such file" in complaint(folder, source="real")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"element_dim": 8}, "dataset.element_dim=8: CLEVR questions have 7"),
        ({"classes": 10}, "dataset.classes=10: CLEVR questions have 28"),
        ({"source": "web"}, "dataset.source=web: choose one of auto, real, procedural"),
        ({"pad": "none"}, "dataset.pad=none: choose one of batch, full"),
        ({"min_objects": 5}, "dataset.min_objects=5, max_objects=4: must be in order"),
        ({"train_size": 0}, "dataset.train_size=0: at least 1"),
        ({"train_size": 9}, "dataset.train_size=9: the release in"),
        ({"set_size": 2}, "dataset.set_size=2: there are scenes of"),
        ({"words": 20}, "dataset.words=20: there are 82 words and padding; give at least 83"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused(change: dict[str, Any], text: str, root: Path) -> None:
    assert complaint(root, **change).startswith(text)


def test_an_unknown_split_and_a_damaged_cache_are_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, source="procedural")
    with pytest.raises(ConfigError, match="split val: CLEVR questions have train, test"):
        data.sizes("val")
    (path,) = tmp_path.rglob("train-*.npz")
    content = path.read_bytes()
    middle = content[60:70], bytes(10)
    # cut off; zlib notices; empty
    for damaged in (content[:100], content.replace(*middle, 1), b""):
        path.write_bytes(damaged)
        assert f"{path} is damaged" in complaint(tmp_path, source="procedural")


def test_what_is_kept_of_a_release_is_made_again_where_it_is_gone(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "CLEVR_v1.0", tmp_path / "CLEVR_v1.0")
    before = dataset(tmp_path).fingerprint
    for name in ("train.npz", "vocabulary.json"):
        (path,) = tmp_path.rglob(name)
        path.write_bytes(path.read_bytes()[:10])
        assert complaint(tmp_path).startswith(f"{path} is damaged")
        path.unlink()
        assert dataset(tmp_path).fingerprint == before


def test_a_data_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = complaint(tmp_path / "file", source="procedural")
    assert message.startswith(f"cannot write {tmp_path}/file/clevr/questions-procedural-")
    assert message.endswith("name another folder, paths.data=...")


def test_weights_of_another_vocabulary_are_told_apart(root: Path, tmp_path: Path) -> None:
    words = {data.vocabulary for data in (dataset(root), dataset(tmp_path, source="procedural"))}
    assert len(words) == 1  # this release's words are ours
    path = official_paths(tmp_path)["train"][1]
    shutil.copytree(root / "CLEVR_v1.0", tmp_path / "CLEVR_v1.0", dirs_exist_ok=True)
    asked = json.loads(path.read_text())["questions"]
    asked[0] |= {"question": "A zebra?"}
    path.write_text(json.dumps({"questions": asked}))
    assert dataset(tmp_path, words=90).vocabulary not in words


# The script.


def test_a_written_release_is_read_back_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("clevr_questions")
    monkeypatch.setattr(script, "MAX_OBJECTS", 4)
    folder = tmp_path / "CLEVR_v1.0"
    assert script.main(["write", str(folder), "--train", "2", "--val", "1"]) == 0
    capsys.readouterr()
    assert script.main(["check", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["train", "val"]
    assert all(re.fullmatch(r"\w+: (\d+) of \1 answers agree", line) for line in lines)
    path = official_paths(tmp_path)["val"][1]
    content = json.loads(path.read_text())
    content["questions"][0]["answer"] = "mauve"
    path.write_text(json.dumps(content))
    assert script.main(["check", str(folder)]) == 1
    wrong = re.search(r"val: (\d+) of (\d+) answers", capsys.readouterr().out)
    assert wrong is not None and int(wrong[1]) == int(wrong[2]) - 1
    assert script.main(["write", str(folder), "--train", "1", "--val", "1"]) == 2
    assert "is there already; name another folder" in capsys.readouterr().err
    del content["questions"][0]["program"]
    path.write_text(json.dumps(content))
    assert script.main(["check", str(folder)]) == 1
    assert "KeyError: 'program'" in capsys.readouterr().err
    path.unlink()
    assert script.main(["check", str(folder)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} cannot be read")
