"""Set prediction from a feature vector, of an image for example (Thesis, 6.3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class Predict(nn.Module):
    """Encode the input, decode a set, compare with the target set.

    Args:
        encoder: input to `Encoding`. decoder: `Encoding` to predicted sets. loss: per set.
        representation_weight: weight of the Huber loss between the input's encoding and that of
            the target set by the decoder's own set encoder (Thesis, Eq. 6.13); 0 for decoders
            without one. Gradients flow into both encodings.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        loss: nn.Module,
        representation_weight: float,
    ) -> None:
        super().__init__()
        if representation_weight < 0:
            raise ValueError(f"representation_weight={representation_weight}: at least 0")
        self.encoder, self.decoder, self.loss = encoder, decoder, loss
        self.representation_weight = representation_weight

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        encoding = self.encoder(batch.input)
        prediction = self.decoder(encoding, steps=steps)
        loss = self.loss(prediction, batch.target)
        stats = {"set_loss": loss}
        if self.representation_weight:
            z = self.decoder.get_submodule("set_encoder")(batch.target).z
            distance = F.smooth_l1_loss(encoding.z, z, reduction="none").mean(-1)
            stats["representation_loss"] = distance
            loss = loss + self.representation_weight * distance
        return Outcome(loss, prediction, stats)
