"""Slot Attention: slots compete for the elements of an encoding (Locatello et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from setexp.ops.layers import MLP, GRUCell, Linear
from setexp.sets import Encoding, SetBatch


class SlotAttention(nn.Module):
    """Attend, update all slots alike, repeat; then read an element off each slot.

    Args:
        initial: slots to start from, see `setexp.decoders.initial`.
        features: of the encoding's elements.
        slot: features of a slot.
        hidden: width of the residual MLP's hidden layer.
        iterations: T, part of the model: `steps` of the call does not change it.
        epsilon: added to every weight before the weights of a slot are made to add up to 1.
        norm_epsilon: of the layer norms.
        head: slots to elements.

    Shapes: elements (B, M, features) of an encoding to x (T, B, N, D), mask (T, B, N), after each
    iteration.
    """

    def __init__(
        self,
        *,
        initial: nn.Module,
        features: int,
        slot: int,
        hidden: int,
        iterations: int,
        epsilon: float,
        norm_epsilon: float,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.initial, self.head = initial, head
        self.iterations, self.epsilon = iterations, epsilon
        self.norm_features = nn.LayerNorm(features, eps=norm_epsilon)
        self.norm_slots = nn.LayerNorm(slot, eps=norm_epsilon)
        self.norm_update = nn.LayerNorm(slot, eps=norm_epsilon)
        self.query = Linear(slot, slot, bias=False)
        self.key = Linear(features, slot, bias=False)
        self.value = Linear(features, slot, bias=False)
        self.cell = GRUCell(slot, slot)
        self.update = MLP([slot, hidden, slot])

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        x, mask = encoding.required_elements()
        x = self.norm_features(x)
        keys, values = self.key(x), self.value(x)
        slots = self.initial(encoding)
        after: list[Tensor] = []
        while len(after) < self.iterations:
            slots = self.cell(self.attention(slots, keys, mask) @ values, slots)
            slots = slots + self.update(self.norm_update(slots))
            after.append(slots)
        return self.head(torch.stack(after))

    def attention(self, slots: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Each slot's weights of the elements: (B, N, slot) and (B, M, slot) to (B, N, M).

        Slots share an element, softly; then a slot's shares are made to add up to 1.
        """
        queries = self.query(self.norm_slots(slots)) * slots.shape[-1] ** -0.5
        shares = (queries @ keys.mT).softmax(-2) + self.epsilon
        shares = shares * mask.unsqueeze(-2)
        return shares / shares.sum(-1, keepdim=True)
