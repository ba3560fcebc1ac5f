"""Binary cross-entropy of every answer with how right people find it (Thesis, 4.4.4: of BAN)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from setexp.ops.votes import PEOPLE, agreement


class AgreementLoss(nn.Module):
    """Summed over answers: logits and shares of ten people (B, C) to (B,).

    An answer's target is its accuracy, min(0.3 votes, 1).
    """

    def forward(self, logits: Tensor, share: Tensor) -> Tensor:
        target = agreement(PEOPLE * share)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
