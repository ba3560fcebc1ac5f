"""Deep set prediction networks: decode by gradient descent on a set.

DSPN (Thesis, Algorithm 6.1) is differentiated through all inner steps; iDSPN (Zhang et al., 2022)
through the last one alone, as if it had arrived at a minimum. Set refiners (SSLR, 3.2) start from a
set that the encoder guesses (`setexp.decoders.initial.EncodedSet`). Everything else is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from setexp.ops.descent import Descent
from setexp.sets import Encoding, SetBatch, split_mask

SetGradient = Callable[[Tensor], Tensor]


class Objective(Enum):
    """Distance of encodings that inner steps lower, for one sample.

    huber: Huber, mean over latent features (DSPN). half_squared: half the square, mean over latent
    features (iDSPN). squared: the square, summed over them (set refiner: SSLR, Eq. 5).
    """

    huber = "huber"
    half_squared = "half_squared"
    squared = "squared"

    def __call__(self, encoded: Tensor, z: Tensor) -> Tensor:
        """Twice (B, L) to (B,)."""
        if self is Objective.huber:
            return F.smooth_l1_loss(encoded, z, reduction="none").mean(-1)
        if self is Objective.squared:
            return (encoded - z).square().sum(-1)
        return 0.5 * (encoded - z).square().mean(-1)


class Gradient(Enum):
    """How the decoder is differentiated.

    unrolled: through all inner steps. implicit: at the last set, with the identity in place of the
    Hessian (iDSPN, Eq. 9 and 10), so that memory does not grow with the number of steps.
    """

    unrolled = "unrolled"
    implicit = "implicit"


class RegulariserReduction(Enum):
    """Of the squared distance to the initial set: mean over (N, F) (code), or sum.

    iDSPN, F.2, has 0.1 times the sum, not half of it: `sum` with `regulariser=0.2`.
    """

    mean = "mean"
    sum = "sum"


class DSPN(nn.Module):
    """Start from a set and descend the distance between its encoding and the latent vector.

    Under `Gradient.implicit` an initial set learns from the regulariser alone.

    Args:
        set_encoder: the encoder that is inverted; None to invert the one given at call time, which
            an auto-encoder does (shared weights).
        initial: the set to start from, see `setexp.decoders.initial`.
        objective, gradient: see `Objective` and `Gradient`.
        regulariser, regulariser_reduction: weight of half the squared distance to the initial set.
        descent: the steps.
        steps: T, the inner steps where the call names none.
        mask_channel: the last feature of the initial rows is a mask.
        condition: the encoder sees each row followed by the same row of the encoded set, which is
            never changed (iDSPN, 3: known dimensions).

    Shapes: z (B, L) to x (T + 1, B, N, D), mask (T + 1, B, N); index 0 is the initial set. In
    training mode, `Gradient.implicit` holds and returns the final set alone, T + 1 becoming 1.
    """

    def __init__(
        self,
        *,
        set_encoder: nn.Module | None,
        initial: nn.Module,
        objective: Objective,
        regulariser: float,
        regulariser_reduction: RegulariserReduction,
        descent: Descent,
        gradient: Gradient,
        steps: int,
        mask_channel: bool,
        condition: bool,
    ) -> None:
        super().__init__()
        if steps < 0 or regulariser < 0:
            raise ValueError(f"steps={steps}, regulariser={regulariser}: at least 0")
        self.set_encoder, self.initial, self.descent = set_encoder, initial, descent
        self.objective, self.gradient = Objective(objective), Gradient(gradient)
        self.steps, self.regulariser = steps, regulariser
        self.regulariser_reduction = RegulariserReduction(regulariser_reduction)
        self.mask_channel, self.condition = mask_channel, condition

    def forward(
        self,
        encoding: Encoding,
        encode: Callable[[SetBatch], Encoding] | None = None,
        steps: int | None = None,
    ) -> SetBatch:
        encoder = self.set_encoder or encode
        assert encoder is not None, "DSPN inverts an encoder: give it one"
        initial = self.initial(encoding)
        known = encoding.required_elements().x if self.condition else None

        def objective(rows: Tensor) -> Tensor:
            s = split_mask(rows, self.mask_channel)
            if known is not None:
                s = SetBatch(torch.cat([s.x, known], dim=-1), s.mask)
            total = self.objective(encoder(s).z, encoding.z).sum()
            if self.regulariser:
                squares = (rows - initial).square()
                mean = self.regulariser_reduction is RegulariserReduction.mean
                pull = squares.mean((-2, -1)) if mean else squares.sum((-2, -1))
                total = total + 0.5 * self.regulariser * pull.sum()
            return total

        descend = self._unrolled if self.gradient is Gradient.unrolled else self._implicit
        steps = self.steps if steps is None else steps
        rows = descend(self.descent.start(initial), torch.func.grad(objective), steps)
        return split_mask(rows, self.mask_channel)

    def _unrolled(self, rows: Tensor, gradient: SetGradient, steps: int) -> Tensor:
        sets, buffer = [rows], None
        for _ in range(steps):
            rows, buffer = self.descent.step(rows, gradient(rows), buffer)
            sets.append(rows)
        return torch.stack(sets)

    def _implicit(self, rows: Tensor, gradient: SetGradient, steps: int) -> Tensor:
        """Sets of which the last has the gradient of the direction it was about to take."""
        if steps == 0:
            return rows.unsqueeze(0)
        sets, buffer = [], None
        with torch.no_grad():
            for _ in range(steps - 1):
                sets += [] if self.training else [rows]
                rows, buffer = self.descent.step(rows, gradient(rows), buffer)
        rows = rows.detach()
        last_gradient = gradient(rows)
        direction = self.descent.projection(rows - last_gradient) - rows
        with torch.no_grad():
            last, _ = self.descent.step(rows, last_gradient, buffer)
        # adds zero, and the gradient of the direction
        last = last + (direction - direction.detach())
        return torch.stack([last] if self.training else [*sets, rows, last])
