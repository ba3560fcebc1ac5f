"""Featurewise sort pooling (Thesis, 5.4).

Every feature is sorted across the set; a weighted sum over positions is the pooled feature. The
weights are a piecewise linear function on [0, 1], read at the relative position of each element, so
that one set of parameters serves all set sizes (Eq. 5.6-5.7); or one weight per position where the
size is fixed (iDSPN).

The documents use four variants, all of them arguments here but for that of graphs, which is
`setexp.encoders.readout.FSPoolReadout`:

| where | n_pieces | init | descending | masked |
|---|---|---|---|---|
| auto-encoders, DSPN, SSLR | 20 | normal | yes | auto-encoders yes, DSPN and SSLR no |
| CLEVR questions | 20 | ones | yes | yes (times 12 afterwards) |
| graphs | 5 | ones | no | yes |
| iDSPN | none: one weight per position | kaiming | no | no |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.ops import hard_sort
from setexp.ops.position_weights import PositionWeights, WeightInit
from setexp.ops.sorting import RelaxedOrder, relaxed_order


class FSPool(nn.Module):
    """Sort each feature across the set and sum with learned position weights (Thesis, Eq. 5.5).

    Args:
        features: C.
        n_pieces, set_size, init: see `PositionWeights`. Paper: 20 weights; code: 20 pieces.
        descending: position 0 holds the largest element.
        masked: leave padded rows out; otherwise all rows take part with the weights of a full set.
        relaxed: sort softly (NeuralSort) and return the order for FSUnpool; always descending.
        legacy_singleton_mask: treat sets of size 0 and 1 as the first two rows, as the released
            code does.

    Shapes: features (B, N, C) and mask (B, N) to (B, C) and the relaxed order or None.
    """

    def __init__(
        self,
        *,
        features: int,
        n_pieces: int | None,
        set_size: int | None,
        init: WeightInit,
        descending: bool,
        masked: bool,
        relaxed: bool,
        legacy_singleton_mask: bool,
    ) -> None:
        super().__init__()
        if relaxed and not descending:
            raise ValueError("the relaxed sort is descending")
        if masked and n_pieces is None:
            raise ValueError("one weight per position has no meaning for sets of variable size")
        self.weights = PositionWeights(
            features=features, n_pieces=n_pieces, set_size=set_size, init=init
        )
        self.descending, self.masked, self.relaxed = descending, masked, relaxed
        self.homogeneous = not relaxed
        self.legacy_singleton_mask = legacy_singleton_mask

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, RelaxedOrder | None]:
        n, size = x.shape[-2], None
        if self.masked:
            size = mask.sum(-1, keepdim=True)
            if self.legacy_singleton_mask:
                size = size.clamp(min=2)
                mask = (torch.arange(n, device=x.device) < size).to(x.dtype)
        if self.relaxed:
            order = relaxed_order(x.mT, mask.unsqueeze(-2) if self.masked else None)
            return (x * order.to_elements(self.weights(n, size)).mT).sum(-2), order
        if size is not None:
            ordered = hard_sort.in_order(x, mask, descending=self.descending)
            return self.weights.pool(ordered, size), None
        # weights are carried to elements, which keep their place: inner gradients (DSPN) are these
        weights = hard_sort.to_elements(x, self.weights(n, None), descending=self.descending)
        return (x * weights).sum(-2), None
