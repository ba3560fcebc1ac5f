"""Cross-entropy of one label per sample."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropyLoss(nn.Module):
    """Negative log-likelihood of the label: logits (..., B, C), labels (..., B) to (..., B)."""

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        loss = F.cross_entropy(logits.flatten(0, -2), label.flatten(), reduction="none")
        return loss.view(label.shape)
