"""Two images of the same objects: how far did these move? (SSLR, 4.3)"""

from __future__ import annotations

from enum import Enum

from torch import nn

from setexp.ops.superposition import superpose
from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class SquaredError(Enum):
    """What "L2 error" counts: the squared error of a pair, which alone fits print; or the sum over
    a batch, as in the released code."""

    pair = "pair"
    batch = "batch"


class Match(nn.Module):
    """A latent set of each image, and a distance of the two sets.

    Args:
        encoder: images to `Encoding`. decoder: `Encoding` to latent sets, of which the last counts.
        distance: two sets to `setexp.decoders.set_distance.Distance`.
        picture, loss: as in `setexp.tasks.decompose`, for the first image; null for none.
        location_weight: of the squared error of the distance.
        attribute_weight: of the distance of matched attributes.
        l2_error: see `SquaredError`.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        distance: nn.Module,
        picture: nn.Module | None,
        loss: nn.Module | None,
        location_weight: float,
        attribute_weight: float,
        l2_error: SquaredError,
    ) -> None:
        super().__init__()
        if (picture is None) != (loss is None):
            raise ValueError("picture and loss belong together: give both, or neither")
        self.encoder, self.decoder, self.distance = encoder, decoder, distance
        self.picture, self.loss = picture, loss
        self.location_weight, self.attribute_weight = location_weight, attribute_weight
        self.l2_error = SquaredError(l2_error)

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        # one pass of all images, as in the released code: batch norm sees first and second alike
        encoding = self.encoder(batch.input.flatten(0, 1))
        elements = self.decoder(encoding, steps=steps).x[-1]
        first, second = elements.unflatten(0, (-1, 2)).unbind(1)
        distance, target = self.distance(first, second), batch.target
        error = (distance.location - target).square()
        loss = self.location_weight * error + self.attribute_weight * distance.attribute
        pairs = len(error) if self.l2_error is SquaredError.batch else 1
        relative = (distance.location - target).abs() / target
        stats = {"relative_error": relative, "l2_error": pairs * error}
        if self.picture is not None and self.loss is not None:
            shown = superpose(self.picture(first))
            stats["picture_loss"] = self.loss(shown, batch.input[:, 0])
            loss = loss + stats["picture_loss"]
        return Outcome(loss, None, stats)
