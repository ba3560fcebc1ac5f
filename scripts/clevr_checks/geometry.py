"""Where things are: camera, silhouettes, and the rules by which scenes are placed."""

from __future__ import annotations

import numpy as np
import torch

from clevr_checks.drawn import HEIGHT, WIDTH, Row, apart, fit_camera
from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import vocabulary as words
from setexp.datasets.clevr.raster import visible_pixels
from setexp.datasets.clevr.scenes import GAP, MARGIN, Scenes, to_official

# area * depth^2 / (focal length * radius)^2: large, small.
SILHOUETTES = {"sphere": (3.21, 3.20), "cube": (5.92, 5.87), "cylinder": (4.97, 4.98)}


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
