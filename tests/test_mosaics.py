"""Mosaics: tiles and their order, sources and stores of images, the classifier that reads them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from smoke_runs import ROOT, complaint, only, perform, read, weights
from torch import Tensor, nn
from torch.testing import assert_close

from setexp.datasets import image_files, labelled_images
from setexp.datasets.image_files import (
    READERS,
    imagenet64,
    read_images,
    store_path,
    write_images,
)
from setexp.datasets.labelled_images import load_images
from setexp.datasets.mosaics import Mosaics
from setexp.datasets.procedural_pictures import draw_pictures
from setexp.encoders.permutation import AsGiven
from setexp.errors import ConfigError
from setexp.losses.cross_entropy import CrossEntropyLoss
from setexp.ops.tiles import assemble, cut
from setexp.sets import Batch
from setexp.tasks.classify_mosaic import ClassifyMosaic, Norm

CIFAR = ["experiment=mosaics_po_u", "dataset=mosaics_cifar10"]


def make(root: Path, **changes: Any) -> Mosaics:
    arguments = {
        "images": "mnist", "root": str(root), "source": "procedural", "image_size": 28,
        "channels": 1, "mean": [0.1307], "std": [0.3081], "tiles": 2, "train_size": 10,
        "test_size": 5, "shuffled": True, "data_seed": 0,
    }  # fmt: skip
    return Mosaics(**{**arguments, **changes})


def one_pass(dataset: Mosaics, split: str = "train", **how: Any) -> list[Batch]:
    how = {"shuffle": True, "drop_last": False} | how
    return list(dataset.batches(split, 4, torch.Generator().manual_seed(3), **how))


def store(root: Path, name: str = "cifar10", side: int = 32) -> dict[str, np.ndarray]:
    """A store of random images; what it holds."""
    rng = np.random.default_rng(0)
    images = {
        s: rng.integers(0, 256, (6, 3, side, side), dtype=np.uint8) for s in ("train", "test")
    }
    items = {s: (6, iter([(image, i % 3) for i, image in enumerate(images[s])])) for s in images}
    write_images(store_path(root, name), "random", items)
    return images


@pytest.mark.parametrize("per_side", [2, 3, 5])
def test_tiles_of_an_image_make_the_image(per_side: int) -> None:
    images = torch.randn(2, 3, 30, 30)
    tiles = cut(images, per_side)
    side = 30 // per_side
    assert tiles.shape == (2, per_side**2, 3 * side**2)
    # the second tile is below the first
    below = images[:, :, side : 2 * side, :side].flatten(1)
    assert torch.equal(tiles[:, 1], below)
    assert torch.equal(assemble(tiles, per_side, (3, side, side)), images)


@pytest.mark.parametrize(("tiles", "side"), [(2, 28), (3, 30), (4, 28), (5, 30)])
def test_batches(tiles: int, side: int, tmp_path: Path) -> None:
    dataset = make(tmp_path, tiles=tiles)
    batches = one_pass(dataset)
    assert [len(b.input.x) for b in batches] == [4, 4, 2]
    for given, target, aux in batches:
        assert given.x.shape == (len(given.x), tiles**2, (side // tiles) ** 2)
        order = aux["order"].unsqueeze(-1).expand_as(given.x)
        assert torch.equal(given.x.gather(1, order), target.x)
        assert not torch.equal(given.x, target.x)
        assert aux["label"].shape == (len(given.x),)
    first = dataset._images["train"][0]
    found = torch.cat([b.target.x for b in one_pass(dataset, shuffle=False)])
    whole = assemble(found, tiles, (1, side // tiles, side // tiles)) * 0.3081 + 0.1307
    if side == 28:
        assert_close(whole, torch.from_numpy(first) / 255, rtol=0, atol=1e-6)
    else:  # enlarged, and rounded to bytes
        assert_close((whole * 255).round(), whole * 255, rtol=0, atol=1e-3)
        mean = torch.from_numpy(first).float().mean()
        assert abs(float((whole * 255).mean() - mean)) < 3


def test_tiles_can_stay_in_their_places(tmp_path: Path) -> None:
    moved, still = make(tmp_path), make(tmp_path, shuffled=False)
    for batch, same in zip(one_pass(moved), one_pass(still), strict=True):
        assert torch.equal(same.input.x, same.target.x)
        assert torch.equal(same.target.x, batch.target.x)
    assert moved.fingerprint != still.fingerprint


def test_an_image_keeps_its_label(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    images, labels = dataset._images["train"]
    assert len(set(labels.tolist())) > 1
    for batch in one_pass(dataset):
        found = assemble(dataset.in_colour(batch.target.x.unflatten(-1, (1, 14, 14))).flatten(2),
                         2, (1, 14, 14))  # fmt: skip
        for image, label in zip(found, batch.aux["label"], strict=True):
            same = [torch.allclose(image, torch.from_numpy(i) / 255, atol=1e-5) for i in images]
            assert label == labels[same.index(True)]


def test_stores_of_images_are_read_in_place_and_told_apart(tmp_path: Path) -> None:
    images = store(tmp_path)
    cifar = {"images": "cifar10", "image_size": 32, "channels": 3, "source": "auto"}
    ones = {"mean": [0.0] * 3, "std": [1.0] * 3, "train_size": None, "test_size": 4}
    dataset = make(tmp_path, **cifar, **ones)
    assert dataset.source == "real" and dataset.sizes("train") == 6 and dataset.sizes("test") == 4
    assert "random" in dataset.fingerprint
    found = torch.cat([b.target.x for b in one_pass(dataset, "test", shuffle=False)])
    assert_close(
        assemble(found, 2, (3, 16, 16)) * 255, torch.from_numpy(images["test"][:4]).float()
    )
    missing = make(tmp_path / "empty", **cifar, **ones | {"train_size": 3, "test_size": 3})
    assert missing.source == "procedural"


def test_procedural_pictures_are_drawn_once_and_begin_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, more = ({"train": n, "test": 2} for n in (3, 5))
    place = ("cifar10", str(tmp_path), "auto")
    first, source, _ = load_images(*place, few, 0)
    longer, _, _ = load_images(*place, more, 0)
    assert source == "procedural"
    assert np.array_equal(first["train"][0], longer["train"][0][:3])
    assert torch.equal(first["train"][1], longer["train"][1][:3])
    other, _, _ = load_images(*place, few, 1)
    assert not np.array_equal(first["test"][0], other["test"][0])
    monkeypatch.setattr(labelled_images, "draw_pictures", lambda *_, **__: pytest.fail("drawn"))
    again, _, _ = load_images(*place, few, 0)
    assert np.array_equal(again["test"][0], first["test"][0])


@pytest.mark.parametrize("classes", [10, 1000])
def test_procedural_pictures(classes: int) -> None:
    label = torch.tensor([3, 3, 7, 9])
    drawn = draw_pictures(label, classes, 32, generator=torch.Generator().manual_seed(0))
    again = draw_pictures(label, classes, 32, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 3, 32, 32) and drawn.dtype == torch.uint8
    assert torch.equal(drawn, again) and not torch.equal(drawn[0], drawn[1])
    light = drawn.float().mean((1, 2))
    assert (light[:, 24:].mean(1) > light[:, :8].mean(1)).all()  # from the right


def test_a_killed_preparation_leaves_nothing(tmp_path: Path) -> None:
    def stops() -> Any:
        yield np.zeros((3, 32, 32), np.uint8), 0
        raise KeyboardInterrupt

    path = store_path(tmp_path, "cifar10")
    with pytest.raises(KeyboardInterrupt):
        write_images(path, "half", {"train": (2, stops()), "test": (0, iter(()))})
    assert not list(path.parent.iterdir())


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "scripts/prepare_images.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True)


def test_a_folder_of_pictures_becomes_a_store(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for value, name in ((50, "cat"), (200, "dog")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (90, 64 + value), (value, 0, 0)).save(folder / "a.png")
    path = store_path(tmp_path, "imagenet64")
    path.parent.mkdir(parents=True)
    left = path.with_name(f".{path.name}.1.unfinished")  # by a process that was killed
    left.touch()
    arguments = ["imagenet64", "--source", str(tmp_path / "pictures"), "--root", str(tmp_path)]
    found = prepare(*arguments, "--format", "folder")
    assert found.returncode == 0, found.stderr
    assert path.exists() and not left.exists()
    images = read_images(store_path(tmp_path, "imagenet64"))
    assert images.content.startswith("folder ")
    for pictures, labels in images.splits.values():
        assert sorted(zip(pictures[:, 0, 0, 0].tolist(), labels.tolist(), strict=True)) == [
            (50, 0), (200, 1)
        ]  # fmt: skip
    unlabelled = tmp_path / "pictures/test"  # as ImageNet has it
    unlabelled.mkdir()
    Image.new("RGB", (64, 64)).save(unlabelled / "a.png")
    val = READERS["folder"](tmp_path / "pictures", 64)["test"]
    assert val[0] == 2 and sorted(label for _, label in val[1]) == [0, 1]
    for name in ("cat", "dog"):
        (unlabelled / name).mkdir()
        Image.new("RGB", (64, 64), (9, 0, 0)).save(unlabelled / name / "a.png")
    test = READERS["folder"](tmp_path / "pictures", 64)["test"]
    assert [int(image[0, 0, 0]) for image, _ in test[1]] == [9, 9]
    shutil.rmtree(unlabelled / "cat")
    shutil.rmtree(tmp_path / "pictures/val/cat")
    with pytest.raises(ConfigError, match="neither test/ nor val/ has the classes of train/"):
        READERS["folder"](tmp_path / "pictures", 64)
    shutil.rmtree(unlabelled)
    shutil.rmtree(tmp_path / "pictures/train/cat")
    (tmp_path / "pictures/val/dog/a.png").write_bytes(b"no picture")
    damaged = prepare(*arguments, "--format", "folder")
    assert damaged.returncode == 2 and "dog/a.png: cannot be read" in damaged.stderr
    refused = prepare("cifar10", "--source", str(tmp_path / "nothing"), "--root", str(tmp_path))
    assert refused.returncode == 2 and refused.stderr.startswith("error: --source")
    assert len(refused.stderr.splitlines()) == 1
    with pytest.raises(ConfigError, match="--format: images of that format are 32 pixels wide"):
        READERS["cifar10"](tmp_path, 64)


def test_official_archives_of_imagenet_become_a_store(tmp_path: Path) -> None:
    source = tmp_path / "archives"
    source.mkdir()
    names = [f"train_data_batch_{i}" for i in range(1, 11)] + ["val_data"]
    for value, name in enumerate(names):
        data = np.full((2, 3 * 64 * 64), value, np.uint8)
        np.savez(source / f"{name}.npz", data=data, labels=np.array([1, 1000]))
    arguments = ["imagenet64", "--source", str(source), "--root", str(tmp_path)]
    assert prepare(*arguments).returncode == 0
    train, test = read_images(store_path(tmp_path, "imagenet64")).splits.values()
    assert train.images[:, 0, 0, 0].tolist() == [v for v in range(10) for _ in range(2)]
    assert train.labels.tolist() == [0, 999] * 10 and (test.images == 10).all()
    path = source / "train_data_batch_4.npz"
    for content in (b"half", path.read_bytes()[:999]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"train_data_batch_4.npz: cannot be read"):
            imagenet64(source, 64)
    smaller = np.zeros((2, 3 * 32 * 32), np.uint8)  # files of the 32 x 32 archives have these names
    np.savez(path, data=smaller, labels=np.array([1, 2]))
    refused = prepare(*arguments)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "train_data_batch_4.npz: holds uint8 (2, 3072), expected uint8 (2, 12288)" in (
        refused.stderr
    )
    path.unlink()
    with pytest.raises(ConfigError, match="train_data_batch_4 is missing"):
        imagenet64(source, 64)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))  # no archive at all
    with pytest.raises(ConfigError, match=r"train_data_batch_4.npz: cannot be read"):
        imagenet64(source, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "cannot be read .TypeError"),
        (b"cnowhere\nThing\n.", "cannot be read .ModuleNotFoundError: No module named 'nowhere'"),
        (b"cnumpy\nnothing\n.", "cannot be read .AttributeError"),
        ({"data": [[0]]}, "cannot be read .KeyError: 'labels'"),
        ({"labels": 3}, r"labels are int64 \(\), expected a list"),
        ({"labels": None}, r"labels are object \(\), expected a list"),
        ({"labels": [0, 999]}, "labels are 0 to 999, expected 1 to 1000"),
        ({"labels": [1, 1001]}, "labels are 1 to 1001, expected 1 to 1000"),
        ({"labels": [1], "data": [[0, 1]]}, r"holds int64 \(1, 2\), expected uint8 \(1, 12288\)"),
    ],
)
def test_damaged_pickles_of_imagenet_are_one_line(
    tmp_path: Path, content: Any, message: str
) -> None:
    for name in [*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data"]:
        data = content if isinstance(content, bytes) else pickle.dumps(content)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"train_data_batch_1: {message}") as caught:
        next(imagenet64(tmp_path, 64)["train"][1])
    assert "\n" not in str(caught.value)


def test_labels_of_imagenet_are_read_without_images_and_images_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data"]:
        data = np.zeros((1, 3 * 64 * 64), np.uint8)
        np.savez(tmp_path / f"{name}.npz", data=data, labels=np.array([1]))
    read: list[str] = []
    array = image_files._array
    monkeypatch.setattr(
        image_files, "_array", lambda path, name: read.append(name) or array(path, name)
    )
    found = imagenet64(tmp_path, 64)
    assert read == ["labels"] * 11 and found["train"][0] == 10
    assert all(image.base is None for image, _ in found["train"][1])  # holds no file in memory
    assert read == ["labels"] * 11 + ["data"] * 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.tiles=1"], "dataset.tiles=1: at least 2"),
        (["dataset.tiles=32"], "side=1: a tile of 1 pixel"),
        (["dataset.std=[0.2]"], "dataset.std=[0.2]: give one number for each of"),
        (["dataset.std=[0.2,0.0,0.2]"], "and standard deviations above 0"),
        (["dataset.source=real"], "scripts/prepare_images.py cifar10"),
        (["dataset.source=reel"], "dataset.source=reel"),
        (["dataset.train_size=50001"], "dataset.train_size=50001: choose 1 to 50000"),
        (["dataset.image_size=28", "dataset.train_size=4", "dataset.test_size=2"],
         "dataset.images=cifar10 have 3 and 32"),
    ],
)  # fmt: skip
def test_what_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    place = [f"paths.data={tmp_path}", f"paths.outputs={tmp_path / 'outputs'}"]
    assert message in complaint(*CIFAR, *overrides, *place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", [10, -1])
def test_a_store_of_other_classes_is_refused(tmp_path: Path, label: int) -> None:
    items = {s: (1, iter([(np.zeros((3, 32, 32), np.uint8), label)])) for s in ("train", "test")}
    write_images(store_path(tmp_path, "cifar10"), "folder", items)
    with pytest.raises(ConfigError, match=f"dataset.images=cifar10: .* has classes {label} to"):
        load_images("cifar10", str(tmp_path), "real", {"train": None, "test": None}, 0)


def test_damaged_stores_are_refused(tmp_path: Path) -> None:
    store(tmp_path)
    path = store_path(tmp_path, "cifar10")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ConfigError, match="is not a store"):
        read_images(path)


def test_only_the_order_is_learned_through_a_frozen_classifier(
    tmp_path: Path, data_root: Path
) -> None:
    place = ["scale=smoke", f"paths.outputs={tmp_path}", f"paths.data={data_root}"]
    perform("experiment=mosaic_classifier", "dataset.tiles=2", *place)
    perform("experiment=mosaics_implicit_po_u", "encoder.elements.width=4", *place)
    trained = weights(only(tmp_path, "mosaic_classifier") / "seed-0")
    after = weights(only(tmp_path, "mosaics_implicit_po_u") / "seed-0")
    same = {k: torch.equal(v, trained[k]) for k, v in after.items() if k.startswith("classifier.")}
    assert all(same[k] for k in same if "running" not in k and "num_batches" not in k)
    assert not all(same.values())  # the released code's batch norm goes on
    record = read(only(tmp_path, "mosaics_implicit_po_u") / "seed-0/result.json")
    assert record["metrics"].keys() == {"loss", "accuracy", "mse"}


class Brightness(nn.Module):
    """Scores of two classes, by the mean of an image, after batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        mean = self.norm(images).mean((1, 2, 3))
        return torch.stack([mean, -mean], dim=-1)


@pytest.mark.parametrize("norm", Norm)
def test_batch_norm_of_a_frozen_classifier(norm: Norm, tmp_path: Path) -> None:
    batch = one_pass(make(tmp_path))[0]
    batch.aux["label"].remainder_(2)
    task = ClassifyMosaic(
        encoder=AsGiven(), classifier=Brightness(), loss=CrossEntropyLoss(), per_side=2,
        size=(1, 14, 14), norm=norm,
    )  # fmt: skip
    outcome = task.train()(batch)
    moved = bool((task.classifier.norm.running_mean != 0).any())
    assert moved == (norm is Norm.train)
    assert_close(outcome.stats["mse"], (batch.input.x - batch.target.x).square().mean((1, 2)))
    assert not task.eval().classifier.training
