"""VQA v2: questions about the object proposals of an image (Thesis, 3.5.2 and A.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from setexp.datasets.array_store import Store
from setexp.datasets.image_rows import fits
from setexp.datasets.passes import batch_rows
from setexp.datasets.sources import SOURCES
from setexp.datasets.vqa.majority import majority_answers
from setexp.datasets.vqa.padded_proposals import Proposals
from setexp.datasets.vqa.prepare import (
    LABELLED,
    LEARNED,
    answers_path,
    images_path,
    questions_path,
    real_folder,
    vocabulary_path,
)
from setexp.datasets.vqa.procedural import procedural, procedural_folder
from setexp.datasets.vqa.scenes import Recipe
from setexp.datasets.vqa.split import Split, joined, numbered
from setexp.datasets.vqa.vocabulary import Vocabulary, read_vocabulary
from setexp.errors import ConfigError, one_of
from setexp.sets import Batch


class VQA:
    """Object proposals, a question, and how many of ten people gave each answer.

    Args:
        root: the data folder. source: real, procedural, or auto: real where it is prepared.
        learned: train, or trainval for the server's rows: what "train" means, for the vocabulary as
            well.
        set_size: N; images have up to 100 proposals, fewer are padded with zeros.
        features: D of a proposal.
        words: the largest number of a word plus 1, at least the vocabulary's size plus 1.
        classes: how many of the most frequent answers.
        majority: instead, answers that the majority gave to at least so many questions of train and
            val, of which there may be `classes`; people's answers count as they were written, and
            no question is left out. null for the former.
        most_words: L, later words are cut off; null for the longest question's.
        relative: boxes in shares of the image's sides instead of pixels.
        objects, duplicates, distractors, train_images, val_images, test_images, data_seed: of
            procedural scenes; see `Recipe`.

    Attributes:
        vocabulary: short hash of the numbers that words and answers have.
        answers: texts of the classes' answers; "" of classes that no answer has.

    Splits: train, val, test, test_dev. Questions of train without any of these answers are left
    out. Batches: input x (B, N, D + 4), features and a box; target (B, C), the share of
    the ten people who gave each answer; aux `word` (B, L), 0 where there is none, `length`,
    `question_id`, `kind` (a place in `KINDS`, or -1 where nobody answered), `counting` (B,), and
    `partner` (B, K) the question_ids of complementary questions, or -1.

    Raises:
        ConfigError: the data is missing, of another version, or does not fit the arguments.
    """

    def __init__(
        self,
        *,
        root: str,
        source: str,
        learned: str,
        set_size: int,
        features: int,
        words: int,
        classes: int,
        majority: int | None = None,
        most_words: int | None = None,
        relative: bool = False,
        objects: int,
        duplicates: int,
        distractors: int,
        train_images: int,
        val_images: int,
        test_images: int,
        data_seed: int,
    ) -> None:
        one_of("dataset.source", source, SOURCES)
        one_of("dataset.learned", learned, LEARNED)
        for name, value in (("set_size", set_size), ("features", features), ("classes", classes)):
            if value < 1:
                raise ConfigError(f"dataset.{name}={value}: at least 1")
        self._root, self._real = Path(root).expanduser(), real_folder(Path(root).expanduser())
        self.learned, self.set_size = learned, set_size
        self._words, self.classes, self._features = words, classes, features
        for name, least in (("majority", majority), ("most_words", most_words)):
            if least is not None and least < 1:
                raise ConfigError(f"dataset.{name}={least}: at least 1, or null")
        self._majority, self._most_words, self._relative = majority, most_words, relative
        prepared = vocabulary_path(self._real, learned).exists()
        if source == "real" and not prepared:
            raise ConfigError(
                f"dataset.source=real, but {self._real} is not prepared; make it with: python"
                f" scripts/prepare_vqa.py --source FOLDER --root {root}"
            )
        if source == "auto" and self._real.exists() and not prepared:
            raise ConfigError(
                f"dataset.source=auto: {self._real} is prepared in part; run scripts/prepare_vqa.py"
                " again, or set dataset.source=procedural"
            )
        self.source = "real" if prepared and source != "procedural" else "procedural"
        self._recipe = Recipe(features, objects, duplicates, distractors, data_seed)
        self._images = {"train": train_images, "val": val_images, "test": test_images}
        if self.source == "procedural":
            self._check_recipe()
        self.device = torch.device("cpu")
        self._opened: dict[str, Split] = {}
        self._proposals: dict[Path, Proposals] = {}
        self._vocabulary: Vocabulary | None = None

    @property
    def fingerprint(self) -> str:
        """Short hash of what determines batches; procedural scenes need not be drawn for it."""
        if self.source == "real":
            paths = [images_path(self._real, "train")]
            paths += [questions_path(self._real, split) for split in LABELLED]
            content = [Store(path).digest for path in paths]
        else:
            content = [procedural_folder(self._root, self._recipe, self._images).name]
        chosen = (self._majority, self._most_words, self._relative)
        if chosen != (None, None, False):  # runs from before there was a choice keep theirs
            content += map(str, chosen)
            if self._majority is not None and self.source == "real":
                content += [Store(answers_path(self._real, s)).digest for s in LABELLED]
        text = " ".join(map(str, (self.learned, self.set_size, self.classes, *content)))
        return f"vqa-{self.source}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def vocabulary(self) -> str:
        return self._numbers.digest(self.classes)

    @property
    def answers(self) -> list[str]:
        texts = self._numbers.answers[: self.classes]
        return texts + [""] * (self.classes - len(texts))

    def question(self, numbers: Sequence[int]) -> str:
        """A question's words by their numbers, "_" for one that has none."""
        words = self._numbers.words
        return " ".join(words[number - 1] if number else "_" for number in numbers)

    def to(self, device: torch.device) -> VQA:
        """Deliver batches on this device from now on."""
        if torch.device(device) != self.device:
            self.device = torch.device(device)
            self._opened.clear()
            self._proposals.clear()
        return self

    def sizes(self, split: str) -> int:
        """Questions in one pass over a split."""
        return len(self._split(split))

    def batches(
        self,
        split: str,
        batch_size: int,
        generator: torch.Generator,
        *,
        start: int = 0,
        shuffle: bool,
        drop_last: bool,
    ) -> Iterator[Batch]:
        """One pass in an order drawn from `generator` at the call. See `setexp.datasets`."""
        rows = batch_rows(self.sizes(split), batch_size, generator, start, shuffle, drop_last)
        return self._split(split).batches([some.to(self.device) for some in rows])

    @property
    def _numbers(self) -> Vocabulary:
        if self._vocabulary is None:
            folder = self._folder()
            stores = [Store(questions_path(folder, split)) for split in LEARNED[self.learned]]
            numbers = read_vocabulary(vocabulary_path(folder, self.learned), stores)
            if len(numbers.words) >= self._words:
                raise ConfigError(
                    f"dataset.words={self._words}: the questions have {len(numbers.words)} words;"
                    f" give at least {len(numbers.words) + 1}"
                )
            if self._majority is not None:
                numbers = numbers._replace(answers=self._majority_answers(folder, self._majority))
            self._vocabulary = numbers
        return self._vocabulary

    def _majority_answers(self, folder: Path, least: int) -> list[str]:
        answers = majority_answers([Store(answers_path(folder, s)) for s in LABELLED], least)
        if len(answers) > self.classes:
            raise ConfigError(
                f"dataset.classes={self.classes}: the majority gave {len(answers)} answers to at"
                f" least dataset.majority={least} questions; give at least {len(answers)}"
            )
        return answers

    def _folder(self) -> Path:
        if self.source == "real":
            return self._real
        return procedural(self._root, self._recipe, self._images)

    def _check_recipe(self) -> None:
        sizes = self._recipe._asdict() | {f"{k}_images": n for k, n in self._images.items()}
        for name, value in sizes.items():
            least = 0 if name in ("data_seed", "distractors") else 1
            if value < least:
                raise ConfigError(f"dataset.{name}={value}: at least {least}")
        if self._recipe.most_boxes > self.set_size:
            raise ConfigError(
                f"dataset.set_size={self.set_size}: scenes have up to {self._recipe.most_boxes}"
                " proposals, objects * duplicates + distractors"
            )

    def _split(self, split: str) -> Split:
        if split not in self._opened:
            folder = self._folder()
            names = LEARNED[self.learned] if split == "train" else (split,)
            paths = [questions_path(folder, name) for name in names]
            if split != "train" and not paths[0].exists():
                raise ConfigError(f"split {split}: {paths[0]} is missing; prepare its questions")
            path = images_path(folder, names[0])
            images = Store(path)
            arrays = joined(
                [
                    numbered(
                        Store(asked),
                        images,
                        self._numbers,
                        self.classes,
                        answers=self._written(folder, name),
                        most_words=self._most_words,
                    )
                    for name, asked in zip(names, paths, strict=True)
                ]
            )
            if split == "train" and self._majority is None:  # nothing is learned from the others
                kept = (arrays["answer"] < self.classes).any(1)
                arrays = {name: rows[kept] for name, rows in arrays.items()}
            if path not in self._proposals:  # train and val share them
                self._proposals[path] = self._proposals_of(images)
            proposals = self._proposals[path]
            self._opened[split] = Split(arrays, proposals, self.classes, self.device)
        return self._opened[split]

    def _written(self, folder: Path, split: str) -> Store | None:
        """A split's answers as they were written, where they count so."""
        if self._majority is None or split not in LABELLED:
            return None
        return Store(answers_path(folder, split))

    def _proposals_of(self, store: Store) -> Proposals:
        shape, most = store.mapped("features").shape, int(store.array("count").max())
        if shape[1] != self._features:
            raise ConfigError(
                f"dataset.features={self._features}: those of {store.path} have {shape[1]}; "
                "set it to that"
            )
        if most > self.set_size:
            raise ConfigError(
                f"dataset.set_size={self.set_size}: {store.path} has images of {most} proposals; "
                "give at least that"
            )
        resident = fits(4 * shape[0] * (shape[1] + 4), self.device)
        return Proposals(
            store,
            set_size=self.set_size,
            device=self.device,
            resident=resident,
            relative=self._relative,
        )
