"""What batching rules of custom operators have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def batch_first(
    info: Any, in_dims: Sequence[int | None], tensors: Sequence[Tensor]
) -> list[Tensor]:
    """Arguments of a batching rule with the mapped axis first; those without it are expanded."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        for tensor, axis in zip(tensors, in_dims, strict=True)
    ]
