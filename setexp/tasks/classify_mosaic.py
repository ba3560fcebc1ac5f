"""Put the tiles of an image in order, told only what the image shows (Thesis, 4.4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from torch import Tensor, nn

from setexp.ops.tiles import assemble
from setexp.sets import Batch, SetBatch
from setexp.tasks.outcome import Outcome


class Norm(Enum):
    """How batch normalisation of a frozen classifier works while the rest is trained.

    train: by the statistics of each batch, and its running averages go on (the authors' code).
    eval: it is frozen as well (the text).
    """

    train = "train"
    eval = "eval"


class ClassifyMosaic(nn.Module):
    """Assemble an image from softly assigned tiles and classify it.

    With tiles in their places and an encoder that leaves them there, it trains the classifier.

    Args:
        encoder: `SetBatch` to assignments (B, N, N).
        classifier: images (B, C, H, W) to logits. loss: logits and labels to (B,).
        per_side: tiles per side. size: (C, h, w) of a tile.
        norm: see `Norm`; matters where the classifier's weights are frozen.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        classifier: nn.Module,
        loss: nn.Module,
        per_side: int,
        size: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        self.encoder, self.classifier, self.loss = encoder, classifier, loss
        self.per_side, self.size, self.norm = per_side, tuple(size), Norm(norm)

    def train(self, mode: bool = True) -> ClassifyMosaic:
        super().train(mode)
        if self.norm is Norm.eval:
            self.classifier.eval()
        return self

    def forward(self, batch: Batch, steps: int | None = None) -> Outcome:
        assignment = self.encoder(batch.input, steps)
        tiles: Tensor = assignment.mT @ batch.input.x
        logits = self.classifier(assemble(tiles, self.per_side, self.size))
        label = batch.aux["label"]
        stats = {
            "accuracy": (logits.argmax(-1) == label).to(tiles.dtype),
            "mse": (tiles - batch.target.x).square().mean((-2, -1)),
        }
        prediction = SetBatch(tiles.unsqueeze(0), batch.target.mask.unsqueeze(0))
        return Outcome(self.loss(logits, label), prediction, stats)
