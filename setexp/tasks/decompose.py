"""A picture as a set of elements that nobody supervises, and back (SSLR, 3 and 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from setexp.ops.superposition import Superposition, superpose
from setexp.sets import Batch
from setexp.tasks.outcome import Outcome


class Decompose(nn.Module):
    """Encode an image, decode a latent set, show each element, compare what they add up to.

    Args:
        encoder: images to `Encoding`. decoder: `Encoding` to latent sets, of which the last counts.
        picture: elements (B, N, D) to unbounded pictures (B, N, 3, H, H).
        loss: a superposition, the picture `aux["picture"]` and the true objects, to (B,).
        measures: alike, by name, taken outside of training.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        picture: nn.Module,
        loss: nn.Module,
        measures: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.picture = encoder, decoder, picture
        self.loss, self.measures = loss, nn.ModuleDict(measures)

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        prediction = self.decoder(self.encoder(batch.input), steps=steps)
        truth = batch.aux["picture"], batch.target
        shown = self.show(prediction.x[-1])
        measures = {} if self.training else dict(self.measures.items())
        stats = {name: measure(shown, *truth) for name, measure in measures.items()}
        return Outcome(self.loss(shown, *truth), prediction, stats)

    def show(self, elements: Tensor) -> Superposition:
        """What latent elements (B, N, D) look like, together and one by one."""
        return superpose(self.picture(elements))
