"""Is every object a single element? (SSLR, A.2)"""

from __future__ import annotations

from enum import Enum

from torch import Tensor, nn

from setexp.ops.superposition import Superposition
from setexp.sets import SetBatch


class ElementImage(Enum):
    """An element's picture: weighted, as it is added up, or alone."""

    weighted = "weighted"
    alone = "alone"


class Disentangled(nn.Module):
    """1 where as many elements show something as there are objects (SSLR, Table 1).

    Args:
        threshold: an element with a larger value somewhere shows something.
        image: see `ElementImage`; the paper does not say which.

    Shapes: a superposition of N elements, the picture, objects with a mask (B, M), to (B,).
    """

    def __init__(self, *, threshold: float, image: ElementImage) -> None:
        super().__init__()
        self.threshold, self.image = threshold, ElementImage(image)

    def forward(self, shown: Superposition, picture: Tensor, objects: SetBatch) -> Tensor:
        pictures = shown.parts if self.image is ElementImage.weighted else shown.alone
        seen = pictures.flatten(2).amax(-1) > self.threshold
        return (seen.sum(-1) == objects.mask.sum(-1)).to(picture.dtype)
