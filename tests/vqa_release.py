"""A release of VQA v2 in miniature, in the official file formats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from setexp.datasets.vqa.dataset import VQA
from setexp.datasets.vqa.prepare import OFFICIAL, prepare, real_folder
from setexp.datasets.vqa.proposals import Image, line_of
from setexp.datasets.vqa.scenes import Recipe
from setexp.sets import Batch

RECIPE = Recipe(features=4, objects=4, duplicates=2, distractors=4, data_seed=0)
COUNTS = {"train": 30, "val": 20, "test": 10}
FEATURES = 3
FIRST = {"train": 100, "val": 200, "test": 300}
ASKED = ("How many dogs are there?", "What color is the man's shirt?", "Is it 3:30 p.m.?")
SAID = (
    ["2"] * 6 + ["3"] * 4,
    ["light-blue"] * 5 + ["blue, white"] * 3 + ["red"] * 2,
    ["yes"] * 9 + ["no"],
)
TYPES = ("number", "other", "yes/no")


def images(split: str, count: int = 4) -> list[Image]:
    """Images with 10, 11, 12, ... proposals."""
    rng = np.random.default_rng(FIRST[split])
    return [
        Image(
            FIRST[split] + i,
            (640, 480),
            rng.uniform(0, 400, (10 + i, 4)).astype(np.float32),
            rng.random((10 + i, FEATURES), np.float32),
        )
        for i in range(count)
    ]


def write_release(folder: Path) -> Path:
    """Train, val and test with three questions about each of four images."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in FIRST:
        write_table(folder / f"{'test2015' if split == 'test' else split}.tsv", images(split))
        items = [
            (10 * (FIRST[split] + i) + k, FIRST[split] + i, ASKED[k], SAID[k], TYPES[k])
            for i in range(4)
            for k in range(3)
        ]
        for name in ("test", "test_dev") if split == "test" else (split,):
            write_questions(folder, name, items)
    return folder


def write_table(path: Path, rows: Sequence[Image]) -> None:
    path.write_bytes(b"".join(line_of(row) for row in rows))


def write_questions(folder: Path, split: str, items: Sequence[tuple[Any, ...]]) -> None:
    name = OFFICIAL[split]
    questions = [
        {"question_id": key, "image_id": image, "question": text} for key, image, text, *_ in items
    ]
    path = folder / f"v2_OpenEnded_mscoco_{name}_questions.json"
    path.write_text(json.dumps({"questions": questions}))
    if split not in ("train", "val"):
        return
    annotations = [
        {
            "question_id": key,
            "image_id": image,
            "answer_type": kind,
            "multiple_choice_answer": Counter(said).most_common(1)[0][0],
            "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(said, start=1)],
        }
        for key, image, _, said, kind in items
    ]
    path = folder / f"v2_mscoco_{name}_annotations.json"
    path.write_text(json.dumps({"annotations": annotations}))
    pairs = [[items[0][0], items[3][0]], [items[9][0], items[6][0]], [items[4][0], items[1][0]]]
    (folder / f"v2_mscoco_{name}_complementary_pairs.json").write_text(json.dumps(pairs))


def make(root: Path, **changes: Any) -> VQA:
    """The dataset of what is below a folder, of the size of a release here or of drawn scenes."""
    arguments = {
        "root": str(root), "source": "auto", "learned": "train", "set_size": 20,
        "features": FEATURES, "words": 64, "classes": 5, "objects": 4, "duplicates": 2,
        "distractors": 4, "train_images": 30, "val_images": 20, "test_images": 10, "data_seed": 0,
    }  # fmt: skip
    return VQA(**{**arguments, **changes})


def prepared(release: Path) -> Path:
    """Folder of data beside a release, with its stores."""
    root = release.parent / "data"
    prepare(release, real_folder(root))
    return root


def one_pass(dataset: VQA, split: str = "val", **how: Any) -> list[Batch]:
    """All batches of a split, in its order."""
    how = {"shuffle": False, "drop_last": False} | how
    return list(dataset.batches(split, 5, torch.Generator().manual_seed(3), **how))


def edit(folder: Path, name: str, change: Any) -> None:
    """Change what one of a release's JSON files says."""
    path = folder / f"v2_{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
