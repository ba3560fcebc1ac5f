"""Where iterative decoders start: a learned set, a random one, the encoder's guess, or slots from a
learned normal distribution."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn

from setexp.sets import Encoding


class SetInit(Enum):
    """Initial elements: uniform on [0, 1] (DSPN), or normal with mean 0 (iDSPN)."""

    uniform = "uniform"
    normal = "normal"


class LearnedSet(nn.Module):
    """One learned set, the same for every sample (Thesis, 6.3.2).

    Args:
        set_size: N. element_dim: D.
        init, std: see `SetInit`; the standard deviation matters to `normal`.
        mask: initial mask value of every element; null where rows have no mask.

    Shapes: an encoding of B samples to rows (B, N, D), or (B, N, D + 1) with the mask last.
    """

    def __init__(
        self, *, set_size: int, element_dim: int, init: SetInit, std: float, mask: float | None
    ) -> None:
        super().__init__()
        shape = (set_size, element_dim)
        x = torch.rand(shape) if SetInit(init) is SetInit.uniform else torch.randn(shape) * std
        self.x = nn.Parameter(x)
        self.mask = None if mask is None else nn.Parameter(torch.full((set_size, 1), mask))

    def forward(self, encoding: Encoding) -> Tensor:
        rows = self.x if self.mask is None else torch.cat([self.x, self.mask], dim=-1)
        return rows.expand(len(encoding.z), *rows.shape)


class RandomSet(nn.Module):
    """Normal noise, fresh in every forward pass from the global random state (iDSPN, 3).

    Args:
        set_size: N. element_dim: D.
        std: of the noise. Code: 0.1; the paper writes N(0, I/10), which is 0.316.
        mask: rows have a mask as last feature, noise like the others.

    Shapes: an encoding of B samples to rows (B, N, D), or (B, N, D + 1) with the mask last.
    """

    draws = True  # seeds that train in a stack would share what is drawn

    def __init__(self, *, set_size: int, element_dim: int, std: float, mask: bool) -> None:
        super().__init__()
        self.shape, self.std = (set_size, element_dim + mask), std

    def forward(self, encoding: Encoding) -> Tensor:
        z = encoding.z
        dtype = torch.promote_types(z.dtype, torch.float32)  # all inner steps are held in it
        return torch.randn(len(z), *self.shape, device=z.device, dtype=dtype) * self.std


class EncodedSet(nn.Module):
    """The elements that the encoder made: the first guess of a set refiner (SSLR, Eq. 4).

    Args:
        learned: the guess learns from what becomes of it, as the paper says; the released code cuts
            its gradient, so that only the layers below are trained, by way of the latent vector.

    Shapes: encoded elements x (B, N, D) to rows (B, N, D).
    """

    def __init__(self, *, learned: bool) -> None:
        super().__init__()
        self.differentiated = learned

    def forward(self, encoding: Encoding) -> Tensor:
        rows = encoding.required_elements().x
        return rows if self.differentiated else rows.detach()


class GaussianSlots(nn.Module):
    """Slots from one learned normal distribution, fresh in every forward pass from the global
    random state (Locatello et al., 2020).

    Args:
        set_size: N.
        slot: features of a slot.

    Shapes: an encoding of B samples to slots (B, N, slot).
    """

    draws = True  # see `RandomSet`

    def __init__(self, *, set_size: int, slot: int) -> None:
        super().__init__()
        self.set_size = set_size
        self.mean = nn.Parameter(torch.empty(1, slot))
        self.log_std = nn.Parameter(torch.empty(1, slot))
        for parameter in (self.mean, self.log_std):
            nn.init.xavier_uniform_(parameter)

    def forward(self, encoding: Encoding) -> Tensor:
        z = encoding.z
        shape = (len(z), self.set_size, self.mean.shape[-1])
        noise = torch.randn(shape, device=z.device, dtype=z.dtype)
        return self.mean + self.log_std.exp() * noise
