"""`torch.compile` for training steps, with the settings that they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from setexp.ops import product

P = ParamSpec("P")


def compiled(step: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A step that is compiled when it is first called, and anew for other shapes.

    It draws the numbers that it would draw if it were not compiled, which on a CPU is much faster
    than what the compiler has in their place.
    """
    import torch._functorch.config

    # else masks of ReLUs are kept beside their outputs, which CPUs write number by number
    torch._functorch.config.recompute_views = True
    return torch.compile(
        step, options={"fallback_random": True, "post_grad_custom_post_pass": _LargeProducts()}
    )


class _LargeProducts(CustomGraphPass):
    """Puts `ops.product` where it is faster, gradients included."""

    def __call__(self, graph: torch.fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default):
            x, weight = node.args
            transposed = weight.meta["val"].mT
            if product.is_large(x.meta["val"], transposed):
                with graph.inserting_before(node):
                    turned = graph.call_function(
                        torch.ops.aten.permute.default, (weight, (0, 2, 1))
                    )
                turned.meta["val"] = transposed
                node.target, node.args = torch.ops.setexp.product.default, (x, turned)

    def uuid(self) -> bytes:
        return get_hash_for_files((__file__, product.__file__))
