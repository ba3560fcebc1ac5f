"""Batches of CLEVR sets: exact order, official and procedural sources, resident and streamed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from smoke_runs import train
from torch import Tensor

from setexp.datasets import pictures
from setexp.datasets.clevr import foreground, procedural
from setexp.datasets.clevr.dataset import ClevrSets
from setexp.datasets.clevr.objects import read_scenes
from setexp.datasets.clevr.official import SPLITS, real_store_path
from setexp.datasets.clevr.procedural import Recipe, procedural_path, procedural_store
from setexp.datasets.clevr.raster import visible_pixels
from setexp.datasets.clevr.scenes import sample_scenes, to_official
from setexp.datasets.clevr.store import Block, Store, write_store
from setexp.errors import ConfigError
from setexp.sets import Batch
from setexp.training.loop import Fit

REPOSITORY = Path(__file__).parents[1]
HERE = "cuda" if torch.cuda.is_available() else "cpu"
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class FakeScenes(NamedTuple):
    """S scenes of nothing but a number of objects and a random number."""

    objects: Tensor
    tag: Tensor


def fake_sample(
    count: int, *, generator: torch.Generator, min_objects: int, max_objects: int
) -> FakeScenes:
    options: dict[str, Any] = {"generator": generator, "device": generator.device}
    counts = torch.randint(min_objects, max_objects + 1, (count,), **options)
    return FakeScenes(counts, torch.randint(2**24, (count,), **options))


def fake_official(scenes: FakeScenes, split: str, first_index: int = 0) -> list[dict[str, Any]]:
    item = {"shape": "sphere", "size": "small", "material": "metal", "color": "red"}
    described = []
    for number, (count, tag) in enumerate(zip(*map(Tensor.tolist, scenes), strict=True)):
        objects = [
            {**item, "3d_coords": [tag / 2**24, n, 0.35], "pixel_coords": [tag % 480, 10 * n, 9.0]}
            for n in range(count)
        ]
        directions = {"right": [1.0, 0.0, 0.0]}
        index = first_index + number
        described.append({"image_index": index, "objects": objects, "directions": directions})
    return described


def fake_render(scenes: FakeScenes, *, height: int, width: int) -> Tensor:
    """Images whose bytes repeat the scene's random number."""
    bytes_of_tag = (scenes.tag[:, None] >> torch.tensor([0, 8, 16], device=scenes.tag.device)) & 255
    return bytes_of_tag[:, :, None, None].expand(-1, -1, height, width).to(torch.uint8)


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A renderer that takes no time; the list grows by the number of images it draws."""
    drawn: list[int] = []

    def counted(scenes: FakeScenes, **size: int) -> Tensor:
        drawn.append(len(scenes.tag))
        return fake_render(scenes, **size)

    monkeypatch.setattr(procedural, "sample_scenes", fake_sample)
    monkeypatch.setattr(procedural, "to_official", fake_official)
    monkeypatch.setattr(procedural, "render", counted)
    return drawn


def settings(root: Path, **changes: Any) -> dict[str, Any]:
    usual = {
        "root": str(root),
        "source": "procedural",
        "target": "state",
        "image_size": 4,
        "element_dim": 18,
        "train_size": 23,
        "test_size": 40,
    }
    return {**usual, **changes}


def write_real(root: Path, count: int = 12, size: int = 4, objects: int = 6) -> None:
    """Prepared stores as from an official release, with recognisable contents."""
    for number, split in enumerate(SPLITS):
        tags = torch.arange(count) + 1000 * (number + 1)
        scenes = FakeScenes(torch.full((count,), objects), tags)
        described = fake_official(scenes, split)
        images = fake_render(scenes, height=size, width=size).contiguous().numpy()
        block = Block(images, read_scenes(described), ["{}"] * count)
        write_store(real_store_path(root, size, split), [block], count, {"key": split})


def generator(device: str = "cpu", seed: int = 7) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def tags(batch: Batch) -> list[int]:
    """The scenes' random numbers, read from the images."""
    channels = (batch.input[:, :, 0, 0] * 255).round().long().tolist()
    return [red + 256 * green + 65536 * blue for red, green, blue in channels]


def assert_equal(a: Batch, b: Batch) -> None:
    assert torch.equal(a.input, b.input)
    assert torch.equal(a.target.x, b.target.x) and torch.equal(a.target.mask, b.target.mask)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resident", ["always", "never"])
def test_batches_pair_each_image_with_its_set(
    tmp_path: Path, renders: list[int], resident: str, device: str
) -> None:
    data = ClevrSets(**settings(tmp_path, resident=resident)).to(torch.device(device))
    seen = []
    for batch in data.batches("train", 5, generator(device)):
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
    whole = list(data.batches("train", 5, generator(device), **how))
    assert [len(batch.input) for batch in whole] == [5, 5, 5, 5] + [3] * (not drop_last)
    for start in range(len(whole) + 2):
        rest = list(data.batches("train", 5, generator(device), start=start, **how))
        assert len(rest) == max(0, len(whole) - start)
        for a, b in zip(rest, whole[start:], strict=True):
            assert_equal(a, b)


def test_start_reads_no_earlier_image(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ClevrSets(**settings(tmp_path, resident="never"))
    list(data.batches("train", 5, generator()))
    read: list[np.ndarray] = []
    take = np.take

    def recorded(images: np.ndarray, rows: np.ndarray, **options: Any) -> Any:
        read.append(rows)
        return take(images, rows, **options)

    monkeypatch.setattr(np, "take", recorded)
    list(data.batches("train", 5, generator(), start=3))
    assert [len(rows) for rows in read] == [5, 3]
    assert all((np.diff(rows) > 0).all() for rows in read)


@pytest.mark.parametrize("device", DEVICES)
def test_streamed_equals_resident(tmp_path: Path, renders: list[int], device: str) -> None:
    passes = [
        ClevrSets(**settings(tmp_path, resident=resident, target="boxes", element_dim=4))
        .to(torch.device(device))
        .batches("test", 7, generator(device))
        for resident in ("always", "never", "auto")
    ]
    for a, b, c in zip(*passes, strict=True):
        assert_equal(a, b)
        assert_equal(a, c)


def test_order_depends_on_the_generator_at_the_call_alone(
    tmp_path: Path, renders: list[int]
) -> None:
    data = ClevrSets(**settings(tmp_path))
    source = generator()
    first = data.batches("train", 23, source)
    second = data.batches("train", 23, source)
    orders = [tags(next(second)), tags(next(first))]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    again = generator()
    repeated = [tags(next(data.batches("train", 23, again))) for _ in range(2)]
    assert repeated == orders[::-1]
    plain = [tags(next(data.batches("train", 23, generator(), shuffle=False))) for _ in range(2)]
    assert plain[0] == plain[1] not in orders


@pytest.mark.parametrize("resident", ["always", "never"])
def test_val_is_the_first_tenth_of_test(tmp_path: Path, renders: list[int], resident: str) -> None:
    data = ClevrSets(**settings(tmp_path, resident=resident))
    assert [data.sizes(split) for split in ("train", "val", "test")] == [23, 4, 40]
    (val,) = data.batches("val", 100, generator(), shuffle=False)
    (test,) = data.batches("test", 100, generator(), shuffle=False)
    assert tags(val) == tags(test)[:4]
    (shuffled,) = data.batches("val", 100, generator())
    assert sorted(tags(shuffled)) == sorted(tags(val))
    (train,) = data.batches("train", 100, generator())
    assert not set(tags(train)) & set(tags(test))


def test_a_pass_that_is_left_early_ends_its_reader(tmp_path: Path, renders: list[int]) -> None:
    data = ClevrSets(**settings(tmp_path, resident="never"))
    before = threading.active_count()
    running = data.batches("test", 2, generator())
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_auto_keeps_images_only_where_they_fit(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pictures.fits(10**9, torch.device("cpu"))
    assert not pictures.fits(10**9 + 1, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10**6))
    assert pictures.fits(1000, torch.device("cuda"))
    assert not pictures.fits(1001, torch.device("cuda"))
    monkeypatch.setattr(pictures, "_HOST_LIMIT", 23 * 3 * 4 * 4)
    copied: list[int] = []
    copy = pictures._copy

    def recorded(images: np.ndarray, device: torch.device) -> Tensor:
        copied.append(len(images))
        return copy(images, device)

    monkeypatch.setattr(pictures, "_copy", recorded)
    data = ClevrSets(**settings(tmp_path))
    for split in ("train", "test", "train"):
        list(data.batches(split, 5, generator()))
    assert copied == [23]


def test_sets_are_padded_or_cut_to_set_size(tmp_path: Path, renders: list[int]) -> None:
    wide = ClevrSets(**settings(tmp_path, set_size=13))
    exact = ClevrSets(**settings(tmp_path))
    (a,) = wide.batches("train", 23, generator())
    (b,) = exact.batches("train", 23, generator())
    assert a.target.x.shape == (23, 13, 18)
    assert torch.equal(a.target.x[:, :10], b.target.x) and not a.target.x[:, 10:].any()
    few = ClevrSets(**settings(tmp_path, set_size=4, max_objects=4))
    (c,) = few.batches("train", 23, generator())
    counts = c.target.mask.sum(1)
    assert c.target.x.shape == (23, 4, 18) and counts.min() == 3 and counts.max() == 4


def test_rendered_once_and_cached_under_all_that_determines_it(
    tmp_path: Path, renders: list[int]
) -> None:
    first = ClevrSets(**settings(tmp_path))
    assert not renders and not list(tmp_path.iterdir())
    (a,) = first.batches("train", 23, generator())
    assert sum(renders) == 23
    (b,) = ClevrSets(**settings(tmp_path)).batches("train", 23, generator())
    assert sum(renders) == 23
    assert_equal(a, b)
    prints = {first.fingerprint}
    changes: list[dict[str, Any]] = [
        {"data_seed": 1},
        {"image_size": 8},
        {"min_objects": 4},
        {"max_objects": 9},
        {"train_size": 22},
    ]
    for number, change in enumerate(changes, start=2):
        other = ClevrSets(**settings(tmp_path, **change))
        next(other.batches("train", 5, generator()))
        prints.add(other.fingerprint)
        assert len(prints) == number
    assert len(list(tmp_path.glob("clevr/procedural-*/train-*.h5"))) == len(changes) + 1
    boxes = ClevrSets(**settings(tmp_path, target="boxes", element_dim=4))
    assert boxes.fingerprint not in prints
    rendered = sum(renders)
    next(boxes.batches("train", 5, generator()))
    assert sum(renders) == rendered


def test_a_store_drawn_on_another_kind_of_device_is_used_where_it_is_complete(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = settings(tmp_path, train_size=5, test_size=5)
    (drawn,) = ClevrSets(**small).batches("train", 5, generator())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    prints = [ClevrSets(**small).fingerprint]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    next(ClevrSets(**small).batches("test", 5, generator()))
    prints.append(ClevrSets(**small).fingerprint)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    elsewhere = ClevrSets(**small)
    prints.append(elsewhere.fingerprint)
    assert prints[0] != prints[1] == prints[2]
    (found,) = elsewhere.batches("train", 5, generator())
    assert_equal(found, drawn)
    assert renders == [5, 5]


@pytest.mark.parametrize("left", ["val-5.h5", ".train-5.h5.lock", ".val-5.h5.KEY.parts/000000.h5"])
def test_a_run_that_has_begun_to_render_resumes_with_what_it_renders(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    small = settings(tmp_path, train_size=5, test_size=5)
    begun = ClevrSets(**small)
    path = procedural_path(tmp_path, "train", 5, begun._recipe).parent / left
    path.parent.mkdir(parents=True)
    path.touch()
    for split in ("train", "val"):  # meanwhile another machine has both
        procedural_store(tmp_path, split, 5, Recipe(4, 3, 10, 0, "cpu"))
    assert ClevrSets(**small).fingerprint == begun.fingerprint
    shutil.rmtree(path.parent if path.parent.name.startswith("procedural") else path.parent.parent)
    assert ClevrSets(**small).fingerprint != begun.fingerprint


def test_interrupted_rendering_goes_on(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(4, 3, 10, 0, "cpu", part_size=10)
    whole = procedural_store(tmp_path / "a", "train", 25, recipe)
    renders.clear()

    def failing(scenes: FakeScenes, **size: int) -> Tensor:
        if sum(renders) == 20:
            raise KeyboardInterrupt
        renders.append(len(scenes.tag))
        return fake_render(scenes, **size)

    with monkeypatch.context() as patch:
        patch.setattr(procedural, "render", failing)
        with pytest.raises(KeyboardInterrupt):
            procedural_store(tmp_path / "b", "train", 25, recipe)
    assert not list(tmp_path.glob("b/clevr/*/train-25.h5"))
    renders.clear()
    resumed = procedural_store(tmp_path / "b", "train", 25, recipe)
    assert renders == [5]
    assert Store(resumed).digest == Store(whole).digest
    assert Store(resumed).array("image_index").tolist() == list(range(25))


def test_two_threads_render_once(tmp_path: Path, renders: list[int]) -> None:
    recipe = Recipe(4, 3, 10, 0, "cpu", part_size=3)
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(procedural_store(tmp_path, "val", 9, recipe)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3 and sum(renders) == 9
    Store(paths[0]).verify()


def test_two_processes_share_one_procedural_store(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from setexp.datasets.clevr.procedural import Recipe, procedural_store\n"
        "from setexp.datasets.clevr.store import Store\n"
        "path = procedural_store(Path(sys.argv[1]), 'train', 4, Recipe(16, 3, 3, 0, 'cpu', 2))\n"
        "store = Store(path); store.verify(); print(len(store), store.digest)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    runs = [
        subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=REPOSITORY) for _ in range(2)
    ]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    said = [out.splitlines()[-1] for out, _ in outputs]  # one may say first that it waits
    assert (
        said[0] == said[1] and said[0].startswith("4 ") and [err for _, err in outputs] == ["", ""]
    )
    names = {item.name for item in next(tmp_path.glob("clevr/procedural-*")).iterdir()}
    assert names == {"train-4.h5", ".train-4.h5.lock"}


def test_runs_render_before_signals_are_held_back(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TrainingBeginsError(Exception):
        pass

    def begins(_: Any) -> None:
        raise TrainingBeginsError

    monkeypatch.setattr(Fit, "train", begins)
    with pytest.raises(TrainingBeginsError):
        train(
            tmp_path / "outputs", "experiment=dspn_clevr_boxes", f"paths.data={tmp_path / 'data'}"
        )
    assert sorted(renders) == [8, 20]


def test_rendered_scenes_agree_with_their_labels(tmp_path: Path) -> None:
    data = ClevrSets(**settings(tmp_path, image_size=32, train_size=6, test_size=6, max_objects=5))
    (state,) = data.batches("train", 6, generator(), shuffle=False)
    boxed = settings(tmp_path, image_size=32, train_size=6, test_size=6, max_objects=5)
    boxed.update(target="boxes", element_dim=4)
    (boxes,) = ClevrSets(**boxed).batches("train", 6, generator(), shuffle=False)
    assert torch.equal(state.input, boxes.input)
    # Objects are coloured and the ground is grey, so colour lies within the boxes.
    colour = state.input.amax(1) - state.input.amin(1)
    covered = torch.zeros_like(colour, dtype=torch.bool)
    for picture, corners, mask in zip(covered, boxes.target.x, boxes.target.mask, strict=True):
        for x0, y0, x1, y1 in (corners[mask == 1].clamp(0, 1) * 32).int().tolist():
            picture[y0 : y1 + 1, x0 : x1 + 1] = True
    assert colour[covered].mean() > 5 * colour[~covered].mean()


def test_real_data_is_found_and_read(tmp_path: Path, renders: list[int]) -> None:
    write_real(tmp_path)
    for source in ("auto", "real"):
        data = ClevrSets(**settings(tmp_path, source=source, train_size=None, test_size=None))
        assert data.source == "real"
        assert [data.sizes(split) for split in ("train", "val", "test")] == [12, 1, 12]
        (train,) = data.batches("train", 12, generator())
        assert sorted(tags(train)) == list(range(1000, 1012))
    some = ClevrSets(**settings(tmp_path, source="real", train_size=5, test_size=3))
    (train,) = some.batches("train", 12, generator())
    assert sorted(tags(train)) == list(range(1000, 1005))
    assert some.fingerprint != data.fingerprint
    before = data.fingerprint
    write_real(tmp_path, objects=7)
    changed = ClevrSets(**settings(tmp_path, source="real", train_size=None, test_size=None))
    assert changed.fingerprint != before
    assert not renders


def test_auto_falls_back_and_says_so_where_other_stores_exist(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ClevrSets(**settings(tmp_path, source="auto")).source == "procedural"
    assert not caplog.records
    write_real(tmp_path)
    real_store_path(tmp_path, 4, "val").unlink()
    assert ClevrSets(**settings(tmp_path, source="auto")).source == "procedural"
    assert "val.h5" in caplog.text


def test_procedural_defaults_are_those_of_the_release(tmp_path: Path) -> None:
    data = ClevrSets(**settings(tmp_path, train_size=None, test_size=None))
    sizes = [data.sizes(split) for split in ("train", "val", "test")]
    assert sizes == [70_000, 1_500, 15_000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "reel"}, "dataset.source='reel'; accepted: auto, real, procedural"),
        ({"target": "state_vector"}, "dataset.target='state_vector'; accepted: state, boxes"),
        ({"resident": True}, "dataset.resident=True; accepted"),
        ({"element_dim": 4}, "element_dim=4 does not fit dataset.target=state.* 18"),
        ({"target": "boxes"}, "element_dim=18 does not fit dataset.target=boxes.* 4"),
        ({"image_size": 0}, "image_size=0"),
        ({"train_size": 0}, "train_size=0"),
        ({"test_size": -1}, "test_size=-1"),
        ({"set_size": 9}, "max_objects=10, set_size=9"),
        ({"min_objects": 0}, "min_objects=0"),
        ({"min_objects": 6, "max_objects": 5}, "min_objects=6, max_objects=5"),
        ({"max_objects": 11, "set_size": 11}, "max_objects <= 10"),
        ({"source": "real"}, "train.h5 is missing.*python scripts/prepare_clevr.py.*size 4"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        ClevrSets(**settings(tmp_path, **change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_size": 13}, "train_size=13, but .*train.h5 has 12"),
        ({"test_size": 13}, "test_size=13, but .*val.h5 has 12"),
        ({"set_size": 5}, "set_size=5, but .* scenes of 6 objects"),
    ],
)
def test_real_data_that_is_too_small_or_sets_too_large_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_real(tmp_path)
    wanted = {"source": "real", "train_size": 12, "test_size": 12, **change}
    with pytest.raises(ConfigError, match=message):
        ClevrSets(**settings(tmp_path, **wanted))


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split 'dev': CLEVR has train, val, test"):
        ClevrSets(**settings(tmp_path)).sizes("dev")


def real_scenes(count: int) -> Any:
    return sample_scenes(count, generator=torch.Generator().manual_seed(0), max_objects=4)


def test_silhouettes_are_the_visible_pixels_of_all_objects() -> None:
    scenes = real_scenes(3)
    seen = foreground.silhouettes(scenes, height=40, width=60)
    counted = visible_pixels(scenes, height=40, width=60).sum(1)
    assert torch.equal(seen.sum((1, 2)), counted)
    for shown, scene in zip(seen, to_official(scenes, "val"), strict=True):
        for item in scene["objects"]:
            x, y = item["pixel_coords"][:2]
            assert shown[round(y / 8), round(x / 8)]


def test_foregrounds_are_pictures_without_background(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"root": str(tmp_path), "source": "procedural", "target": "boxes"}
    settings |= {"image_size": 48, "set_size": 4, "max_objects": 4, "element_dim": 4}
    settings |= {"train_size": 5, "test_size": 4, "foreground": True}
    data = ClevrSets(**settings)
    how: dict[str, Any] = {"shuffle": True, "drop_last": False}
    (batch,) = data.batches("train", 5, torch.Generator().manual_seed(1), **how)
    picture, shown = batch.aux["picture"], (batch.aux["picture"] != 0).any(1, keepdim=True)
    assert torch.equal(picture, batch.input * shown)
    assert 0.02 < shown.float().mean() < 0.6
    fills = [
        mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1].float().mean()
        for boxes, present, mask in zip(*batch.target, shown[:, 0], strict=True)
        for x0, y0, x1, y1 in (boxes[present > 0] * 48).round().int().tolist()
    ]
    assert torch.stack(fills).mean() > 0.5
    data.prepare("val")
    assert len(list(tmp_path.glob("clevr/*/*-foreground-*.npy"))) == 2
    again = next(ClevrSets(**settings).batches("train", 5, torch.Generator().manual_seed(1), **how))
    assert torch.equal(again.aux["picture"], picture)


def test_masks_are_those_of_the_stores_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(16, 3, 3, 0, HERE)
    store = Store(procedural_store(tmp_path, "train", 2, recipe))
    drawn = foreground.procedural_masks(store, "train", recipe)
    assert store.digest in drawn.name
    with monkeypatch.context() as patch:
        patch.delattr(foreground, "draw_scenes")  # nothing is drawn twice
        assert foreground.procedural_masks(store, "train", recipe) == drawn
    other = Store(procedural_store(tmp_path / "other", "train", 2, recipe._replace(data_seed=1)))
    shutil.copy(other.path, store.path)  # the same name, rendered anew
    changed = Store(store.path)
    with pytest.raises(ConfigError, match="train-2.h5 was drawn on another machine"):
        foreground.procedural_masks(changed, "train", recipe)
    path = foreground.procedural_masks(changed, "train", recipe._replace(data_seed=1))
    assert path.exists() and not drawn.exists()
    same = foreground.procedural_masks(other, "train", recipe._replace(data_seed=1))
    assert path.read_bytes() == same.read_bytes()


def test_masks_of_real_pictures_are_who_rendered_them(tmp_path: Path, renders: list[int]) -> None:
    write_real(tmp_path)
    wanted = settings(tmp_path, foreground=True, train_size=None, test_size=None)
    with pytest.raises(ConfigError, match=r"train-foreground.npy is missing: the official release"):
        ClevrSets(**wanted | {"source": "real"})
    assert ClevrSets(**wanted | {"source": "auto"}).source == "procedural"
    mask = np.arange(16).reshape(4, 4) % 3 == 0
    for split in SPLITS:
        path = foreground.mask_path(real_store_path(tmp_path, 4, split))
        np.save(path, np.packbits(np.tile(mask, (12, 1, 1)), axis=-1))
    data = ClevrSets(**wanted | {"source": "auto"})
    assert data.source == "real"
    batch = next(data.batches("test", 12, generator()))
    assert torch.equal(batch.aux["picture"], batch.input * torch.from_numpy(mask))
    before = data.fingerprint
    np.save(path, np.packbits(np.tile(~mask, (12, 1, 1)), axis=-1))
    assert ClevrSets(**wanted | {"source": "auto"}).fingerprint != before


def test_the_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_real(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = settings(Path("~/data"), source="auto", train_size=None, test_size=None)
    assert ClevrSets(**wanted).source == "real"


def test_masks_of_other_pictures_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((4, 16, 2), np.uint8))
    assert foreground.load_masks(tmp_path / "m.npy", (3, 3, 16, 16)).shape == (3, 16, 2)
    for shape in ((5, 3, 16, 16), (4, 3, 16, 32)):
        with pytest.raises(ConfigError, match=r"m.npy holds uint8 \(4, 16, 2\)"):
            foreground.load_masks(tmp_path / "m.npy", shape)
    for size in (150, 0):
        (tmp_path / "m.npy").write_bytes((tmp_path / "m.npy").read_bytes()[:size])
        with pytest.raises(ConfigError, match="m.npy cannot be read"):
            foreground.load_masks(tmp_path / "m.npy", (3, 3, 16, 16))


def test_masks_of_scenes_from_a_gpu_need_one(tmp_path: Path) -> None:
    recipe = Recipe(24, 3, 4, 0, "cuda")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    write_real(tmp_path)
    store = Store(real_store_path(tmp_path, 4, "train"))
    with pytest.raises(ConfigError, match="was drawn on a GPU"):
        foreground.procedural_masks(store, "train", recipe)


@pytest.mark.parametrize("width", [16, 21])
def test_packed_masks(width: int) -> None:
    masks = torch.rand(3, 5, width) < 0.5
    packed = torch.from_numpy(np.packbits(masks.numpy(), axis=-1))
    assert torch.equal(foreground.unpack(packed, width)[:, 0] > 0, masks)
