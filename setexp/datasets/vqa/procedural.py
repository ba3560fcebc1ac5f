"""Official files of VQA v2 about procedural scenes, prepared as the release is, once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from setexp.datasets.array_store import LAYOUT
from setexp.datasets.vqa.prepare import LABELLED, OFFICIAL, answers_path, prepare
from setexp.datasets.vqa.proposals import Image, line_of
from setexp.datasets.vqa.scenes import Recipe, draw_scenes, proposals
from setexp.datasets.vqa.sentences import Asked, ask, people, texts
from setexp.files import read_json, sole_writer, whole, write_json, write_text
from setexp.ops.votes import PEOPLE

# Part of every key: raise it when files come out differently for the same recipe.
CONTENT_VERSION = 1
QUESTIONS_PER_IMAGE = 4
# Numbers of images are disjoint: those of a split begin at a multiple of this.
_FIRST = 1_000_000
_DRAWN = ("train", "val", "test")  # test_dev asks half of test's questions
_PER_IMAGE_IDS = 1000


def procedural_folder(root: Path, recipe: Recipe, counts: Mapping[str, int]) -> Path:
    """Where `procedural` puts the stores of scenes of so many images of train, val and test."""
    text = f"{LAYOUT} {CONTENT_VERSION} {QUESTIONS_PER_IMAGE} {[*recipe]} {[*counts.items()]}"
    return root / "vqa" / f"procedural-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def procedural(root: Path, recipe: Recipe, counts: Mapping[str, int]) -> Path:
    """Folder of stores of procedural scenes, made first where it is missing.

    Its folder "official" keeps the official files they were prepared from.

    Args:
        root: the data folder.
        recipe: what scenes are like.
        counts: images of train, val and test.
    """
    folder = procedural_folder(root, recipe, counts)
    ready = folder / "ready.json"
    if not _complete(folder, ready):
        with sole_writer(ready):
            if read_json(ready) is None or not (folder / "official").exists():
                write_official(folder / "official", recipe, counts)
            stores = prepare(folder / "official", folder)
            write_json(ready, {"stores": [path.name for path in stores]})
    return folder


def _complete(folder: Path, ready: Path) -> bool:
    """Whether all stores are there that were made; earlier versions made none of answers."""
    stores = [folder / name for name in (read_json(ready) or {}).get("stores", ())]
    answers = [answers_path(folder, split) for split in LABELLED]
    return bool(stores) and all(path.exists() for path in (*stores, *answers))


def write_official(folder: Path, recipe: Recipe, counts: Mapping[str, int]) -> None:
    """Write all files of the release; the server's answers about its test images, too."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(_DRAWN, start=1):
        rng = np.random.default_rng([recipe.data_seed, number])
        scenes = draw_scenes(rng, counts[split], recipe)
        first = number * _FIRST
        prefix = "test2015" if split == "test" else split
        own = np.random.default_rng([recipe.data_seed, number, 1])
        images = proposals(own, scenes, recipe, first)
        _write_lines(folder / f"{prefix}_boxes.tsv", images)
        asked = ask(rng, scenes, QUESTIONS_PER_IMAGE)
        said, hyphen = people(rng, asked), rng.random((len(asked.truth), PEOPLE)) < 0.5
        described = texts(asked, said, hyphen)
        ids = _question_ids(asked, first)
        for name in (split, "test_dev") if split == "test" else (split,):
            kept = ids % 2 == 0 if name == "test_dev" else np.ones(len(ids), bool)
            _write_questions(folder, OFFICIAL[name], asked, ids, described, kept, first)


def _question_ids(asked: Asked, first: int) -> np.ndarray:
    """Official numbers: those of the image, then the number of its question."""
    order = np.argsort(asked.image, kind="stable")
    image = asked.image[order]
    start = np.searchsorted(image, image)
    ids = np.empty(len(image), np.int64)
    ids[order] = (first + image) * _PER_IMAGE_IDS + np.arange(len(image)) - start
    return ids


def _write_questions(
    folder: Path,
    name: str,
    asked: Asked,
    ids: np.ndarray,
    described: list[dict[str, Any]],
    kept: np.ndarray,
    first: int,
) -> None:
    questions, annotations = [], []
    for i in np.flatnonzero(kept):
        words = described[i]
        keys = {"image_id": int(first + asked.image[i]), "question_id": int(ids[i])}
        questions.append({**keys, "question": words["question"]})
        answers = [
            {"answer": text, "answer_confidence": "yes", "answer_id": k}
            for k, text in enumerate(words["answers"], start=1)
        ]
        annotations.append(
            {
                **keys,
                "question_type": " ".join(words["question"].lower().split()[:2]),
                "answer_type": words["type"],
                "multiple_choice_answer": Counter(words["answers"]).most_common(1)[0][0],
                "answers": answers,
            }
        )
    both = kept[asked.pair].all(1)
    pairs = ids[asked.pair[both]].tolist()
    about = {"data_subtype": name, "license": {"name": "none"}}
    contents: dict[str, Any] = {
        f"v2_OpenEnded_mscoco_{name}_questions.json": {**about, "questions": questions},
        f"v2_mscoco_{name}_annotations.json": {**about, "annotations": annotations},
        f"v2_mscoco_{name}_complementary_pairs.json": pairs,
    }
    for file, content in contents.items():
        write_text(folder / file, json.dumps(content))


def _write_lines(path: Path, images: Iterable[Image]) -> None:
    with whole(path) as unfinished, unfinished.open("wb") as file:
        file.writelines(line_of(image) for image in images)
