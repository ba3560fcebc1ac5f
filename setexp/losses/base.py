"""What the set losses share: which inner steps they judge, and whether the mask is a feature."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from setexp.sets import SetBatch


class Steps(Enum):
    """Which predictions of an iterative decoder count.

    last: the final set, as the released DSPN code did on CLEVR (Thesis, 6.5, bug 1).
    all: the mean over all of them; DSPN's include the initial set (Thesis, 6.3.3).
    """

    last = "last"
    all = "all"


def comparable(
    prediction: SetBatch, target: SetBatch, *, steps: Steps, mask_channel: bool
) -> tuple[Tensor, Tensor]:
    """Rows to compare: predictions (T, B, N, D) with T = 1 for `last`, and targets (B, N, D).

    Raises:
        ValueError: a prediction without the leading axis of inner steps.
    """
    if prediction.x.ndim != target.x.ndim + 1:
        raise ValueError(
            f"a prediction {tuple(prediction.x.shape)} of targets {tuple(target.x.shape)} lacks "
            "its leading axis, of inner steps: (T, B, N, D)"
        )
    if steps is Steps.last:
        prediction = SetBatch(prediction.x[-1:], prediction.mask[-1:])
    if mask_channel:
        return prediction.with_mask_channel(), target.with_mask_channel()
    return prediction.x, target.x
