"""Cross-entropy of several answers, as often as people gave them."""

from __future__ import annotations

from torch import Tensor, nn


class SoftCrossEntropyLoss(nn.Module):
    """Negative log-likelihoods of all answers, weighted: logits and shares (B, C) to (B,).

    Shares add up to less than 1 where people gave other answers.
    """

    def forward(self, logits: Tensor, share: Tensor) -> Tensor:
        return -(share * logits.log_softmax(-1)).sum(-1)
