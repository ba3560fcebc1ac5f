"""From how close detections are to targets to average precision, under each evaluator's rules.

Detections of a curve are read in descending order of confidence; each takes a target of its own
image and hits if the two are close enough; the result is the area under the interpolated
precision-recall curve. The documents differ in all other points under one name: DSPN's evaluator is
`dataset`, `voc`, `string`, not strict; iDSPN's is `first_in_batch`, `greedy_unused`, strict.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor


class Scope(Enum):
    """Which detections share a curve.

    dataset: all of them. per_image: those of an image; mean over images. first_in_batch: those of
    the first image of each batch; mean weighted by the sizes of the batches (the released iDSPN
    evaluation, whose loop returns after one image).
    """

    dataset = "dataset"
    per_image = "per_image"
    first_in_batch = "first_in_batch"


class Matching(Enum):
    """Which target a detection takes.

    voc: the closest of all; if an earlier hit used it, the detection is a false positive.
    greedy_unused: the closest that no detection took before; it is taken even if it is too far.
    """

    voc = "voc"
    greedy_unused = "greedy_unused"


class TieOrder(Enum):
    """Order of images whose detections are equally confident in a curve of the whole dataset.

    string: by their index written as text (0, 1, 10, 11, 2), the file order of DSPN's evaluator.
    index: by number. Within an image, slots keep their order.
    """

    string = "string"
    index = "index"


class Rules:
    """One evaluator's rules.

    Args:
        scope, matching, tie_order: see their classes.
        strict: a hit must exceed the threshold of closeness.
        batch_size: of the loader that `first_in_batch` imitates; no other scope uses it.

    Raises:
        ValueError: a batch of no image.
    """

    def __init__(
        self,
        scope: Scope,
        matching: Matching,
        tie_order: TieOrder,
        *,
        strict: bool,
        batch_size: int,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least 1 image")
        self.scope, self.matching = Scope(scope), Matching(matching)
        self.tie_order = TieOrder(tie_order)
        self.strict, self.batch_size = strict, batch_size

    def average_precision(
        self, closeness: Tensor, confidence: Tensor, count: Tensor, at: Tensor
    ) -> Tensor:
        """Average precision at each threshold; NaN where no curve has a target.

        An image without targets has no recall and so no curve of its own: means over images leave
        it out. In the curve of a dataset its detections are false positives.

        Args:
            closeness, at: as in `match`, detections in any order.
            confidence: (B, N).
            count: targets of each image, float64 (B,).

        Returns:
            float64 (K,).
        """
        weights = torch.ones_like(count)
        if self.scope is Scope.first_in_batch:
            first = torch.arange(0, len(count), self.batch_size)
            weights = (len(count) - first).clamp(max=self.batch_size).to(count)
            closeness, confidence, count = closeness[first], confidence[first], count[first]
        order = confidence.argsort(dim=1, descending=True, stable=True)
        closeness = closeness.gather(1, order.unsqueeze(-1).expand_as(closeness))
        hits = match(closeness, at, self.matching, strict=self.strict)
        if self.scope is Scope.dataset:
            files = _file_order(len(count), self.tie_order)
            pooled = confidence.gather(1, order)[files].flatten()
            hits = hits[:, files].flatten(1)
            return area(hits[:, pooled.argsort(descending=True, stable=True)], count.sum())
        weights = weights * (count > 0)
        return (area(hits, count).nan_to_num() * weights).sum(-1) / weights.sum()


def match(closeness: Tensor, at: Tensor, matching: Matching, *, strict: bool) -> Tensor:
    """Which detections hit, for each threshold.

    Args:
        closeness: (B, N, M) of detections in order of confidence and targets, larger is closer;
            minus infinity where the detection may not take the target.
        at: thresholds of closeness, (K,).
        matching: see `Matching`; of equally close targets the first is taken.
        strict: a hit must exceed the threshold; otherwise it may equal it.

    Returns:
        bool (K, B, N).
    """
    at = at[:, None]
    used = closeness.new_zeros(len(at), len(closeness), closeness.shape[2], dtype=torch.bool)
    hits = []
    for row in closeness.unbind(1):
        if matching is Matching.greedy_unused:
            # What was taken does not depend on the threshold: all of `used` is alike.
            row = row.masked_fill(used[0], -math.inf)
        best, index = row.max(1)
        index = index.expand(len(at), -1).unsqueeze(-1)
        before = used.gather(2, index).squeeze(-1)
        possible = best > -math.inf
        hit = (best > at if strict else best >= at) & possible & ~before
        takes = hit if matching is Matching.voc else possible
        used.scatter_(2, index, (before | takes).unsqueeze(-1))
        hits.append(hit)
    return torch.stack(hits, -1)


def area(hits: Tensor, count: Tensor) -> Tensor:
    """Area under the precision-recall curve, precision being the best at that recall or beyond.

    Recall grows by 1 / count at every hit, which adds the interpolated precision of that place.

    Shapes: hits (..., D) in order of confidence and count (...) of targets to (...); NaN for 0.
    """
    places = torch.arange(1, hits.shape[-1] + 1, dtype=torch.float64)
    precision = hits.double().cumsum(-1) / places
    best_beyond = precision.flip(-1).cummax(-1).values.flip(-1)
    return (best_beyond * hits).sum(-1) / count


def _file_order(images: int, tie_order: TieOrder) -> Tensor:
    indices = range(images)
    return torch.tensor(sorted(indices, key=str) if tie_order is TieOrder.string else indices)
