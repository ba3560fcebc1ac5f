"""Dropout whose draws are a function of its own state, so that models that drop still stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WORD = 0xFFFFFFFF
_STRIDE = 0x9E3779B1  # odd and irregular: a call's words are far from the next one's


class Dropout(nn.Module):
    """Dropout that draws by hashing a key, the number of the call and the place.

    PyTorch's draws come from one global stream, which several seeds in a stack would share. Here
    the key is drawn with the weights, and key and count are buffers like any other state: a seed
    drops the same numbers alone, in a stack, on any device and after resuming.

    Args:
        p: share that is dropped, in [0, 1); a buffer, so that models which differ in it stack.

    Shapes: (B, C) to the same; a leading axis of seeds may be on it and on the buffers.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p}: a share in [0, 1)")
        self.p, self.key = nn.Buffer(torch.full((), float(p))), nn.Buffer(torch.randint(_WORD, ()))
        self.count = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        p, key, count = (t.view(-1, 1, 1) for t in (self.p, self.key, self.count))
        place = torch.arange(x.shape[-2:].numel(), device=x.device).view(x.shape[-2:])
        number = _mixed(place + (key + count * _STRIDE))
        self.count.add_(1)
        kept = number >= p * _WORD
        return torch.where(kept, x.view(kept.shape) / (1 - p), 0).view_as(x)


def _mixed(x: Tensor) -> Tensor:
    """A word of 32 bits for each, as int64, of which every bit depends on every bit."""
    x = x & _WORD
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):  # few-bias constants, by search
        x = ((x ^ (x >> shift)) * factor) & _WORD
    return x ^ (x >> 15)
