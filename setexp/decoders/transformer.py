"""Transformer from a set to a set of the same size (iDSPN, F.1)."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor, nn

from setexp.sets import Encoding, SetBatch


class Positions(Enum):
    """What tells equal elements apart: nothing, sines and cosines of the position, or noise."""

    none = "none"
    sinusoidal = "sinusoidal"
    random = "random"


class Sinusoids(nn.Module):
    """Add sines and cosines of the position (Vaswani et al., 2017, 3.5).

    Args:
        set_size: N. features: D, even.

    Shapes: (B, N, D) to the same.
    """

    table: Tensor

    def __init__(self, *, set_size: int, features: int) -> None:
        super().__init__()
        frequency = torch.exp(torch.arange(0, features, 2) * (-math.log(10_000) / features))
        angle = torch.arange(set_size).unsqueeze(-1) * frequency
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class RandomFeatures(nn.Module):
    """Append normal noise of learned mean and scale, fresh in every forward pass (iDSPN, 4.1).

    Args:
        features: appended to each element.

    Shapes: (B, N, D) to (B, N, D + features).
    """

    draws = True  # seeds that train in a stack would share what is drawn

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.features = features
        self.mean = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.features)
        noise = torch.randn(shape, device=x.device, dtype=x.dtype)
        return torch.cat([x, self.mean + self.log_scale.exp() * noise], dim=-1)


class Transformer(nn.Module):
    """PyTorch's encoder and decoder, without dropout; every element takes part.

    The encoder reads a linear map of the elements. The decoder starts from another one, so that
    each input is paired with an output, and there alone are positions told (protocol: F.1).

    Args:
        inputs: features of an element.
        hidden: width of attention, half of which is noise under `Positions.random`.
        layers: of the encoder, and of the decoder. heads: of each attention.
        feed_forward: width between the two linear maps of each layer.
        positions: see `Positions`. set_size: N; only read under `Positions.sinusoidal`.
        element_dim: features of a predicted element.

    Shapes: encoded elements (B, N, inputs) to x (1, B, N, element_dim), mask (1, B, N).

    Raises:
        ValueError: a width that heads cannot share.
    """

    def __init__(
        self,
        *,
        inputs: int,
        hidden: int,
        layers: int,
        heads: int,
        feed_forward: int,
        positions: Positions,
        set_size: int,
        element_dim: int,
    ) -> None:
        super().__init__()
        if hidden % (2 * heads):
            raise ValueError(f"hidden={hidden}: choose a multiple of twice heads={heads}")
        positions = Positions(positions)
        noise = hidden // 2 if positions is Positions.random else 0
        self.source = nn.Linear(inputs, hidden)
        self.start = nn.Linear(inputs, hidden - noise)
        self.positions: nn.Module = nn.Identity()
        if positions is Positions.sinusoidal:
            self.positions = Sinusoids(set_size=set_size, features=hidden)
        elif positions is Positions.random:
            self.positions = RandomFeatures(features=noise)
        self.transformer = nn.Transformer(
            hidden, heads, layers, layers, feed_forward, dropout=0.0, batch_first=True
        )
        self.outputs = nn.Linear(hidden, element_dim)

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        x, mask = encoding.required_elements()
        x = self.outputs(self.transformer(self.source(x), self.positions(self.start(x))))
        return SetBatch(x.unsqueeze(0), mask.unsqueeze(0))
