"""The objects of many scenes as one flat list, grouped by shape, with a frame of their own each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from setexp.datasets.clevr import camera as view
from setexp.datasets.clevr import vocabulary as words

if TYPE_CHECKING:
    from setexp.datasets.clevr.scenes import Scenes


class Bodies(NamedTuple):
    """K objects of S scenes, spheres first, then cubes, then cylinders.

    Args:
        scene: whose object it is, int64 (K,).
        slot: its place within the scene, int64 (K,).
        centre: (3, K) in world units.
        radius: half height in world units, (K,).
        cos: of the turn about the vertical axis, (K,).
        sin: likewise.
        albedo: linear colour, (3, K).
        metal: whether it is metal, else rubber, bool (K,).
        groups: number of spheres, cubes and cylinders, int64 (3,).
    """

    scene: Tensor
    slot: Tensor
    centre: Tensor
    radius: Tensor
    cos: Tensor
    sin: Tensor
    albedo: Tensor
    metal: Tensor
    groups: Tensor

    def spans(self) -> list[tuple[int, slice]]:
        """Each shape with its (maybe empty) range of bodies; waits for the device."""
        ends = self.groups.cumsum(0).tolist()
        return [(shape, slice(([0, *ends])[shape], end)) for shape, end in enumerate(ends)]

    def to_frame(self, vectors: Tensor) -> Tensor:
        """Turn and scale vectors (3, K, ...) of each body into units of its half height."""
        tail = (1,) * (vectors.dim() - 2)
        cos, sin, radius = (x.view(-1, *tail) for x in (self.cos, self.sin, self.radius))
        x, y, z = vectors
        return torch.stack([cos * x + sin * y, cos * y - sin * x, z]) / radius

    def to_world(self, vectors: Tensor) -> Tensor:
        """Turn vectors of unchanged length back, (3, K)."""
        x, y, z = vectors
        return torch.stack([self.cos * x - self.sin * y, self.sin * x + self.cos * y, z])

    def take(self, index: Tensor | slice) -> Bodies:
        """Some of the bodies; `groups` is kept and means nothing for them."""
        if isinstance(index, slice):
            return Bodies._make([*(field[..., index] for field in self[:-1]), self.groups])
        # Several times faster than indexing with a tensor.
        fields = (field.index_select(-1, index) for field in self[:-1])
        return Bodies._make([*fields, self.groups])

    def neighbours(self) -> tuple[Tensor, Tensor]:
        """All ordered pairs of different bodies in the same scene, sorted by the first."""
        same = self.scene[:, None] == self.scene
        same.fill_diagonal_(False)
        first, second = same.nonzero(as_tuple=True)
        return first, second

    def corners(self) -> Tensor:
        """Corners of the upright boxes around bodies, (3, K, 8), in world units."""
        sign = self.centre.new_tensor([-1.0, 1.0])
        unit = torch.cartesian_prod(sign, sign, sign).T[:, None]
        x, y, z = unit * self.radius[:, None]
        cos, sin = self.cos[:, None], self.sin[:, None]
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z])
        return self.centre[..., None] + turned


def gather_bodies(scenes: Scenes) -> Bodies:
    """All objects of some scenes as one list."""
    scene, slot = scenes.present.nonzero(as_tuple=True)
    shape = scenes.shape[scene, slot]
    order = shape.argsort(stable=True)
    scene, slot, shape = scene[order], slot[order], shape[order]
    turn = view.yaw(scenes.rotation[scene, slot])
    colors = scenes.coords.new_tensor(words.COLOR_BYTES).T / 255
    return Bodies(
        scene=scene,
        slot=slot,
        centre=scenes.coords[scene, slot].T.contiguous(),
        radius=scenes.coords.new_tensor(words.RADII)[scenes.size[scene, slot]],
        cos=turn.cos(),
        sin=turn.sin(),
        albedo=colors[:, scenes.color[scene, slot]],
        metal=scenes.material[scene, slot] == words.MATERIALS.index("metal"),
        groups=torch.bincount(shape, minlength=len(words.SHAPES)),
    )
