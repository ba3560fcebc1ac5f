"""Where MNIST images come from: files, a download, or procedural digits; and what goes wrong."""

import gzip
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from setexp.datasets.mnist_images import _MD5, load_mnist
from setexp.errors import ConfigError

FILES = [f"{a}-{b}-ubyte" for a in ("train", "t10k") for b in ("images-idx3", "labels-idx1")]


def load(
    root: str, source: str, *, train: bool, count: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, str]:
    return load_mnist(root, source, train=train, count=count, seed=seed)


def test_procedural_images_depend_on_split_and_seed_not_on_count() -> None:
    few, few_labels, source = load("nowhere", "auto", train=True, count=10)
    many, many_labels, _ = load("nowhere", "procedural", train=True, count=1500)
    assert source == "procedural"
    assert torch.equal(few, many[:10])
    assert torch.equal(few_labels, many_labels[:10])
    assert many_labels.bincount(minlength=10).min() > 100
    assert not torch.equal(few, load("nowhere", "auto", train=False, count=10)[0])
    assert not torch.equal(few, load("nowhere", "auto", train=True, count=10, seed=1)[0])


@pytest.fixture(scope="module")
def files_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with all four files, of which those of the test split have content."""
    folder = tmp_path_factory.mktemp("root") / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / FILES[0]).touch()
    (folder / FILES[1]).touch()
    image = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (10000, 28, 28))
    pixels = bytearray(10000 * 784)
    pixels[784 + 28 * 5 + 6] = 200  # image 1, row 5, column 6
    (folder / FILES[2]).write_bytes(image + pixels)
    label = bytes([0, 0, 8, 1]) + (10000).to_bytes(4, "big")
    (folder / FILES[3]).write_bytes(label + bytes(i % 10 for i in range(10000)))
    return folder.parents[1]


@pytest.fixture
def root(files_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(files_root, tmp_path / "root"))


@pytest.fixture
def taken_for_mnist(files_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (files_root / "MNIST/raw").iterdir():
        monkeypatch.setitem(_MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())


@pytest.mark.usefixtures("taken_for_mnist")
@pytest.mark.parametrize("source", ["auto", "real"])
def test_idx_files_are_read(files_root: Path, source: str) -> None:
    images, labels, used = load(str(files_root), source, train=False, count=12)
    assert used == "real"
    assert (images.shape, images.dtype) == ((12, 28, 28), torch.uint8)
    assert images.nonzero().tolist() == [[1, 5, 6]]
    assert images[1, 5, 6] == 200
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_a_truncated_file_is_named(root: Path) -> None:
    path = root / "MNIST/raw" / FILES[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ConfigError, match=f"{FILES[2]}: is truncated .* 7840016 .* 7840015"
    ) as info:
        load(str(root), "auto", train=False)
    assert "\n" not in str(info.value)
    assert "dataset.source=procedural" in str(info.value)


@pytest.mark.usefixtures("taken_for_mnist")
def test_a_wrong_header_is_named(root: Path) -> None:
    path = root / "MNIST/raw" / FILES[3]
    path.write_bytes(b"PK" + path.read_bytes()[2:])
    with pytest.raises(ConfigError, match=f"{FILES[3]}: is truncated or not MNIST's"):
        load(str(root), "real", train=False)


@pytest.mark.usefixtures("taken_for_mnist")
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_is_named_packed_or_not(root: Path, packed: bool) -> None:
    path = root / "MNIST/raw" / FILES[2]
    content = bytearray(path.read_bytes())
    for changed in (False, True):  # one pixel
        content[-1] = changed
        path.unlink(missing_ok=True)
        if packed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, 1))
        else:
            path.write_bytes(content)
        if not changed:
            load(str(root), "auto", train=False)
    name = f"{FILES[2]}.gz" if packed else FILES[2]
    with pytest.raises(ConfigError, match=f"{name}: is damaged, the MD5 of its content"):
        load(str(root), "auto", train=False)


def test_a_truncated_archive_is_named(root: Path) -> None:
    path = root / "MNIST/raw" / FILES[2]
    packed = gzip.compress(path.read_bytes(), 1)
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(packed[:-9])
    with pytest.raises(ConfigError, match=f"{FILES[2]}.gz: cannot be read"):
        load(str(root), "auto", train=False)


def test_an_incomplete_folder_is_not_silently_replaced(root: Path) -> None:
    (root / "MNIST/raw" / FILES[3]).unlink()
    with pytest.raises(ConfigError, match=f"dataset.source=auto: .* lacks {FILES[3]};"):
        load(str(root), "auto", train=False)


def replace_torchvision(monkeypatch: pytest.MonkeyPatch, mnist: Callable[..., object]) -> None:
    datasets = SimpleNamespace(MNIST=mnist)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=datasets))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(root: str, download: bool) -> None:
        raise RuntimeError("Error downloading:\nno route")

    replace_torchvision(monkeypatch, refuse)
    with pytest.raises(ConfigError) as info:
        load(str(tmp_path), "real", train=True)
    message = str(info.value)
    assert "\n" not in message
    for part in ("dataset.source=real", "no route", *FILES, str(tmp_path), "source=procedural"):
        assert part in message
    assert not list((tmp_path / "MNIST/raw").iterdir())


def test_auto_never_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # its parts may have been imported before
    for name in ["torchvision", *(m for m in sys.modules if m.startswith("torchvision."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert load(str(tmp_path), "auto", train=True, count=5)[2] == "procedural"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="could not be downloaded .*torchvision"):
        load(str(tmp_path), "real", train=True)


@pytest.mark.usefixtures("taken_for_mnist")
def test_a_download_is_moved_into_place(
    monkeypatch: pytest.MonkeyPatch, files_root: Path, tmp_path: Path
) -> None:
    def download(root: str, download: bool) -> None:
        shutil.copytree(files_root, root, dirs_exist_ok=True)

    replace_torchvision(monkeypatch, download)
    labels = load(str(tmp_path), "real", train=False, count=3)[1]
    assert labels.tolist() == [0, 1, 2]
    assert sorted(p.name for p in (tmp_path / "MNIST/raw").iterdir()) == sorted(FILES)
