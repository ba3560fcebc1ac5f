"""The renderer's check: samples that it takes, and the spread of each corner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from smoke_runs import ROOT

from setexp.errors import ConfigError


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def write_sample(root: Path, size: tuple[int, int] = (320, 240)) -> None:
    names = [f"CLEVR_val_{i:06d}.png" for i in range(3)]
    for folder in ("images/val", "scenes"):
        (root / folder).mkdir(parents=True)
    for name in names[:2]:  # nobody looks at the last one
        Image.new("RGB", size).save(root / "images/val" / name)
    scenes = [{"image_filename": name} for name in names]
    (root / "scenes/CLEVR_val_scenes.json").write_text(json.dumps({"scenes": scenes}))


def test_the_first_scenes_of_a_sample_are_read(tmp_path: Path) -> None:
    from clevr_checks.sample import read_sample

    write_sample(tmp_path)
    scenes, images = read_sample(tmp_path, "val", 2)
    assert [len(scenes), len(images)] == [2, 2] and images[0].shape == (240, 320, 3)
    for split, most, missing in (("val", 3, "CLEVR_val_000002.png"), ("train", 1, "scenes.json")):
        with pytest.raises(ConfigError, match=f"{missing} cannot be read"):
            read_sample(tmp_path, split, most)


def test_a_sample_of_another_size_is_refused(tmp_path: Path) -> None:
    from clevr_checks.sample import read_sample

    write_sample(tmp_path, (480, 320))
    with pytest.raises(ConfigError, match="000000.png has 480x320 pixels, .* of 320x240"):
        read_sample(tmp_path, "val", 2)


@pytest.mark.parametrize(("left", "right"), [(0.7, 2.0), (0.1, 0.9)])
def test_each_corner_is_measured_by_itself(left: float, right: float) -> None:
    from clevr_checks.drawn import Drawn
    from clevr_checks.looks import check_corner

    images = torch.zeros(200, 20, 30, 3)
    noise = torch.randn(2, 200, 1, 1, 1)
    images[:, :, :15], images[:, :, 15:] = left * noise[0], right * noise[1]
    unused: Any = None
    for side, spread in (("left", left), ("right", right)):
        row = check_corner(Drawn(unused, images, unused), side)
        assert abs(float(row.value.split()[0]) / spread - 1) < 0.15
        assert row.passed == (0.5 <= spread <= 1)
