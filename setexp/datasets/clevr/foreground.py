"""Which pixels of a picture show objects: what is left once the background is removed (SSLR, 4.2).

Masks of a store lie beside it, a bit for each pixel: `numpy.packbits` of (S, H, W) along the width.
Those of procedural scenes are made on first use, from the scenes, which are drawn again, and are
named by the store's content, so that a store that is rendered anew gets masks of its own. The
official release has none, but whoever has rendered them may put such a file there.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from setexp.datasets.array_store import part_spans
from setexp.datasets.clevr.bodies import gather_bodies
from setexp.datasets.clevr.camera import ASPECT, Frame, exact_products
from setexp.datasets.clevr.objects import Array
from setexp.datasets.clevr.procedural import Recipe, draw_scenes
from setexp.datasets.clevr.raster import first_hits, scenes_at_once
from setexp.datasets.clevr.scenes import Scenes
from setexp.datasets.clevr.store import Store
from setexp.errors import ConfigError
from setexp.files import made_once, write_bytes


def mask_path(store: Path) -> Path:
    """Where the masks of an official store's pictures lie."""
    return store.with_name(f"{store.stem}-foreground.npy")


@exact_products()
def silhouettes(scenes: Scenes, *, height: int, width: int) -> Tensor:
    """Whether an object is seen at the middle of each pixel, bool (S, height, width)."""
    chunk = scenes_at_once(scenes.camera.device, height * width)
    parts = []
    for start in range(0, len(scenes.count), chunk):
        some = scenes.rows(slice(start, start + chunk))
        hits = first_hits(gather_bodies(some), Frame(some.camera, height, width, ASPECT))
        seen = torch.zeros(
            len(some.count) * height * width, dtype=torch.bool, device=hits.pixel.device
        )
        seen[hits.pixel] = True
        parts.append(seen.view(-1, height, width))
    return torch.cat(parts)


def procedural_masks(store: Store, split: str, recipe: Recipe) -> Path:
    """Path of the masks of a procedural store, drawn first where they are missing.

    Args:
        store: its path and content name the masks.
        split, recipe: what it was made from.

    Raises:
        ConfigError: the scenes were drawn on a GPU, and there is none, or come out differently here
            (rounding decides whether an object fits, so other processors draw other scenes).
    """
    any_masks = mask_path(store.path)
    path = any_masks.with_stem(f"{any_masks.stem}-{store.digest}")

    def make() -> None:
        content = io.BytesIO()
        np.save(content, _draw_masks(store, split, recipe), allow_pickle=False)
        for former in path.parent.glob(f"{any_masks.stem}*.npy"):  # of other content
            former.unlink()
        write_bytes(path, content.getvalue())

    return made_once(path, make)


def _draw_masks(store: Store, split: str, recipe: Recipe) -> Array:
    from tqdm import tqdm

    if recipe.drawn_on == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{store.path} was drawn on a GPU, and its masks must be, too; remove it, or find one"
        )
    packed, spans = [], part_spans(len(store), recipe.part_size)
    for start, stop in tqdm(spans, desc=f"CLEVR {split}, foregrounds", disable=None):
        scenes = draw_scenes(split, start, stop, recipe)
        coords = store.array("coords", start, stop)[:, : recipe.max_objects]
        if not np.array_equal(scenes.coords.cpu().numpy(), coords):
            raise ConfigError(
                f"{store.path} was drawn on another machine, and its scenes come out "
                "differently here; make its masks there, or remove it"
            )
        seen = silhouettes(scenes, height=recipe.image_size, width=recipe.image_size)
        packed.append(np.packbits(seen.cpu().numpy(), axis=-1))
    return np.concatenate(packed)


def load_masks(path: Path, images: tuple[int, ...]) -> Array:
    """Packed masks (S, H, ceil(W / 8)) of pictures of shape (S, 3, H, W).

    Raises:
        ConfigError: they are of other pictures, or damaged.
    """
    try:
        masks: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); remove it") from error
    count, _, height, width = images
    wanted = (count, height, -(-width // 8))
    if masks.dtype != np.uint8 or len(masks) < count or masks.shape[1:] != wanted[1:]:
        raise ConfigError(
            f"{path} holds {masks.dtype} {masks.shape}, the pictures need uint8 {wanted}; remove it"
        )
    return masks[:count]


def unpack(masks: Tensor, width: int) -> Tensor:
    """Bits of uint8 (..., W / 8) as numbers 0 and 1, (..., 1, H, W) of float32."""
    shifts = torch.arange(7, -1, -1, device=masks.device, dtype=torch.uint8)
    bits = (masks.unsqueeze(-1) >> shifts) & 1
    return bits.flatten(-2)[..., :width].float().unsqueeze(-3)
