"""Counting by non-maximum suppression instead of the counting module (Thesis, Table 3.2)."""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from setexp.ops.nms import survivors
from setexp.ops.rows import take_rows


class Candidates(Enum):
    """Which proposals are looked at; the thesis does not say, and no code of it is public.

    top10: those with the largest scores, as many as the largest count, like the counting module's.
    all_clamped: all of them; more than the largest count are that count.
    """

    top10 = "top10"
    all_clamped = "all_clamped"


class CountSurvivors(nn.Module):
    """How many proposals remain, scored by the average of the glimpses; it has no gradient.

    Args:
        objects: the largest count. threshold: of IoU. candidates: see `Candidates`.

    Shapes: boxes (B, N, 4), logits (B, N, G), mask (B, N) to one-hot (B, objects + 1).
    """

    def __init__(self, *, objects: int, threshold: float, candidates: Candidates) -> None:
        super().__init__()
        self.objects, self.threshold = objects, threshold
        self.candidates = Candidates(candidates)

    def forward(self, boxes: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        score = logits.detach().softmax(-2).mean(-1).masked_fill(mask == 0, -torch.inf)
        if self.candidates is Candidates.top10 and score.shape[-1] > self.objects:
            score, kept = score.topk(self.objects, dim=-1)
            boxes = take_rows(boxes, kept)
        count = survivors(boxes, score, threshold=self.threshold).sum(-1)
        return F.one_hot(count.clamp(max=self.objects), self.objects + 1).to(logits.dtype)
