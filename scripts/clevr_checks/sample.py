"""A sample of the public generator's scenes and renders: cameras, turns, and looks beside ours."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clevr_checks.drawn import HEIGHT, WIDTH, Row, apart, draw, fit_camera, luma
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.bodies import gather_bodies
from setexp.datasets.clevr.camera import Frame
from setexp.datasets.clevr.lamps import LAMP_POSITIONS
from setexp.datasets.clevr.raster import first_hits, visible_pixels
from setexp.datasets.clevr.scenes import Scenes
from setexp.errors import ConfigError


def check_sample(root: Path, most: int, sheet: Path | None) -> list[Row]:
    """Cameras, turns and look of a real sample; writes real and own pictures side by side.

    Args:
        most: so many scenes of each split are looked at, from the first on.
    """
    splits = [read_sample(root, split, most) for split in ("train", "val")]
    described = [scene for scenes, _ in splits for scene in scenes]
    images = [image for _, pictures in splits for image in pictures]
    positions, exact, worst = [], 0, 0.0
    for scene in described:
        coords = np.array([item["3d_coords"] for item in scene["objects"]])
        pixels = np.array([item["pixel_coords"] for item in scene["objects"]])
        position, residual = fit_camera(coords, pixels)
        positions.append(position)
        worst = max(worst, float(np.abs(residual).max()))
        exact += int((np.round(residual) == 0).all(1).sum())
    scenes = as_scenes(described, positions)
    real = torch.from_numpy(np.stack(images)).float()
    total = int(scenes.count.sum())
    agree, cubes = count_turns(scenes, real)
    turned = agree >= 0.95 * cubes
    own = draw(scenes).images
    if sheet is not None:
        write_sheet(sheet, real, own)
    off = (own - real).abs().mean()
    ground_off = float((own - real)[:, :30].abs().mean())
    return [
        Row("sample: pixel_coords reproduced", f"{exact} of {total}", "all", exact == total),
        Row("sample: largest residual px", f"{worst:.3f}", "< 0.6", worst < 0.6),
        Row("sample: radians beat degrees", f"{agree} of {cubes}", ">= 95 %", turned),
        Row("sample: mean |difference|, lamps unknown", f"{off:.2f}", "-", True),
        Row("sample: the same, top 30 rows", f"{ground_off:.2f}", "-", True),
    ]


def read_sample(root: Path, split: str, most: int) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Scene dictionaries and RGB pictures of a split of a sample in the official layout.

    Raises:
        ConfigError: a file is missing, or a picture has not the references' size.
    """
    from PIL import Image

    path, images = root / "scenes" / f"CLEVR_{split}_scenes.json", []
    try:
        scenes = json.loads(path.read_text())["scenes"][:most]
        for scene in scenes:
            path = root / "images" / split / scene["image_filename"]
            with Image.open(path) as image:
                size = image.size
                images.append(np.asarray(image.convert("RGB")))
            if size != (WIDTH, HEIGHT):
                raise ConfigError(
                    f"--sample {root}: {path.name} has {size[0]}x{size[1]} pixels, references are "
                    f"of {WIDTH}x{HEIGHT}; render a sample of that size"
                )
    except OSError as error:
        raise ConfigError(f"--sample {root}: {path} cannot be read ({error.strerror})") from None
    return scenes, images


def as_scenes(described: list[dict[str, Any]], positions: list[np.ndarray]) -> Scenes:
    """Scenes of a file with cameras at these positions and lamps without jitter."""
    count = torch.tensor([len(scene["objects"]) for scene in described])
    shape = (len(described), int(count.max()))
    number = {
        key: torch.zeros(shape, dtype=torch.int64) for key in ("shape", "color", "material", "size")
    }
    names = {
        "shape": words.SHAPES,
        "color": words.COLORS,
        "material": words.MATERIALS,
        "size": words.SIZES,
    }
    coords, rotation = torch.zeros(*shape, 3), torch.zeros(shape)
    for i, scene in enumerate(described):
        for j, item in enumerate(scene["objects"]):
            coords[i, j], rotation[i, j] = torch.tensor(item["3d_coords"]), item["rotation"]
            for key, field in number.items():
                field[i, j] = names[key].index(item[key])
    camera = torch.tensor(np.stack(positions), dtype=torch.float32)
    lights = torch.tensor(LAMP_POSITIONS).expand(shape[0], 3, 3)
    return Scenes(
        count=count, coords=coords, rotation=rotation, camera=camera, lights=lights, **number
    )


def count_turns(scenes: Scenes, images: Tensor) -> tuple[int, int]:
    """Cubes whose outline meets stronger edges when turned by radians, and all whole cubes."""
    single = apart(scenes)
    scene = scenes.present.nonzero()[:, 0]
    cube = single.shape[:, 0] == words.SHAPES.index("cube")
    seen = visible_pixels(scenes, height=HEIGHT, width=WIDTH)[scenes.present]
    cubes = single.rows(cube)
    radians = draw_mask(cubes)
    degrees = draw_mask(cubes._replace(rotation=cubes.rotation * math.pi / 180))
    whole = seen[cube] > 0.8 * radians.sum((1, 2))
    # Turns that happen to look alike decide nothing.
    whole &= (radians != degrees).sum((1, 2)) > 0.03 * radians.sum((1, 2))
    brightness = luma(images)[scene[cube]]
    # Largest change to a neighbour, where a mask's outline runs.
    steps = torch.zeros_like(brightness)
    steps[:, 1:] = (brightness[:, 1:] - brightness[:, :-1]).abs()
    steps[:, :, 1:] = torch.maximum(
        steps[:, :, 1:], (brightness[:, :, 1:] - brightness[:, :, :-1]).abs()
    )
    contrast = []
    for mask in (radians, degrees):
        edge = torch.zeros_like(mask)
        edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        edge[:, :, 1:] |= mask[:, :, 1:] != mask[:, :, :-1]
        contrast.append((steps * edge).sum((1, 2)) / edge.sum((1, 2)))
    better = (contrast[0] > contrast[1]) & whole
    return int(better.sum()), int(whole.sum())


def draw_mask(scenes: Scenes) -> Tensor:
    """Which pixels show an object, bool (S, H, W)."""
    mask = torch.zeros(len(scenes.count), HEIGHT, WIDTH, dtype=torch.bool)
    frame = Frame(scenes.camera, HEIGHT, WIDTH, WIDTH / HEIGHT)
    mask.view(-1)[first_hits(gather_bodies(scenes), frame).pixel] = True
    return mask


def write_sheet(path: Path, real: Tensor, own: Tensor) -> None:
    """Sample pictures in odd rows, the same scenes rendered here below them."""
    from PIL import Image

    rows = [
        torch.cat(list(images[start : start + 4]), dim=1)
        for start in range(0, 16, 4)
        for images in (real, own)
    ]
    Image.fromarray(torch.cat(rows).to(torch.uint8).numpy()).save(path)
