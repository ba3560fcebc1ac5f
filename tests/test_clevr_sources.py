"""Where CLEVR sets come from: rendered once, by whom, resumed, or found; and when that happens."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_clevr import (
    FakeScenes,
    assert_equal,
    fake_render,
    fake_renderer,
    generator,
    one_pass,
    settings,
    tags,
    write_real,
)
from smoke_runs import ROOT, train
from torch import Tensor

from setexp.datasets.clevr import procedural
from setexp.datasets.clevr.dataset import ClevrSets
from setexp.datasets.clevr.official import real_store_path
from setexp.datasets.clevr.procedural import Recipe, procedural_path, procedural_store
from setexp.datasets.clevr.store import Store
from setexp.datasets.clevr.vocabulary import SCENES
from setexp.errors import ConfigError
from setexp.training.loop import Fit


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return fake_renderer(monkeypatch)


def test_rendered_once_and_cached_under_all_that_determines_it(
    tmp_path: Path, renders: list[int]
) -> None:
    first = ClevrSets(**settings(tmp_path))
    assert not renders and not list(tmp_path.iterdir())
    (a,) = one_pass(first, "train", 23, generator())
    assert sum(renders) == 23
    (b,) = one_pass(ClevrSets(**settings(tmp_path)), "train", 23, generator())
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
        next(one_pass(other, "train", 5, generator()))
        prints.add(other.fingerprint)
        assert len(prints) == number
    assert len(list(tmp_path.glob("clevr/procedural-*/train-*.h5"))) == len(changes) + 1
    boxes = ClevrSets(**settings(tmp_path, target="boxes", element_dim=4))
    assert boxes.fingerprint not in prints
    rendered = sum(renders)
    next(one_pass(boxes, "train", 5, generator()))
    assert sum(renders) == rendered


def test_a_store_drawn_on_another_kind_of_device_is_used_where_it_is_complete(
    tmp_path: Path, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = settings(tmp_path, train_size=5, test_size=5)
    (drawn,) = one_pass(ClevrSets(**small), "train", 5, generator())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    prints = [ClevrSets(**small).fingerprint]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    next(one_pass(ClevrSets(**small), "test", 5, generator()))
    prints.append(ClevrSets(**small).fingerprint)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    elsewhere = ClevrSets(**small)
    prints.append(elsewhere.fingerprint)
    assert prints[0] != prints[1] == prints[2]
    (found,) = one_pass(elsewhere, "train", 5, generator())
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
    runs = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT) for _ in range(2)]
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
    with pytest.raises(ConfigError, match="TrainingBeginsError"):
        train(
            tmp_path / "outputs", "experiment=dspn_clevr_boxes", f"paths.data={tmp_path / 'data'}"
        )
    assert sorted(renders) == [4, 20]


def test_rendered_scenes_agree_with_their_labels(tmp_path: Path) -> None:
    data = ClevrSets(**settings(tmp_path, image_size=32, train_size=6, test_size=6, max_objects=5))
    (state,) = one_pass(data, "train", 6, generator(), shuffle=False)
    boxed = settings(tmp_path, image_size=32, train_size=6, test_size=6, max_objects=5)
    boxed.update(target="boxes", element_dim=4)
    (boxes,) = one_pass(ClevrSets(**boxed), "train", 6, generator(), shuffle=False)
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
        (train,) = one_pass(data, "train", 12, generator())
        assert sorted(tags(train)) == list(range(1000, 1012))
    some = ClevrSets(**settings(tmp_path, source="real", train_size=5, test_size=3))
    (train,) = one_pass(some, "train", 12, generator())
    assert sorted(tags(train)) == list(range(1000, 1005))
    assert some.fingerprint != data.fingerprint
    before = data.fingerprint
    write_real(tmp_path, objects=7)
    changed = ClevrSets(**settings(tmp_path, source="real", train_size=None, test_size=None))
    assert changed.fingerprint != before
    assert not renders


def test_a_sample_of_the_release_counts_as_a_copy_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_real(tmp_path)
    wanted = settings(tmp_path, source="real", train_size=5, test_size=3)
    sample = ClevrSets(**wanted).fingerprint
    assert re.fullmatch(r"clevr-real sample copy \w+", sample)
    monkeypatch.setitem(SCENES, "train", 12)
    monkeypatch.setitem(SCENES, "val", 12)
    assert ClevrSets(**wanted).fingerprint == sample.replace(" sample copy ", "-")


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


def test_the_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_real(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = settings(Path("~/data"), source="auto", train_size=None, test_size=None)
    assert ClevrSets(**wanted).source == "real"
