"""Batches of CLEVR sets: exact order, resident and streamed, padding, and wrong settings."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_clevr import HERE, assert_equal, fake_renderer, generator, one_pass, settings, tags
from torch import Tensor

from setexp.datasets import image_rows
from setexp.datasets.clevr.dataset import ClevrSets
from setexp.datasets.clevr.procedural import Recipe, procedural_store
from setexp.datasets.clevr.store import Store
from setexp.errors import ConfigError

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return fake_renderer(monkeypatch)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resident", ["always", "never"])
def test_batches_pair_each_image_with_its_set(
    tmp_path: Path, renders: list[int], resident: str, device: str
) -> None:
    data = ClevrSets(**settings(tmp_path, resident=resident)).to(torch.device(device))
    seen = []
    for batch in one_pass(data, "train", 5, generator(device)):
        assert batch.input.shape[1:] == (3, 4, 4) and batch.input.dtype == torch.float32
        assert batch.target.x.shape[1:] == (10, 18) and batch.target.mask.shape[1:] == (10,)
        assert batch.input.device.type == batch.target.x.device.type == device
        assert batch.input.min() >= 0 and batch.input.max() <= 1
        assert not batch.target.x[batch.target.mask == 0].any()
        read = torch.tensor(tags(batch), device=device) / 2**24 / 3
        assert torch.allclose(batch.target.x[:, 0, 0], read.float(), atol=1e-6)
        seen += tags(batch)
    store = Store(procedural_store(tmp_path, "train", 23, Recipe(4, 3, 10, 0, HERE)))
    planes = store.images[:, :, 0, 0].astype(int)
    assert sorted(seen) == sorted((planes * [1, 256, 65536]).sum(1).tolist())
    assert len(set(seen)) == 23


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize(("shuffle", "drop_last"), [(True, False), (True, True), (False, False)])
def test_start_continues_the_same_pass(
    tmp_path: Path, renders: list[int], resident: str, device: str, shuffle: bool, drop_last: bool
) -> None:
    data = ClevrSets(**settings(tmp_path, resident=resident)).to(torch.device(device))
    how = {"shuffle": shuffle, "drop_last": drop_last}
    whole = list(one_pass(data, "train", 5, generator(device), **how))
    assert [len(batch.input) for batch in whole] == [5, 5, 5, 5] + [3] * (not drop_last)
    for start in range(len(whole) + 2):
        rest = list(one_pass(data, "train", 5, generator(device), start=start, **how))
        assert len(rest) == max(0, len(whole) - start)
        for a, b in zip(rest, whole[start:], strict=True):
            assert_equal(a, b)


def test_start_reads_no_earlier_image(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ClevrSets(**settings(tmp_path, resident="never"))
    list(one_pass(data, "train", 5, generator()))
    read: list[np.ndarray] = []
    take = np.take

    def recorded(images: np.ndarray, rows: np.ndarray, **options: Any) -> Any:
        read.append(rows)
        return take(images, rows, **options)

    monkeypatch.setattr(np, "take", recorded)
    list(one_pass(data, "train", 5, generator(), start=3))
    assert [len(rows) for rows in read] == [5, 3]
    assert all((np.diff(rows) > 0).all() for rows in read)


@pytest.mark.parametrize("device", DEVICES)
def test_streamed_equals_resident(tmp_path: Path, renders: list[int], device: str) -> None:
    boxes = settings(tmp_path, target="boxes", element_dim=4)
    datasets = [
        ClevrSets(**boxes | {"resident": resident}).to(torch.device(device))
        for resident in ("always", "never", "auto")
    ]
    passes = [one_pass(data, "test", 7, generator(device)) for data in datasets]
    for a, b, c in zip(*passes, strict=True):
        assert_equal(a, b)
        assert_equal(a, c)


def test_order_depends_on_the_generator_at_the_call_alone(
    tmp_path: Path, renders: list[int]
) -> None:
    data = ClevrSets(**settings(tmp_path))
    source = generator()
    first = one_pass(data, "train", 23, source)
    second = one_pass(data, "train", 23, source)
    orders = [tags(next(second)), tags(next(first))]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    again = generator()
    repeated = [tags(next(one_pass(data, "train", 23, again))) for _ in range(2)]
    assert repeated == orders[::-1]
    plain = [tags(next(one_pass(data, "train", 23, generator(), shuffle=False))) for _ in range(2)]
    assert plain[0] == plain[1] not in orders


@pytest.mark.parametrize("resident", ["always", "never"])
def test_val_is_the_first_tenth_of_test(tmp_path: Path, renders: list[int], resident: str) -> None:
    data = ClevrSets(**settings(tmp_path, resident=resident))
    assert [data.sizes(split) for split in ("train", "val", "test")] == [23, 4, 40]
    (val,) = one_pass(data, "val", 100, generator(), shuffle=False)
    (test,) = one_pass(data, "test", 100, generator(), shuffle=False)
    assert tags(val) == tags(test)[:4]
    (shuffled,) = one_pass(data, "val", 100, generator())
    assert sorted(tags(shuffled)) == sorted(tags(val))
    (train,) = one_pass(data, "train", 100, generator())
    assert not set(tags(train)) & set(tags(test))


def test_a_pass_that_is_left_early_ends_its_reader(tmp_path: Path, renders: list[int]) -> None:
    data = ClevrSets(**settings(tmp_path, resident="never"))
    before = threading.active_count()
    running = one_pass(data, "test", 2, generator())
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_auto_keeps_images_only_where_they_fit(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert image_rows.fits(10**9, torch.device("cpu"))
    assert not image_rows.fits(10**9 + 1, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10**6))
    assert image_rows.fits(1000, torch.device("cuda"))
    assert not image_rows.fits(1001, torch.device("cuda"))
    for name, size in (("reserved", 2500), ("allocated", 500)):  # of an earlier run
        monkeypatch.setattr(torch.cuda, f"memory_{name}", lambda device, size=size: size)
    assert image_rows.fits(1500, torch.device("cuda"))
    assert not image_rows.fits(1501, torch.device("cuda"))
    monkeypatch.setattr(image_rows, "_HOST_LIMIT", 23 * 3 * 4 * 4)
    copied: list[int] = []
    copy = image_rows._copy

    def recorded(images: np.ndarray, device: torch.device) -> Tensor:
        copied.append(len(images))
        return copy(images, device)

    monkeypatch.setattr(image_rows, "_copy", recorded)
    data = ClevrSets(**settings(tmp_path))
    for split in ("train", "test", "train"):
        list(one_pass(data, split, 5, generator()))
    assert copied == [23]


def test_sets_are_padded_or_cut_to_set_size(tmp_path: Path, renders: list[int]) -> None:
    wide = ClevrSets(**settings(tmp_path, set_size=13))
    exact = ClevrSets(**settings(tmp_path))
    (a,) = one_pass(wide, "train", 23, generator())
    (b,) = one_pass(exact, "train", 23, generator())
    assert a.target.x.shape == (23, 13, 18)
    assert torch.equal(a.target.x[:, :10], b.target.x) and not a.target.x[:, 10:].any()
    few = ClevrSets(**settings(tmp_path, set_size=4, max_objects=4))
    (c,) = one_pass(few, "train", 23, generator())
    counts = c.target.mask.sum(1)
    assert c.target.x.shape == (23, 4, 18) and counts.min() == 3 and counts.max() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "reel"}, "dataset.source=reel: choose one of auto, real, procedural"),
        ({"target": "state_vector"}, "dataset.target=state_vector: choose one of state, boxes"),
        ({"resident": True}, "dataset.resident=True: choose one of auto, always, never"),
        ({"element_dim": 4}, "element_dim=4 does not fit dataset.target=state.* 18"),
        ({"target": "boxes"}, "element_dim=18 does not fit dataset.target=boxes.* 4"),
        ({"image_size": 0}, "image_size=0"),
        ({"train_size": 0}, "train_size=0"),
        ({"test_size": -1}, "test_size=-1"),
        ({"set_size": 9}, "max_objects=10: .* to dataset.set_size=9"),
        ({"min_objects": 0}, "min_objects=0"),
        ({"min_objects": 6, "max_objects": 5}, "min_objects=6, max_objects=5"),
        ({"max_objects": 11, "set_size": 11}, "max_objects=11: must be in order, from 1 to 10"),
        ({"source": "real"}, "train.h5 is missing.*python scripts/prepare_clevr.py.*size 4"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        ClevrSets(**settings(tmp_path, **change))
    assert "\n" not in str(error.value)


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split 'dev': CLEVR has train, val, test"):
        ClevrSets(**settings(tmp_path)).sizes("dev")
