"""`torch.compile` for training steps, with the settings that they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from torch import Tensor

P = ParamSpec("P")


def compiled(step: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A step that is compiled when it is first called, and anew for other shapes.

    It draws the numbers that it would draw if it were not compiled, which on a CPU is much faster
    than what the compiler has in their place.
    """
    import torch._functorch.config

    from setexp.training.large_products import LargeProducts  # the compiler takes a second

    # else masks of ReLUs are kept beside their outputs, which CPUs write number by number
    torch._functorch.config.recompute_views = True
    return torch.compile(
        step, options={"fallback_random": True, "post_grad_custom_post_pass": LargeProducts()}
    )
