"""Average precision of predicted boxes and CLEVR states (Thesis, 6.5.2, 6.5.3, A.4.3; iDSPN, 4.3).

Every slot of a predicted set is a detection, its mask value the confidence. The evaluators of the
documents differ; `setexp.metrics.precision_recall` holds their rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from setexp.errors import ConfigError
from setexp.metrics.precision_recall import Matching, Rules, Scope, TieOrder
from setexp.ops.boxes import pairwise_iou
from setexp.sets import SetBatch

# A state: three coordinates divided by 3, then scores of material, colour, shape and size.
_COORDINATES, _COORDINATE_SCALE = 3, 3.0
_ATTRIBUTES = (2, 8, 3, 2)


class BoxAveragePrecision:
    """Average precision of boxes at IoU thresholds (Thesis, Tables 6.2, 6.3, A.2, A.3).

    A detection hits a target if their IoU is at least the threshold; a box that overlaps no target
    takes none. Keys are "AP" with the threshold in percent and the suffix: `AP50`,
    `AP95_plus_one`. Values are fractions; NaN where no curve has a target.

    Args:
        thresholds: IoUs in (0, 1].
        plus_one: the IoU of Tables 6.2 and 6.3; see `setexp.ops.boxes`.
        scope, matching, tie_order, batch_size: see `setexp.metrics.precision_recall`.
        suffix: ends every key.

    Shapes: prediction.x (B, N, 4) as xmin, ymin, xmax, ymax, target.x (B, M, 4), all of a split.

    Raises:
        ValueError: an argument or a shape that makes no sense.
    """

    def __init__(
        self,
        *,
        thresholds: Sequence[float],
        plus_one: bool,
        scope: Scope,
        matching: Matching,
        tie_order: TieOrder,
        batch_size: int = 128,
        suffix: str = "",
    ) -> None:
        _check_thresholds(thresholds, most=1.0)
        self.rules = Rules(scope, matching, tie_order, strict=False, batch_size=batch_size)
        self.plus_one = plus_one
        self.thresholds = {f"AP{100 * t:g}{suffix}": float(t) for t in thresholds}

    def __call__(self, prediction: SetBatch, target: SetBatch) -> dict[str, float]:
        """All thresholds for one split."""
        x, confidence, y, present = _on_host(prediction, target, features=4)
        closeness = box_closeness(x, y, present, plus_one=self.plus_one)
        at = torch.tensor(list(self.thresholds.values()), dtype=torch.float64)
        values = self.rules.average_precision(closeness, confidence, present.double().sum(1), at)
        return dict(zip(self.thresholds, values.tolist(), strict=True))


class StateAveragePrecision:
    """Average precision of states at distances (Thesis, Tables 6.4, 6.5, A.4; iDSPN, Tables 3, 7).

    A detection may take only a target with the same material, colour, shape and size, each the
    arg-max of its scores (the first among equals, so an all-zero row has attributes too). It hits
    if their distance in the scene's units is at most the threshold. Keys are "AP" with the
    threshold and the suffix: `APinf`, `AP0.125`. Values are fractions; NaN where no curve has a
    target.

    Args:
        thresholds: distances; positive, may be infinite.
        strict: hit only below the threshold, as in iDSPN.
        scope, matching, tie_order, batch_size, suffix: see `BoxAveragePrecision`.

    Shapes: prediction.x (B, N, 18), target.x (B, M, 18), all of a split.

    Raises:
        ValueError: an argument or a shape that makes no sense.
    """

    def __init__(
        self,
        *,
        thresholds: Sequence[float],
        scope: Scope,
        matching: Matching,
        tie_order: TieOrder,
        strict: bool,
        batch_size: int = 128,
        suffix: str = "",
    ) -> None:
        _check_thresholds(thresholds, most=math.inf)
        self.rules = Rules(scope, matching, tie_order, strict=strict, batch_size=batch_size)
        self.thresholds = {f"AP{t:g}{suffix}": float(t) for t in thresholds}

    def __call__(self, prediction: SetBatch, target: SetBatch) -> dict[str, float]:
        """All thresholds for one split."""
        features = _COORDINATES + sum(_ATTRIBUTES)
        x, confidence, y, present = _on_host(prediction, target, features=features)
        closeness = state_closeness(x, y, present)
        at = -torch.tensor(list(self.thresholds.values()), dtype=torch.float64)
        values = self.rules.average_precision(closeness, confidence, present.double().sum(1), at)
        return dict(zip(self.thresholds, values.tolist(), strict=True))


def box_closeness(x: Tensor, y: Tensor, present: Tensor, *, plus_one: bool) -> Tensor:
    """IoU, or minus infinity for absent targets and boxes that do not overlap.

    Shapes: x (B, N, 4), y (B, M, 4), bool present (B, M) to (B, N, M).
    """
    iou = pairwise_iou(x, y, plus_one=plus_one)
    return iou.masked_fill(~present.unsqueeze(1) | (iou == 0), -math.inf)


def state_closeness(x: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """Negative distance in the scene's units, or minus infinity for absent or unlike targets.

    Shapes: x (B, N, 18), y (B, M, 18), bool present (B, M) to (B, N, M).
    """
    alike = _attribute_code(x).unsqueeze(2) == _attribute_code(y).unsqueeze(1)
    difference = x[..., :_COORDINATES].unsqueeze(2) - y[..., :_COORDINATES].unsqueeze(1)
    distance = _COORDINATE_SCALE * torch.linalg.vector_norm(difference, dim=-1)
    return (-distance).masked_fill(~(alike & present.unsqueeze(1)), -math.inf)


def _attribute_code(x: Tensor) -> Tensor:
    """One number for the arg-max of each attribute: (B, N, 18) to int64 (B, N)."""
    code = torch.zeros(x.shape[:-1], dtype=torch.int64)
    for scores in x[..., _COORDINATES:].split(_ATTRIBUTES, dim=-1):
        code = code * scores.shape[-1] + scores.argmax(-1)
    return code


def _on_host(
    prediction: SetBatch, target: SetBatch, *, features: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Elements, confidences, targets (float64, on the CPU) and which targets are present (bool)."""
    shapes = [tuple(part.shape) for part in (*prediction, *target)]
    if not (
        len(shapes[0]) == len(shapes[2]) == 3
        and shapes[0][-1] == shapes[2][-1] == features
        and shapes[0][0] == shapes[2][0]
        and (shapes[1], shapes[3]) == (shapes[0][:-1], shapes[2][:-1])
    ):
        raise ConfigError(
            f"average precision: elements and masks of the prediction {shapes[0]}, {shapes[1]} and "
            f"the target {shapes[2]}, {shapes[3]}; elements must be (images, slots, {features})"
        )
    parts = [part.detach().to("cpu", torch.float64) for part in (*prediction, *target)]
    return parts[0], parts[1], parts[2], parts[3] > 0


def _check_thresholds(thresholds: Sequence[float], *, most: float) -> None:
    if not thresholds or len(set(thresholds)) < len(thresholds):
        raise ValueError(f"thresholds={list(thresholds)}: give one or more, each once")
    for threshold in thresholds:
        if not 0 < threshold <= most:
            raise ValueError(f"thresholds={list(thresholds)}: {threshold} is not in (0, {most:g}]")
