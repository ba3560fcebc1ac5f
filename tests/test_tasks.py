"""What tasks compare: always the target, whatever the input shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from setexp.sets import Batch, Encoding, SetBatch
from setexp.tasks.autoencode import AutoEncode
from setexp.tasks.decompose import Decompose


class AsElements(nn.Module):
    """What is given, as it is."""

    def forward(self, x: Any) -> Encoding:
        sets = x if isinstance(x, SetBatch) else SetBatch(x, torch.ones(x.shape[:2]))
        return Encoding(z=torch.zeros(len(x[0]), 0), elements=sets)


class Elements(nn.Module):
    """The encoded elements, after no step and after one."""

    def forward(self, encoding: Encoding, encode: Any = None, steps: Any = None) -> SetBatch:
        x, mask = encoding.elements
        return SetBatch(torch.stack([torch.zeros_like(x), x]), torch.stack([mask, mask]))


class Distance(nn.Module):
    """Squared distance of the last sets, or of pictures, to the truth."""

    def forward(self, found: Any, truth: Any, *_: Any) -> Tensor:
        if isinstance(found, SetBatch):
            found, truth = found.x[-1], truth.x
        else:
            found = found.picture
        return (found - truth).square().flatten(1).sum(-1)


def test_a_noisy_set_is_compared_with_the_clean_one() -> None:
    clean = SetBatch(torch.rand(3, 5, 2), torch.ones(3, 5))
    noise = torch.randn(3, 5, 2)
    noisy = SetBatch(clean.x + noise, clean.mask)
    task = AutoEncode(encoder=AsElements(), decoder=Elements(), loss=Distance())
    loss = task(Batch(input=noisy, target=clean, aux={})).loss
    torch.testing.assert_close(loss, noise.square().flatten(1).sum(-1))


class Pixels(nn.Module):
    """Elements (B, N, 3) as pictures of a pixel each."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (3, 1, 1))


def test_what_a_decomposed_image_is_compared_with_need_not_be_what_was_seen() -> None:
    seen, truth = torch.randn(2, 1, 3), torch.rand(2, 3, 1, 1)
    task = Decompose(
        encoder=AsElements(), decoder=Elements(), picture=Pixels(), loss=Distance(),
        measures={"distance": Distance()},
    ).eval()  # fmt: skip
    outcome = task(
        Batch(input=seen, target=SetBatch(seen, torch.ones(2, 1)), aux={"picture": truth})
    )
    shown = task.show(seen).picture
    expected = (shown - truth).square().flatten(1).sum(-1)
    torch.testing.assert_close(outcome.loss, expected)
    torch.testing.assert_close(outcome.stats["distance"], expected)
    assert task.train()(Batch(seen, None, {"picture": truth})).stats == {}
