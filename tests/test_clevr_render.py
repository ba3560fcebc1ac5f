"""Procedural CLEVR pictures: geometry against formulas, occlusion, light and colours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import raster
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.lamps import LAMP_POSITIONS
from setexp.datasets.clevr.raster import visible_pixels
from setexp.datasets.clevr.render import render
from setexp.datasets.clevr.scenes import Scenes, sample_scenes


def arrange(*objects: dict[str, object], rotation: float = 0.0) -> Scenes:
    """One scene without jitter; each object has place (x, y), shape, color, material, size."""

    def column(options: tuple[str, ...], key: str) -> Tensor:
        return torch.tensor([[options.index(str(item.get(key, options[0]))) for item in objects]])

    size = column(words.SIZES, "size")
    place = torch.tensor([[item.get("place", (0.0, 0.0)) for item in objects]]).view(1, -1, 2)
    return Scenes(
        count=torch.tensor([len(objects)]),
        coords=torch.cat([place, torch.tensor(words.RADII)[size][..., None]], -1),
        shape=column(words.SHAPES, "shape"),
        color=column(words.COLORS, "color"),
        material=column(words.MATERIALS, "material"),
        size=size,
        rotation=torch.full(size.shape, rotation),
        camera=torch.tensor([view.POSITION]),
        lights=torch.tensor([LAMP_POSITIONS]),
    )


def empty() -> Scenes:
    return arrange({})._replace(count=torch.tensor([0]))


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return sample_scenes(12, generator=torch.Generator().manual_seed(0))


def test_pictures_repeat_however_many_are_drawn_together(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = render(scenes, height=32, width=40)
    assert first.shape == (12, 3, 32, 40) and first.dtype == torch.uint8
    assert torch.equal(first, render(scenes, height=32, width=40))
    assert render(scenes.rows(slice(0, 0)), height=8, width=8).shape == (0, 3, 8, 8)
    seen = visible_pixels(scenes, height=32, width=40)
    monkeypatch.setattr(raster, "_RAYS", dict.fromkeys(raster._RAYS, 5 * 32 * 40 * 2**2))
    assert torch.equal(first, render(scenes, height=32, width=40))
    monkeypatch.setattr(raster, "_RAYS", dict.fromkeys(raster._RAYS, 5 * 32 * 40))
    assert torch.equal(seen, visible_pixels(scenes, height=32, width=40))


def test_square_pictures_squeeze_the_official_frame(scenes: Scenes) -> None:
    wide = render(scenes, height=64, width=96, supersample=4).float()
    square = render(scenes, height=64, width=32, supersample=4).float()
    thirds = wide.view(12, 3, 64, 32, 3).mean(-1)
    assert (thirds - square).abs().mean() < 1.0


@pytest.mark.parametrize("place", [(0.0, 0.0), (2.0, 1.5), (-2.0, -1.0)])
@pytest.mark.parametrize("size", words.SIZES)
def test_area_of_a_lone_sphere(place: tuple[float, float], size: str) -> None:
    scene = arrange({"place": place, "size": size})
    offset = scene.coords[0, 0] - scene.camera[0]
    distance = float(offset.norm())
    sin2 = (0.9992 * float(scene.coords[0, 0, 2]) / distance) ** 2
    back = scene.camera[0] / scene.camera[0].norm()
    cos = -float(offset @ back) / distance
    # A sphere of angular radius a, seen c off the axis, projects to an ellipse.
    area = math.pi * 700**2 * sin2 * math.sqrt(1 - sin2) / (cos**2 - sin2) ** 1.5
    seen = int(visible_pixels(scene, height=480, width=640)[0, 0])
    assert seen == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("shape", words.SHAPES)
def test_outline_of_a_lone_object(shape: str) -> None:
    # area depth^2 / (focal length * radius)^2, averaged over turns: from the generator's meshes.
    reference = {"sphere": 3.205, "cube": 5.9, "cylinder": 4.975}[shape]
    values = []
    for turn in range(8):
        scene = arrange({"shape": shape}, rotation=turn * math.pi / 16)
        depth = view.project(scene.coords, scene.camera, height=240, width=320)[0, 0, 2]
        pixels = visible_pixels(scene, height=240, width=320)[0, 0]
        values.append(float(pixels * depth**2 / (350 * words.RADII[0]) ** 2))
    assert sum(values) / len(values) == pytest.approx(reference, rel=0.02)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_object_hides_the_farther(order: tuple[int, int]) -> None:
    near = {"place": (1.5, -1.3), "shape": "cylinder", "color": "red"}
    far = {"place": (0.3, -0.25), "shape": "cube", "color": "blue", "size": "small"}
    pair = [(near, far)[i] for i in order]
    seen = visible_pixels(arrange(*pair), height=240, width=320)[0]
    alone = [int(visible_pixels(arrange(item), height=240, width=320)[0, 0]) for item in pair]
    assert int(seen[order.index(0)]) == alone[order.index(0)]
    assert int(seen[order.index(1)]) < 0.2 * alone[order.index(1)]
    scene = arrange(*pair)
    u, v, _ = view.project(scene.coords, scene.camera, height=96, width=144)[0, order.index(0)]
    red, _, blue = render(scene, height=96, width=144)[0, :, int(v), int(u)].tolist()
    assert red > 2 * blue


def test_turns_are_radians() -> None:
    cube = {"shape": "cube", "color": "red"}
    pictures = [
        render(arrange(cube, rotation=turn), height=64, width=96).float()
        for turn in (45.0, 45.0 - 14 * math.pi, math.radians(45.0))
    ]
    assert (pictures[0] - pictures[1]).abs().max() <= 1
    assert (pictures[0] - pictures[2]).abs().max() > 30


def test_ground_is_as_bright_as_the_generators() -> None:
    picture = render(empty(), height=240, width=320, aspect=4 / 3)[0].float()
    for row, column, rgb in (
        (4, 8, (106, 105, 105)),
        (60, 160, (117, 117, 117)),
        (120, 8, (135, 136, 141)),
        (150, 240, (138, 136, 134)),
        (235, 311, (152, 149, 145)),
    ):
        assert (picture[:, row, column] - torch.tensor(rgb)).abs().max() <= 3


def linear(picture: Tensor) -> Tensor:
    share = picture.float() / 255
    return torch.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(
    ("turn", "distance", "expected"),
    # Of the direction "front", to the right; as measured around the generator's cylinder.
    [(0, 1.4, 0.81), (-45, 1.4, 0.81), (-135, 1.4, 0.86), (-135, 1.8, 0.96), (90, 2.0, 0.98)],
)
def test_shadows_around_a_cylinder(turn: float, distance: float, expected: float) -> None:
    full, bare = (
        linear(render(scene, height=320, width=480)[0])
        for scene in (arrange({"shape": "cylinder"}), empty())
    )
    angle = math.atan2(-0.6563112736, 0.7544902563) + math.radians(turn)
    point = torch.tensor([[distance * math.cos(angle), distance * math.sin(angle), 0.0]])
    u, v, _ = view.project(point, torch.tensor(view.POSITION), height=320, width=480)[0]
    ratio = (full / bare)[:, int(v), int(u)].mean()
    assert ratio == pytest.approx(expected, abs=0.05)


def test_colors_and_materials_differ_at_64_pixels() -> None:
    looks = []
    for material in words.MATERIALS:
        for color in words.COLORS:
            scene = arrange({"color": color, "material": material, "shape": "cylinder"})
            picture = render(scene, height=64, width=64)[0].float()
            # The cylinder's body, without its edges.
            body = picture[:, 27:34, 29:35].flatten(1)
            looks.append(body.mean(1))
    table = torch.stack(looks).view(2, 8, 3)
    for row in table:
        distance = torch.cdist(row, row) + 1e3 * torch.eye(8)
        assert distance.min() > 25
    assert (table[0] - table[1]).norm(dim=-1).min() > 4


def test_metal_mirrors_its_neighbours_and_rubber_does_not() -> None:
    changes = []
    for material in words.MATERIALS:
        ball = {"material": material, "color": "gray", "place": (0.0, 0.0)}
        red = {"shape": "cube", "color": "red", "place": (1.12, 1.28)}
        alone = render(arrange(ball), height=96, width=144)[0].float()
        pair = render(arrange(ball, red), height=96, width=144)[0].float()
        ball_only = slice(42, 54), slice(72, 79)
        changes.append(float((pair - alone)[(slice(None), *ball_only)].abs().max()))
    assert changes[0] < 3 < 15 < changes[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_the_same_pictures(scenes: Scenes) -> None:
    moved = Scenes(*(field.cuda() for field in scenes))
    off = (
        render(moved, height=64, width=64).cpu().float()
        - render(scenes, height=64, width=64).float()
    )
    assert off.abs().mean() < 0.05
    again = render(moved, height=64, width=64)
    assert torch.equal(again, render(moved, height=64, width=64))
