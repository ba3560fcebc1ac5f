"""From a folder of official files to the stores and vocabularies that `dataset=vqa` reads."""

from __future__ import annotations

from pathlib import Path

from setexp.datasets.array_store import Store
from setexp.datasets.vqa.majority import prepare_answers
from setexp.datasets.vqa.proposals import PART_IMAGES, prepare_proposals
from setexp.datasets.vqa.questions import QuestionFiles, prepare_questions
from setexp.datasets.vqa.vectors import prepare_vectors
from setexp.datasets.vqa.vocabulary import prepare_vocabulary, read_vocabulary
from setexp.errors import ConfigError

# Splits, as the official files name them, and the store of their images' proposals.
OFFICIAL = {"train": "train2014", "val": "val2014", "test": "test2015", "test_dev": "test-dev2015"}
IMAGES = {"train": "trainval", "val": "trainval", "test": "test2015", "test_dev": "test2015"}
LABELLED = ("train", "val")
# Splits that a model learns from, and its vocabulary with it.
LEARNED = {"train": ("train",), "trainval": ("train", "val")}


def real_folder(root: Path) -> Path:
    """Where the official release is prepared."""
    return root / "vqa" / "real"


def images_path(folder: Path, split: str) -> Path:
    """The store of proposals of a split's images."""
    return folder / f"proposals-{IMAGES[split]}.h5"


def questions_path(folder: Path, split: str) -> Path:
    """The store of a split's questions."""
    return folder / f"questions-{split}.h5"


def answers_path(folder: Path, split: str) -> Path:
    """The store of a labelled split's answers as they were written."""
    return folder / f"answers-{split}.h5"


def vocabulary_path(folder: Path, learned: str) -> Path:
    """The vocabulary of "train" or "trainval"."""
    return folder / f"vocabulary-{learned}.json"


def vectors_path(folder: Path, learned: str) -> Path:
    """First rows of a word embedding, by the numbers of a vocabulary."""
    return folder / f"vectors-{learned}.npy"


def prepare(
    source: Path, folder: Path, *, dtype: str | None = None, part_images: int = PART_IMAGES
) -> list[Path]:
    """Prepare what a folder of official files holds; what is there and up to date is kept.

    TSV files whose names begin with test2015 are of test images, all others of train and val.
    Splits for the server (test, test_dev) are prepared where their questions are there.

    Args:
        folder: of the stores.
        dtype: of stored features, float32 or float16; None for that of the stores that are there.
        part_images: images a part, the unit of resuming.

    Returns:
        Paths of all stores, proposals first.

    Raises:
        ConfigError: a file is missing, damaged, or belongs to others; or part_images is below 1.
    """
    if part_images < 1:
        raise ConfigError(f"part_images={part_images}: at least 1")
    files = {split: official_files(source, split) for split in OFFICIAL}
    wanted = [s for s in OFFICIAL if s in LABELLED or files[s].questions.exists()]
    tables = {kind: _tables(source, kind) for kind in {IMAGES[split] for split in wanted}}
    stores: dict[str, Store] = {}
    for split in wanted:
        path = images_path(folder, split)
        if IMAGES[split] not in stores:
            stores[IMAGES[split]] = prepare_proposals(
                path, tables[IMAGES[split]], dtype=dtype, part_images=part_images
            )
    asked = {
        split: prepare_questions(questions_path(folder, split), files[split], stores[IMAGES[split]])
        for split in wanted
    }
    said = [
        prepare_answers(answers_path(folder, split), file, asked[split])
        for split in LABELLED
        if (file := files[split].annotations) is not None
    ]
    for learned, splits in LEARNED.items():
        prepare_vocabulary(vocabulary_path(folder, learned), [asked[split] for split in splits])
    return [store.path for store in (*stores.values(), *asked.values(), *said)]


def vectors_of(folder: Path, learned: str, file: Path) -> Path:
    """The word vectors of a prepared vocabulary, made of a file in GloVe's text format."""
    stores = [Store(questions_path(folder, split)) for split in LEARNED[learned]]
    numbers = read_vocabulary(vocabulary_path(folder, learned), stores)
    prepare_vectors(vectors_path(folder, learned), file, numbers, stores)
    return vectors_path(folder, learned)


def official_files(source: Path, split: str) -> QuestionFiles:
    """A split's official files; annotations and pairs of the server's splits only if they exist.

    Raises:
        ConfigError: annotations of train or val are missing.
    """
    name = OFFICIAL[split]
    questions = source / f"v2_OpenEnded_mscoco_{name}_questions.json"
    annotations = source / f"v2_mscoco_{name}_annotations.json"
    pairs = source / f"v2_mscoco_{name}_complementary_pairs.json"
    for path in (questions, annotations) if split in LABELLED else ():
        if not path.exists():
            raise ConfigError(f"{path} is missing; put the unpacked official files there")
    if split == "val" and not pairs.exists():
        raise ConfigError(f"{pairs} is missing; it comes with the official annotations")
    return QuestionFiles(
        questions,
        annotations if annotations.exists() else None,
        pairs if pairs.exists() else None,
    )


def _tables(source: Path, kind: str) -> list[Path]:
    """TSV files of train and val images, or of test images; large ones come in numbered pieces."""
    found = sorted(
        p
        for p in source.rglob("*.tsv*")
        if (p.suffix == ".tsv" or p.suffix[1:].isdigit()) and p.is_file()
    )
    chosen = [p for p in found if p.name.startswith("test2015") == (kind == "test2015")]
    if not chosen:
        named = "test2015*.tsv" if kind == "test2015" else "*.tsv"
        raise ConfigError(f"{source}: no bottom-up features of {kind} images ({named}) there")
    return chosen
