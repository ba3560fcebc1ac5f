"""FSUnpool decoder: undo the encoder's featurewise sort (Thesis, 5.4.3, Eq. 5.8-5.9)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from setexp.ops.layers import MLP
from setexp.ops.position_weights import PositionWeights, WeightInit
from setexp.sets import Encoding, SetBatch


class FSUnpoolDecoder(nn.Module):
    """Spread a vector over positions by learned weights, then over elements by the stored order.

    Only for auto-encoders: the encoder's pooling must be a relaxed FSPool with as many features,
    and its set sizes are told to the decoder.

    Args:
        latent: L.
        hidden: widths of the MLP before unpooling; the last is the number of features C.
        element: widths of the element MLP after unpooling, without its input C.
        n_pieces, init: of the unpooling weights, which are not shared with the pooling's.
        masked: elements beyond each set's size get weight zero.

    Shapes: z (B, L), order of (B, C, N), mask (B, N) to x (1, B, N, D), mask (1, B, N).
    """

    def __init__(
        self,
        *,
        latent: int,
        hidden: Sequence[int],
        element: Sequence[int],
        n_pieces: int,
        init: WeightInit,
        masked: bool,
    ) -> None:
        super().__init__()
        features = hidden[-1]
        self.vector = MLP([latent, *hidden])
        self.weights = PositionWeights(
            features=features, n_pieces=n_pieces, set_size=None, init=init
        )
        self.element = MLP([features, *element])
        self.masked = masked

    def forward(self, encoding: Encoding, **_: object) -> SetBatch:
        assert encoding.order is not None, "needs a relaxed FSPool"
        mask = encoding.required_elements().mask
        size = mask.sum(-1, keepdim=True) if self.masked else None
        weights = self.weights(mask.shape[-1], size)
        code = self.vector(encoding.z).unsqueeze(-1)
        unpooled = encoding.order.to_elements(weights) * code
        x = self.element(unpooled.mT) * mask.unsqueeze(-1)
        return SetBatch(x.unsqueeze(0), mask.unsqueeze(0))
