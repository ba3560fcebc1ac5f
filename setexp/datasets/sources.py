"""What datasets with real data are told: where to take it from, and how many of a split."""

from __future__ import annotations

from setexp.errors import ConfigError

# real: files; procedural: a stand-in, drawn here; auto: real where the files are.
SOURCES = ("auto", "real", "procedural")


def image_count(split: str, count: int | None, most: int) -> int:
    """Images to use of a split that has `most`, from the first; None stands for all.

    Raises:
        ConfigError: there are not so many, or none is wanted.
    """
    if count is not None and not 1 <= count <= most:
        raise ConfigError(f"dataset.{split}_size={count}: choose 1 to {most}, or null for all")
    return most if count is None else count
