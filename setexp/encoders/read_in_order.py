"""An LSTM that reads attended proposals, in a learned order or as they come (Thesis, 4.4.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.encoders.permutation import PermutationOptimisation
from setexp.ops.layers import LSTM, Linear
from setexp.sets import SetBatch

_FLOOR = 1e-12


class ReadInOrder(nn.Module):
    """Proposals as rows of a box, projected features and an attention logit, read by an LSTM.

    Boxes are relative to the largest coordinate of their image. The order is learned of the rows as
    they are; what is read is weighted by the logits' logistic function (Thesis, A.2.4). Padding is
    neither compared nor read.

    Args:
        features: D. projected: features that are kept of them, P. width: of the LSTM, H.
        permute: sets of rows (B, N, P + 5) to assignments (B, N, N); null: read as they come.

    Shapes: features (B, N, D), boxes (B, N, 4), zeros where there is padding, logits (B, G, N) and
    mask (B, N) to the last cell states (B, G, H).

    Raises:
        ValueError: an order that takes padding for elements.
    """

    def __init__(
        self,
        *,
        features: int,
        projected: int,
        width: int,
        permute: PermutationOptimisation | None,
    ) -> None:
        super().__init__()
        if permute is not None and not permute.masked:
            raise ValueError("permute.masked=false: sets of proposals are padded; set it to true")
        self.project, self.permute, self.width = Linear(features, projected), permute, width
        self.lstm = LSTM(projected + 5, width)

    def forward(self, x: Tensor, boxes: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        boxes = boxes / boxes.amax((-2, -1), keepdim=True).clamp(min=_FLOOR)
        common = torch.cat([boxes, self.project(x)], dim=-1).unsqueeze(1)
        present = mask.unsqueeze(1).expand_as(logits)
        logits = torch.where(present > 0, logits, 0).unsqueeze(-1)  # -inf times 0 is no number
        common = common.expand(*logits.shape[:-1], -1)
        rows = torch.cat([common, logits], dim=-1) * present.unsqueeze(-1)
        rows, weight, present = (t.flatten(0, 1) for t in (rows, logits.sigmoid(), present))
        read = rows * weight
        if self.permute is not None:
            read = self.permute(SetBatch(rows, present)).mT @ read
            # those that are there have the first positions
            place = torch.arange(present.shape[-1], device=present.device)
            present = (place < present.sum(-1, keepdim=True)).to(present.dtype)
        return self.lstm.last_cell(read, present).unflatten(0, logits.shape[:2])
