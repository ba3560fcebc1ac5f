"""Measure procedural CLEVR against the public generator's scenes and renders, as one table.

    python scripts/check_clevr_renderer.py [--sample PATH/TO/CLEVR_v1.0] [--sheet sheet.png]

Reference values were measured on the generator's own renders (320x240, 48 samples a pixel).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# The project need not be installed: this file lies one folder below it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.bodies import gather_bodies
from setexp.datasets.clevr.camera import Frame
from setexp.datasets.clevr.lamps import LAMP_POSITIONS
from setexp.datasets.clevr.raster import first_hits, visible_pixels
from setexp.datasets.clevr.render import render
from setexp.datasets.clevr.scenes import GAP, MARGIN, Scenes, sample_scenes, to_official

HEIGHT, WIDTH = 240, 320
# Shadows end sharply beside an object, so they are measured in larger pictures.
ZOOM = 4
# RGB of the empty scene without jitter: picture row, then values at these columns.
GRID_COLUMNS = (8, 80, 160, 240, 311)
GRID = {
    4: "106 105 105 106 106 105 106 106 105 105 104 104 103 103 103",
    60: "105 104 104 112 112 112 117 117 117 111 111 111 103 103 103",
    90: "124 124 127 129 129 131 134 133 133 127 126 126 113 112 112",
    120: "135 136 141 132 132 134 135 135 134 132 131 130 120 120 119",
    150: "125 125 127 130 129 129 137 136 134 138 136 134 128 126 124",
    180: "122 121 121 131 130 128 142 141 138 146 144 140 137 135 132",
    235: "122 121 119 134 132 130 151 148 144 160 157 151 152 149 145",
}
# Mean RGB of visible objects: rubber, its brightest 2 %, metal, its brightest 2 %; then of a large
# sphere at the origin without jitter: rubber, metal.
LOOKS = {
    "gray": "80 80 79 94 94 93 65 65 64 130 130 130 86 85 83 63 62 62",
    "red": "117 54 53 133 65 64 93 41 40 196 117 117 118 56 55 87 39 39",
    "blue": "59 77 124 72 91 143 45 61 101 116 147 196 62 79 126 43 58 96",
    "green": "49 90 40 61 107 50 36 71 28 92 156 76 52 92 43 35 68 28",
    "brown": "99 76 44 116 89 55 78 59 32 184 156 100 103 79 47 76 58 32",
    "purple": "99 55 116 114 67 134 80 42 97 151 94 172 103 58 120 76 41 91",
    "cyan": "58 123 121 68 141 140 44 101 100 96 171 171 61 126 124 43 95 94",
    "yellow": "139 133 64 157 152 73 110 106 48 198 195 129 140 134 65 105 101 47",
}
# area * depth^2 / (focal length * radius)^2: large, small.
SILHOUETTES = {"sphere": (3.21, 3.20), "cube": (5.92, 5.87), "cylinder": (4.97, 4.98)}
# Light on the ground around a large cylinder over that of the empty ground: direction, distance.
SHADOWS = (
    ("front", 0.0, 1.1, 0.81),
    ("front", 0.0, 1.4, 0.81),
    ("left front", -45.0, 1.1, 0.81),
    ("left front", -45.0, 1.4, 0.81),
    ("left behind", -135.0, 1.1, 0.62),
    ("left behind", -135.0, 1.4, 0.86),
    ("left behind", -135.0, 1.8, 0.96),
    ("right", 90.0, 1.5, 0.98),
    ("right", 90.0, 3.0, 0.98),
    ("right behind", 135.0, 1.5, 1.0),
)


class Row(NamedTuple):
    """One line of the table."""

    check: str
    value: str
    threshold: str
    passed: bool


class Drawn(NamedTuple):
    """Scenes with their pictures (S, H, W, 3) and the slot seen at each pixel, -1 = ground."""

    scenes: Scenes
    images: Tensor
    slots: Tensor


def luma(rgb: Tensor) -> Tensor:
    """Brightness of colours (..., 3)."""
    return rgb @ torch.tensor([0.2126, 0.7152, 0.0722])


def draw(scenes: Scenes, zoom: int = 1) -> Drawn:
    """Pictures and id maps of scenes at the references' size, or `zoom` times as large."""
    height, width = zoom * HEIGHT, zoom * WIDTH
    images = render(scenes, height=height, width=width, aspect=WIDTH / HEIGHT)
    slots = torch.full((len(scenes.count), height, width), -1)
    for start in range(0, len(slots), 20):
        some = scenes.rows(slice(start, start + 20))
        bodies = gather_bodies(some)
        hits = first_hits(bodies, Frame(some.camera, height, width, WIDTH / HEIGHT))
        slots[start : start + 20].view(-1)[hits.pixel] = bodies.slot[hits.body]
    return Drawn(scenes, images.permute(0, 2, 3, 1).float(), slots)


def lone(
    shape: str | None = None, color: str = "gray", material: str = "rubber", rotation: float = 0.0
) -> Scenes:
    """The scene without jitter, empty or with a large object at the origin."""

    def one(value: int) -> Tensor:
        return torch.tensor([[value]])

    return Scenes(
        count=torch.tensor([int(shape is not None)]),
        coords=torch.tensor([[[0.0, 0.0, words.RADII[0]]]]),
        shape=one(words.SHAPES.index(shape or "sphere")),
        color=one(words.COLORS.index(color)),
        material=one(words.MATERIALS.index(material)),
        size=one(0),
        rotation=torch.tensor([[rotation]]),
        camera=torch.tensor([view.POSITION]),
        lights=torch.tensor([LAMP_POSITIONS]),
    )


def apart(scenes: Scenes) -> Scenes:
    """Every object in a scene of its own."""
    scene, slot = scenes.present.nonzero(as_tuple=True)
    fields = {
        name: getattr(scenes, name)[scene, slot][:, None]
        for name in ("coords", "shape", "color", "material", "size", "rotation")
    }
    return Scenes(
        count=torch.ones_like(scene),
        camera=scenes.camera[scene],
        lights=scenes.lights[scene],
        **fields,
    )


def fit_camera(coords: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera position that explains (u, v, depth) of points best, and the residuals in pixels."""
    from scipy.optimize import least_squares

    def misfit(position: np.ndarray) -> np.ndarray:
        seen = view.project(
            torch.from_numpy(coords), torch.from_numpy(position), height=HEIGHT, width=WIDTH
        ).numpy()
        return (seen - pixels) * [1.0, 1.0, 1e5]

    found = least_squares(lambda position: misfit(position).ravel(), view.POSITION, xtol=1e-12)
    return found.x, misfit(found.x)[:, :2]


def check_pixel_coords(scenes: Scenes) -> list[Row]:
    """Stored pixel coordinates against a projection written out by hand; cameras from them."""
    offs, positions, residuals = [], [], []
    described = to_official(scenes.rows(slice(0, 50)), "val", width=WIDTH, height=HEIGHT)
    for scene, camera in zip(described, scenes.camera.double().numpy(), strict=False):
        coords = np.array([item["3d_coords"] for item in scene["objects"]])
        pixels = np.array([item["pixel_coords"] for item in scene["objects"]])
        back = camera / np.linalg.norm(camera)
        right = np.array([-back[1], back[0], 0]) / np.hypot(back[0], back[1])
        seen = (coords - camera) @ np.stack([right, np.cross(back, right), back], 1)
        u, v = (350 * seen[:, :2] / -seen[:, 2:] * [1, -1] + [160, 120]).T
        exact = np.stack([np.round(u), np.round(v), -seen[:, 2]], 1)
        offs.append(np.abs(exact - pixels))
        position, residual = fit_camera(coords, pixels)
        positions.append(np.abs(position - camera).max())
        residuals.append(residual)
    off = np.concatenate(offs)
    equal = (off[:, :2] == 0).all(1).mean()
    rms = np.sqrt((np.concatenate(residuals) ** 2).mean(0))
    return [
        Row("stored u, v as computed", f"{equal:.2%}", "100 %", equal == 1),
        Row("stored depth", f"{off[:, 2].max():.1e}", "<= 1e-4", off[:, 2].max() <= 1e-4),
        Row("camera from own scenes, rms px", f"{rms.max():.3f}", "< 0.35", rms.max() < 0.35),
        Row("camera position", f"{max(positions):.1e}", "<= 1e-3", max(positions) <= 1e-3),
    ]


def check_silhouettes(scenes: Scenes) -> list[Row]:
    """Areas of unoccluded objects that lie within the picture."""
    single = apart(scenes)
    area = visible_pixels(single, height=3 * HEIGHT, width=3 * WIDTH)[:, 0] / 9
    place = view.project(single.coords, single.camera, height=HEIGHT, width=WIDTH)[:, 0]
    inside = ((place[:, :2] - torch.tensor([160, 120])).abs() < torch.tensor([110, 80])).all(1)
    radius = torch.tensor(words.RADII)[single.size[:, 0]]
    value = area * place[:, 2] ** 2 / (view.FOCAL * WIDTH * radius) ** 2
    rows = []
    for shape, reference in SILHOUETTES.items():
        # The reference's spread over sizes is noise: both sizes have the same geometry.
        picked = inside & (single.shape[:, 0] == words.SHAPES.index(shape))
        mean, wanted = float(value[picked].mean()), sum(reference) / 2
        off = mean / wanted - 1
        rows.append(
            Row(f"silhouette {shape}", f"{mean:.3f} ({off:+.1%})", "1.5 %", abs(off) <= 0.015)
        )
    return rows


def check_ground() -> list[Row]:
    """The empty scene at 35 places, and light around a large cylinder."""
    empty = draw(lone()).images[0]
    wanted = torch.tensor([[int(v) for v in text.split()] for text in GRID.values()])
    seen = empty[list(GRID)][:, list(GRID_COLUMNS)]
    off = seen - wanted.view(seen.shape)
    largest, rms = float(off.abs().max()), float(off.square().mean().sqrt())
    rows = [
        Row("empty scene, largest difference", f"{largest:.1f}", "<= 3", largest <= 3),
        Row("empty scene, rms", f"{rms:.2f}", "<= 1.5", rms <= 1.5),
    ]
    full, bare = draw(lone("cylinder"), ZOOM).images[0], draw(lone(), ZOOM).images[0]
    ratio = (linear(full) / linear(bare)).mean(-1)
    camera = torch.tensor(view.POSITION)
    front = view.directions(camera)["front"]
    heading = math.atan2(front[1], front[0])
    for name, angle, distance, reference in SHADOWS:
        turn = heading + math.radians(angle)
        point = torch.tensor([[distance * math.cos(turn), distance * math.sin(turn), 0.0]])
        place = view.project(point, camera, height=ZOOM * HEIGHT, width=ZOOM * WIDTH)[0].long()
        u, v = int(place[0]), int(place[1])
        value = float(ratio[v - 1 : v + 2, u - 1 : u + 2].mean())
        passed = abs(value - reference) <= 0.05
        label = f"shadow {name} at {distance}"
        rows.append(Row(label, f"{value:.2f} (is {reference})", "0.05", passed))
    return rows


def linear(image: Tensor) -> Tensor:
    """8-bit sRGB as linear light."""
    share = image / 255
    return torch.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def check_pictures(drawn: Drawn) -> list[Row]:
    """Background, whole picture and share of objects."""
    mean = float(drawn.images[:, :8].mean())
    corners = torch.cat([drawn.images[:, :8, :8], drawn.images[:, :8, -8:]], dim=2)
    spread = float(corners.mean((1, 2, 3)).std())
    whole = drawn.images.mean((0, 1, 2))
    # The sample has 7.1 objects a scene and not the expected 6.5, so objects are compared.
    share = float((drawn.slots >= 0).float().mean() / drawn.scenes.count.float().mean())
    off = float((whole - torch.tensor([118.0, 117.0, 116.0])).abs().max())
    return [
        Row("top rows, mean", f"{mean:.1f}", "103..106 +- 1.5", 101.5 <= mean <= 107.5),
        Row("top corners, sd over pictures", f"{spread:.2f}", "0.5..1", 0.5 <= spread <= 1),
        Row("picture mean", " ".join(f"{v:.1f}" for v in whole), "118 117 116 +- 3", off <= 3),
        Row("pixels an object", f"{share:.4f}", "0.0189 +- 0.0014", abs(share - 0.0189) <= 0.0014),
    ]


def check_looks(drawn: Drawn) -> list[Row]:
    """Mean and brightest colour of each colour in each material, over all visible objects."""
    rows = []
    for offset, material in enumerate(words.MATERIALS):
        means, brights = [], []
        for color, text in LOOKS.items():
            wanted = torch.tensor([float(v) for v in text.split()]).view(6, 3)
            mean, bright, count = look(drawn, color, material)
            off = mean - wanted[2 * offset]
            means.append(off)
            brights.append(bright - wanted[2 * offset + 1])
            label = f"mean {material} {color} ({count})"
            passed = float(off.abs().max()) <= 6 and count >= 50
            rows.append(Row(label, " ".join(f"{v:+.1f}" for v in off), "+- 6", passed))
        average = float(torch.stack(means).abs().mean())
        rows.append(Row(f"mean {material}, average", f"{average:.2f}", "<= 3", average <= 3))
        limit = (10, 25)[offset]
        worst = float(luma(torch.stack(brights)).abs().max())
        label = f"brightest 2 % {material}, worst luma"
        rows.append(Row(label, f"{worst:.1f}", f"<= {limit}", worst <= limit))
    return rows + check_highlight(drawn)


def look(drawn: Drawn, color: str, material: str) -> tuple[Tensor, Tensor, int]:
    """Mean RGB and RGB of the brightest 2 % over objects of a colour and material, and how many."""
    kind = (drawn.scenes.color == words.COLORS.index(color)) & drawn.scenes.present
    kind &= drawn.scenes.material == words.MATERIALS.index(material)
    found = [pixels_of(drawn, int(s), int(k)) for s, k in kind.nonzero()]
    means = torch.stack([pixels.mean(0) for pixels in found]).mean(0)
    inner = [pixels_of(drawn, int(s), int(k), inner=True) for s, k in kind.nonzero()]
    brights = torch.stack([brightest(pixels) for pixels in inner if len(pixels)]).mean(0)
    return means, brights, len(found)


def pixels_of(drawn: Drawn, scene: int, slot: int, inner: bool = False) -> Tensor:
    """RGB of all pixels of an object, or of those without a foreign neighbour, (P, 3)."""
    mask = drawn.slots[scene] == slot
    if inner:
        outside = torch.nn.functional.max_pool2d((~mask).float()[None], 3, 1, 1)[0]
        mask = outside == 0
    return drawn.images[scene][mask]


def brightest(pixels: Tensor) -> Tensor:
    """Mean RGB of the brightest 2 % of pixels (P, 3)."""
    return pixels[luma(pixels).topk(math.ceil(0.02 * len(pixels))).indices].mean(0)


def check_highlight(drawn: Drawn) -> list[Row]:
    """How far highlights stand out on metal."""
    rows = []
    metal = (drawn.scenes.material == words.MATERIALS.index("metal")) & drawn.scenes.present
    for shape, wanted in (("sphere", 151), ("cube", 63), ("cylinder", 35)):
        found = (metal & (drawn.scenes.shape == words.SHAPES.index(shape))).nonzero()
        pixels = [pixels_of(drawn, int(s), int(k), inner=True) for s, k in found]
        pixels = [p for p in pixels if len(p)]
        value = float(torch.stack([luma(brightest(p)) - luma(p.mean(0)) for p in pixels]).mean())
        threshold = "> 100" if shape == "sphere" else "+- 25"
        passed = value > 100 if shape == "sphere" else abs(value - wanted) <= 25
        text = f"{value:.0f} (is {wanted})"
        rows.append(Row(f"highlight metal {shape}", text, threshold, passed))
    return rows


def check_spheres() -> list[Row]:
    """A large sphere at the origin in all colours and materials."""
    rows = []
    for offset, material in enumerate(words.MATERIALS):
        offs = []
        for color, text in LOOKS.items():
            wanted = torch.tensor([float(v) for v in text.split()]).view(6, 3)[4 + offset]
            drawn = draw(lone("sphere", color, material))
            offs.append(pixels_of(drawn, 0, 0).mean(0) - wanted)
        worst, limit = float(torch.stack(offs).abs().max()), (4, 6)[offset]
        bias = float(torch.stack(offs).mean())
        value = f"worst {worst:.1f}, bias {bias:+.1f}"
        rows.append(Row(f"sphere at the origin, {material}", value, f"<= {limit}", worst <= limit))
    return rows


def check_rules(scenes: Scenes) -> list[Row]:
    """Margins, counts, visibility, occlusion and relations of many scenes."""
    radius = torch.tensor(words.RADII)[scenes.size]
    offset = scenes.coords[:, :, None, :2] - scenes.coords[:, None, :, :2]
    pairs = scenes.present[:, :, None] & scenes.present[:, None]
    pairs &= ~torch.eye(pairs.shape[1], dtype=torch.bool)
    gap = (offset.norm(dim=-1) - radius[:, :, None] - radius[:, None])[pairs].min()
    ways = view.directions(torch.tensor(view.POSITION))
    margin = min(float((offset @ ways[w][:2]).abs()[pairs].min()) for w in ("right", "behind"))
    counts = torch.bincount(scenes.count, minlength=11)[3:].double()
    chi = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    seen = visible_pixels(scenes, height=HEIGHT, width=WIDTH)[scenes.present]
    alone = visible_pixels(apart(scenes), height=HEIGHT, width=WIDTH)[:, 0]
    share = seen / alone
    high, low = float((share > 0.9).float().mean()), float((share < 0.5).float().mean())
    large = float((scenes.size[scenes.present] == 0).float().mean())
    return [
        Row("closest gap", f"{gap:.4f}", f">= {GAP}", bool(gap >= GAP - 1e-5)),
        Row("closest margin", f"{margin:.4f}", f">= {MARGIN}", margin >= MARGIN - 1e-5),
        # 0.99 quantile of chi-squared with 7 degrees of freedom.
        Row("number of objects, chi-squared", f"{chi:.1f}", "< 18.5", chi < 18.5),
        Row("fewest visible pixels", f"{int(seen.min())}", ">= 200", int(seen.min()) >= 200),
        Row("visible > 0.9", f"{high:.3f}", "0.85 +- 0.01", abs(high - 0.853) <= 0.01),
        Row("visible < 0.5", f"{low:.3f}", "0.016 +- 0.004", abs(low - 0.016) <= 0.004),
        Row("share of large", f"{large:.3f}", "0.473 +- 0.005", abs(large - 0.473) <= 0.005),
        check_relations(scenes.rows(slice(0, 300))),
    ]


def check_relations(scenes: Scenes) -> Row:
    """Each ordered pair in one relation of both opposite pairs, as its directions say."""
    wrong = 0
    for scene in to_official(scenes, "val"):
        coords = np.array([item["3d_coords"] for item in scene["objects"]])
        related = scene["relationships"]
        for i, here in enumerate(coords):
            for first, second in (("left", "right"), ("front", "behind")):
                both = sorted(related[first][i] + related[second][i])
                wrong += both != [j for j in range(len(coords)) if j != i]
            for name in related:
                along = (coords - here) @ np.array(scene["directions"][name])
                wrong += related[name][i] != [int(j) for j in (along > 0.2).nonzero()[0]]
    return Row("relations", f"{wrong} wrong", "0", wrong == 0)


def read_sample(root: Path, split: str) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Scene dictionaries and RGB pictures of a split of a sample in the official layout."""
    from PIL import Image

    text = (root / "scenes" / f"CLEVR_{split}_scenes.json").read_text()
    scenes = json.loads(text)["scenes"]
    folder = root / "images" / split
    images = [Image.open(folder / scene["image_filename"]).convert("RGB") for scene in scenes]
    return scenes, [np.asarray(image) for image in images]


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


def check_sample(root: Path, sheet: Path | None) -> list[Row]:
    """Cameras, turns and look of a real sample; writes real and own pictures side by side."""
    splits = [read_sample(root, split) for split in ("train", "val")]
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


def main() -> int:
    """Print the table; 1 if a check fails."""
    parser = argparse.ArgumentParser(description="Measure procedural CLEVR against the generator.")
    parser.add_argument("--sample", type=Path, help="folder of real CLEVR scenes and pictures")
    parser.add_argument("--sheet", type=Path, help="PNG to write: sample and own pictures")
    parser.add_argument("--pictures", type=int, default=200, help="scenes that are drawn")
    parser.add_argument("--scenes", type=int, default=8000, help="scenes whose rules are checked")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    scenes = sample_scenes(chosen.scenes, generator=torch.Generator().manual_seed(chosen.seed))
    drawn = draw(scenes.rows(slice(0, chosen.pictures)))
    checks: list[Callable[[], list[Row]]] = [
        lambda: check_pixel_coords(scenes),
        lambda: check_silhouettes(scenes.rows(slice(0, 60))),
        check_ground,
        check_spheres,
        lambda: check_pictures(drawn),
        lambda: check_looks(drawn),
        lambda: check_rules(scenes),
    ]
    if chosen.sample:
        checks.append(lambda: check_sample(chosen.sample, chosen.sheet))
    rows = [row for check in checks for row in check()]
    for row in rows:
        mark = "pass" if row.passed else "FAIL"
        print(f"{mark}  {row.check:<42} {row.value:<24} {row.threshold}")
    print(f"{sum(row.passed for row in rows)} of {len(rows)} checks pass")
    return int(not all(row.passed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
