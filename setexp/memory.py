"""How the C library gives memory back, which costs a step of middle-sized CPU tensors a third."""

from __future__ import annotations

import ctypes
import sys

# glibc's mallopt: parameter numbers of M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD.
_KEEP = {-1: (1 << 31) - 1, -2: 256 << 20, -3: 32 << 20}


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of mapping fresh pages; numbers do not change.

    Returns:
        Whether the C library took it; only glibc knows how.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(number, size) for number, size in _KEEP.items())
