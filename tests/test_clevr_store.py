"""CLEVR stores, and the official release brought into them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from smoke_runs import outcome

from setexp.datasets.array_store import DamagedError, is_sound, kept, part_spans
from setexp.datasets.clevr import official
from setexp.datasets.clevr.objects import read_scenes
from setexp.datasets.clevr.official import prepare_official, read_picture, real_store_path
from setexp.datasets.clevr.store import Block, Store, merge_parts, part_path, write_store
from setexp.errors import ConfigError
from setexp.files import sole_writer

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY.parent / "shared" / "datasets" / "CLEVR_v1.0"


def scene(split: str, index: int) -> dict[str, Any]:
    """A scene in the form of the release with 3 to 10 objects, all determined by its index."""
    item = {"shape": "cube", "size": "small", "material": "metal", "color": "red"}
    objects = [
        {**item, "3d_coords": [0.1 * index, 0.2 * n, 0.35], "pixel_coords": [40 * n, index, 9.5]}
        for n in range(3 + index % 8)
    ]
    name = f"CLEVR_{split}_{index:06d}.png"
    directions = {"right": [0.656, 0.754, 0.0]}
    return {
        "split": split,
        "image_index": index,
        "image_filename": name,
        "objects": objects,
        "directions": directions,
    }


def write_release(folder: Path, count: int = 5, size: tuple[int, int] = (48, 32)) -> Path:
    """A tiny unpacked release with noise pictures; train and val hold `count` scenes each."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        scenes = [scene(split, index) for index in range(count)]
        (folder / "images" / split).mkdir(parents=True)
        for one in scenes:
            pixels = random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
            pixels[:, :, 3] = 255
            Image.fromarray(pixels).save(folder / "images" / split / one["image_filename"])
        write_scenes(folder, split, scenes)
    return folder


def write_scenes(folder: Path, split: str, scenes: list[dict[str, Any]]) -> None:
    (folder / "scenes").mkdir(exist_ok=True)
    path = folder / "scenes" / f"CLEVR_{split}_scenes.json"
    path.write_text(json.dumps({"info": {"split": split}, "scenes": scenes}))


def block(start: int, stop: int, size: int = 4) -> Block:
    scenes = [scene("train", index) for index in range(start, stop)]
    pixels = np.random.default_rng(start).integers(0, 256, (len(scenes), 3, size, size), np.uint8)
    return Block(pixels, read_scenes(scenes), [json.dumps(one) for one in scenes])


def assert_same(store: Store, expected: Block) -> None:
    np.testing.assert_array_equal(store.images, expected.images)
    for name, rows in expected.arrays._asdict().items():
        np.testing.assert_array_equal(store.array(name), rows)
        assert store.array(name).dtype == rows.dtype
    assert store.scenes() == [json.loads(text) for text in expected.scenes]


def test_store_returns_what_was_written(tmp_path: Path) -> None:
    write_store(tmp_path / "a" / "train.h5", [block(0, 7)], 7, {"key": "k"})
    store = Store(tmp_path / "a" / "train.h5")
    store.verify()
    assert isinstance(store.images, np.memmap)
    assert not store.images.flags.writeable
    assert len(store) == 7 and store.about == {"key": "k"}
    assert_same(store, block(0, 7))
    np.testing.assert_array_equal(store.array("image_index", 2, 5), [2, 3, 4])


def test_merged_parts_equal_one_block(tmp_path: Path) -> None:
    path = tmp_path / "train.h5"
    parts = [part_path(path, "key", start) for start, _ in part_spans(7, 3)]
    whole = block(0, 7)
    for part, (start, stop) in zip(parts, part_spans(7, 3), strict=True):
        cut = Block(
            whole.images[start:stop],
            type(whole.arrays)(*(rows[start:stop] for rows in whole.arrays)),
            whole.scenes[start:stop],
        )
        write_store(part, [cut], stop - start, {})
    merge_parts(path, parts, {})
    assert_same(Store(path), whole)
    assert [item.name for item in tmp_path.iterdir()] == ["train.h5"]
    write_store(tmp_path / "one.h5", [whole], 7, {})
    assert Store(tmp_path / "one.h5").digest == Store(path).digest


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Any:
        yield block(0, 3)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_store(tmp_path / "train.h5", failing(), 6, {})
    with pytest.raises(ValueError, match="'scenes': 3} rows, expected .*'scenes': 6}"):
        write_store(tmp_path / "train.h5", [block(0, 3)], 6, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["images", "boxes"])
def test_a_changed_byte_is_found(tmp_path: Path, field: str) -> None:
    import h5py

    path = tmp_path / "train.h5"
    write_store(path, [block(0, 4)], 4, {})
    with h5py.File(path) as file:
        offset = file[field].id.get_offset()
    with open(path, "r+b") as raw:
        raw.seek(offset + 1)
        byte = raw.read(1)[0]
        raw.seek(offset + 1)
        raw.write(bytes([byte ^ 1]))
    with pytest.raises(ConfigError, match=f"damaged in {field}"):
        Store(path).verify()
    assert not is_sound(path)
    assert not path.exists()


@pytest.mark.parametrize(("find", "shift"), [(b"image_index", 3), (b"GCOL", 16)])
def test_text_that_cannot_be_read_is_found(tmp_path: Path, find: bytes, shift: int) -> None:
    path = tmp_path / "train.h5"
    texts = [json.dumps(scene("train", index)) for index in range(4)]
    write_store(path, [block(0, 4)._replace(scenes=texts)], 4, {})
    content = bytearray(path.read_bytes())
    content[content.index(find, content.index(b"GCOL")) + shift] ^= 0xFF  # within the texts
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged in scenes"):
        Store(path).verify()
    assert not is_sound(path)


def test_files_that_are_no_stores_are_refused(tmp_path: Path) -> None:
    import h5py

    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DamagedError, match="text.h5 is not a store .* delete it"):
        Store(tmp_path / "text.h5")
    write_store(tmp_path / "old.h5", [block(0, 1)], 1, {})
    with h5py.File(tmp_path / "old.h5", "a") as file:
        file.attrs["layout"] = 0
    with pytest.raises(ConfigError, match="has layout 0"):
        Store(tmp_path / "old.h5")


def test_what_cannot_be_read_is_neither_called_damaged_nor_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="absent.h5 is missing; prepare it"):
        Store(tmp_path / "absent.h5")
    path = tmp_path / "train.h5"
    write_store(path, [block(0, 1)], 1, {"key": "k"})
    assert kept(path, "k") and not kept(path, "other") and not kept(tmp_path / "absent.h5", "k")

    def refuse(*_: Any) -> None:  # file modes mean nothing to root
        raise PermissionError(errno.EACCES, "unable to open file: errno = 13")

    monkeypatch.setattr("h5py.File", refuse)
    for use in (Store, is_sound, lambda path: kept(path, "k")):
        with pytest.raises(ConfigError, match="train.h5 cannot be read: Permission denied$"):
            use(path)
    assert path.exists()


def test_a_store_has_its_name_once_its_content_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("synced"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace(*names)))
    write_store(tmp_path / "train.h5", [block(0, 1)], 1, {})
    assert done == ["synced", "named"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10**9, 10**5]  # before each block
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free.pop(0)))
    path = tmp_path / "train.h5"
    with pytest.raises(ConfigError) as caught, sole_writer(path):
        write_store(path, [block(0, 3), block(3, 6)], 6, {})
    assert str(caught.value) == (
        f"cannot write {tmp_path}: No space left on device; make room there, or name another "
        "folder, paths.data=..."
    )
    assert [item.name for item in tmp_path.iterdir()] == [".train.h5.lock"] and not free


def test_release_becomes_stores(tmp_path: Path) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0")
    paths = prepare_official(source, tmp_path, image_size=8, workers=1, part_size=2)
    assert paths == [real_store_path(tmp_path, 8, split) for split in ("train", "val")]
    for path, split in zip(paths, ("train", "val"), strict=True):
        scenes = [scene(split, index) for index in range(5)]
        pictures = []
        for one in scenes:
            with Image.open(source / "images" / split / one["image_filename"]) as picture:
                small = picture.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
            pictures.append(np.asarray(small).transpose(2, 0, 1))
        arrays = read_scenes(scenes, width=48, height=32)
        assert_same(Store(path), Block(np.stack(pictures), arrays, list(map(json.dumps, scenes))))
        assert Store(path).about["source"] == "real"


def record_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are read from now on."""
    names: list[str] = []

    def recorded(path: Path, *rest: Any) -> Any:
        names.append(path.name)
        return read_picture(path, *rest)

    monkeypatch.setattr(official, "read_picture", recorded)
    return names


def test_preparing_twice_reads_nothing_and_a_new_scene_file_remakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0")
    (path,) = prepare_official(source, tmp_path, image_size=8, splits=("val",), workers=1)
    read = record_reads(monkeypatch)
    prepare_official(source, tmp_path, image_size=8, splits=("val",), workers=1)
    assert not read
    changed = [scene("val", index) for index in range(5)]
    changed[0]["objects"][0]["color"] = "blue"
    write_scenes(source, "val", changed)
    prepare_official(source, tmp_path, image_size=8, splits=("val",), workers=1)
    assert len(read) == 5
    assert Store(path).scenes() == changed


def test_an_interrupted_run_goes_on_from_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0", count=6)
    read: list[str] = []

    def stop_at_four(path: Path, *rest: Any) -> Any:
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(path.name)
        return read_picture(path, *rest)

    settings: dict[str, Any] = {"image_size": 8, "splits": ("val",), "workers": 1, "part_size": 3}
    with monkeypatch.context() as patch:
        patch.setattr(official, "read_picture", stop_at_four)
        with pytest.raises(KeyboardInterrupt):
            prepare_official(source, tmp_path / "a", **settings)
    path = real_store_path(tmp_path / "a", 8, "val")
    assert not path.exists()
    read = record_reads(monkeypatch)
    prepare_official(source, tmp_path / "a", **settings)
    assert read == [f"CLEVR_val_{index:06d}.png" for index in (3, 4, 5)]
    (other,) = prepare_official(source, tmp_path / "b", **settings)
    assert Store(path).digest == Store(other).digest


def test_a_killed_process_leaves_no_store_and_blocks_nobody(tmp_path: Path) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0", count=4)
    program = (
        "import sys, time; from pathlib import Path; from setexp.datasets.clevr import official\n"
        "reader = official.read_picture\n"
        "def slow(path, *rest):\n"
        "    if path.name.endswith('2.png'): print('now', flush=True); time.sleep(60)\n"
        "    return reader(path, *rest)\n"
        "official.read_picture = slow\n"
        "official.prepare_official(Path(sys.argv[1]), Path(sys.argv[2]), image_size=8,"
        " splits=('val',), workers=1, part_size=2)\n"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    path = real_store_path(tmp_path, 8, "val")
    assert not path.exists()
    prepare_official(source, tmp_path, image_size=8, splits=("val",), workers=1, part_size=2)
    assert len(Store(path)) == 4
    assert {item.name for item in path.parent.iterdir()} == {"val.h5", ".val.h5.lock"}


def remove_picture(source: Path) -> None:
    (source / "images" / "val" / "CLEVR_val_000003.png").unlink()


def add_picture(source: Path) -> None:
    folder = source / "images" / "val"
    shutil.copy(folder / "CLEVR_val_000003.png", folder / "CLEVR_val_000009.png")


def truncate_picture(source: Path) -> None:
    path = source / "images" / "val" / "CLEVR_val_000003.png"
    path.write_bytes(path.read_bytes()[:200])


def other_size(source: Path) -> None:
    Image.new("RGB", (32, 32)).save(source / "images" / "val" / "CLEVR_val_000003.png")


def unknown_picture(source: Path) -> None:
    write_scenes(source, "val", [*(scene("val", index) for index in range(4)), scene("train", 4)])


def same_picture_twice(source: Path) -> None:
    write_scenes(source, "val", [scene("val", index) for index in (0, 1, 2, 3, 3)])


def no_json(source: Path) -> None:
    (source / "scenes" / "CLEVR_val_scenes.json").write_text('{"scenes": [')


def other_json(source: Path) -> None:
    (source / "scenes" / "CLEVR_val_scenes.json").write_text('{"questions": []}')


def no_scenes(source: Path) -> None:
    write_scenes(source, "val", [])


def no_scene_file(source: Path) -> None:
    (source / "scenes" / "CLEVR_val_scenes.json").unlink()


def no_images(source: Path) -> None:
    shutil.rmtree(source / "images" / "val")


def broken_scene(source: Path) -> None:
    scenes = [scene("val", index) for index in range(5)]
    del scenes[2]["objects"][1]["material"]
    write_scenes(source, "val", scenes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_picture, "lacks 1 of 5 pictures .* CLEVR_val_000003.png first"),
        (add_picture, "holds 6 pictures, but the scene file lists 5"),
        (truncate_picture, "CLEVR_val_000003.png cannot be read"),
        (other_size, r"CLEVR_val_000003.png has \(32, 32\) pixels"),
        (unknown_picture, "lacks 1 of 5 pictures .* CLEVR_train_000004.png"),
        (same_picture_twice, "names a picture twice"),
        (no_json, "no CLEVR scene file .* unpack it again"),
        (other_json, "no CLEVR scene file .*'scenes'"),
        (no_scenes, "lists no scenes"),
        (no_scene_file, "cannot be read .No such file"),
        (no_images, "val is missing"),
        (broken_scene, "CLEVR_val_000002.png lacks the field 'material'"),
    ],
)
def test_a_damaged_release_is_refused_in_one_line(
    tmp_path: Path, damage: Any, message: str
) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0")
    damage(source)
    with pytest.raises(ConfigError, match=message) as error:
        prepare_official(source, tmp_path, image_size=8, splits=("val",), workers=1)
    assert "\n" not in str(error.value)
    assert not real_store_path(tmp_path, 8, "val").exists()


def test_several_processes_make_the_same_store(tmp_path: Path) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0")
    settings: dict[str, Any] = {"image_size": 8, "splits": ("val",), "part_size": 2}
    (one,) = prepare_official(source, tmp_path / "one", **settings, workers=1)
    (two,) = prepare_official(source, tmp_path / "two", **settings, workers=2)
    assert Store(one).digest == Store(two).digest
    truncate_picture(source)
    with pytest.raises(ConfigError, match="CLEVR_val_000003.png cannot be read"):
        prepare_official(source, tmp_path / "three", **settings, workers=2)


class KilledPool:
    """A pool whose workers are killed."""

    def __init__(self, *_: Any) -> None:
        self.shutdown = lambda **_: None

    def submit(self, *_: Any) -> Future[int]:
        job: Future[int] = Future()
        job.set_exception(BrokenProcessPool("A process was terminated abruptly"))
        return job


def test_a_killed_worker_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "ProcessPoolExecutor", KilledPool)
    source = write_release(tmp_path / "CLEVR_v1.0")
    with pytest.raises(ConfigError, match="a worker was killed, .* fewer --workers"):
        prepare_official(source, tmp_path, image_size=8, splits=("val",), workers=2, part_size=2)


def test_the_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_release(tmp_path / "CLEVR_v1.0")
    (path,) = prepare_official(
        Path("~/CLEVR_v1.0"), Path("~/data"), image_size=8, splits=("val",), workers=1
    )
    assert path == real_store_path(tmp_path / "data", 8, "val") and path.exists()


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / "prepare_clevr.py")]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


def test_script_says_what_it_made_or_what_is_wrong(tmp_path: Path) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0")
    options = ("--source", source, "--root", tmp_path, "--image-size", 8, "--workers", 1)
    done = run_script(*options, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": 5 images") == 2
    add_picture(source)
    failed = run_script(*options)
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1


def test_interrupted_preparation_goes_on(tmp_path: Path) -> None:
    source = write_release(tmp_path / "CLEVR_v1.0")
    picture = source / "images" / "val" / scene("val", 4)["image_filename"]
    content = picture.read_bytes()
    picture.unlink()
    os.mkfifo(picture)  # whoever reads it waits
    options = ["--source", str(source), "--root", str(tmp_path), "--workers", "2"]
    command = [sys.executable, str(REPOSITORY / "scripts" / "prepare_clevr.py"), *options]
    train = real_store_path(tmp_path, 128, "train")
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job, which these tests may be, ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and not train.exists():
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends Ctrl-C
        out, error = outcome(process)
    assert (process.returncode, out) == (130, "")
    assert error.splitlines()[-1] == "interrupted; start it again to go on"
    assert "Traceback" not in error
    picture.unlink()
    picture.write_bytes(content)
    written = train.stat().st_mtime_ns
    done = run_script(*options)
    assert done.returncode == 0 and done.stdout.count(": 5 images") == 2
    assert train.stat().st_mtime_ns == written


def test_sample_of_real_renders_is_prepared(tmp_path: Path) -> None:
    if not SAMPLE.is_dir():
        pytest.skip("the CLEVR sample is not beside the checkout")
    train, val = prepare_official(SAMPLE, tmp_path, image_size=32, workers=1, part_size=20)
    store = Store(train)
    assert (len(store), len(Store(val))) == (32, 16)
    assert store.array("mask").sum() == 239 and Store(val).array("mask").sum() == 103
    golden = np.load(Path(__file__).parent / "golden" / "clevr_objects.npz")
    # The golden objects are those of the first 16 scenes of each split, in file order.
    for path, split in ((train, "train"), (val, "val")):
        state = Store(path).array("state", 0, 16)[Store(path).array("mask", 0, 16) == 1]
        np.testing.assert_allclose(state, golden["state"][golden["split"] == split], atol=1e-7)
    # Objects are coloured, the ground is grey: boxes read for a picture of another size miss them.
    mask = store.array("mask") == 1
    inside, outside = colour_inside(store, store.array("boxes"), mask)
    assert inside > 30 and outside < 5
    inside, outside = colour_inside(store, read_scenes(store.scenes()).boxes, mask)
    assert inside < 25 and outside > 5


def colour_inside(store: Store, boxes: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Mean difference between a pixel's channels, inside and outside of all boxes."""
    colour = store.images.max(1).astype(float) - store.images.min(1)
    covered = np.zeros(colour.shape, dtype=bool)
    for picture, corners, present in zip(covered, boxes, mask, strict=True):
        for x0, y0, x1, y1 in (corners[present].clip(0, 1) * len(picture)).astype(int):
            picture[y0 : y1 + 1, x0 : x1 + 1] = True
    return colour[covered].mean(), colour[~covered].mean()
