"""CLEVR's words, in the order of the one-hot state vectors (released DSPN code), and looks."""

from collections.abc import Mapping

MATERIALS = ("rubber", "metal")
COLORS = ("cyan", "blue", "yellow", "purple", "red", "green", "gray", "brown")
SHAPES = ("sphere", "cube", "cylinder")
SIZES = ("large", "small")

MAX_OBJECTS = 10  # of a scene
SPLITS = ("train", "val")  # that have scene files
SCENES = {"train": 70_000, "val": 15_000}  # of the release

# Half height of an object in world units, by size (CLEVR generator).
RADII = (0.7, 0.35)
# 8-bit colours that the generator uses, divided by 255, as linear albedo (no gamma decoding).
COLOR_BYTES = (
    (41, 208, 208),
    (42, 75, 215),
    (255, 238, 51),
    (129, 38, 192),
    (173, 35, 35),
    (29, 105, 20),
    (87, 87, 87),
    (129, 74, 25),
)


def sample_mark(scenes: Mapping[str, int]) -> str:
    """What a fingerprint ends in, but for a hash, where a split has other than the release's number
    of scenes: reports keep such copies of real data apart."""
    return "" if scenes == SCENES else "sample copy"
