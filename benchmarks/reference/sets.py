"""Sets in and out as a first implementation would have them: the equations written down plainly.

This folder is the other column of `bench.py` and the oracle of the tests. Nothing here is clever:
the relaxed sort holds its permutation matrices, a relation network concatenates all pairs, losses
build the whole table of pairwise costs with its gradient, matching loops over sets, data are drawn
one by one and collated.

Parameters have the names of `setexp`'s modules, so a state dict of one fits the other. Sets are
pairs (x, mask) of tensors (B, N, D) and (B, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

PointSet = tuple[Tensor, Tensor]
Pooled = tuple[Tensor, Tensor | None]
Cost = Callable[[Tensor, Tensor], Tensor]


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, Xavier uniform, biases zero."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        linear = nn.Linear(wide, narrow)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Weights(nn.Module):
    """Position weights (C, 21), interpolated linearly at j / (n - 1) (Thesis, Eq. 5.6-5.7)."""

    def __init__(self, features: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.weight = nn.Parameter(torch.randn(features, pieces + 1))

    def forward(self, mask: Tensor) -> Tensor:
        """Weights (B, C, N) at the sizes of mask (B, N), zero beyond them."""
        size = mask.sum(1, keepdim=True)
        position = torch.arange(mask.shape[1], device=mask.device, dtype=mask.dtype).unsqueeze(0)
        ratio = (position / (size - 1).clamp(min=1)).clamp(max=1) * self.pieces
        left = ratio.floor().long()
        right = (left + 1).clamp(max=self.pieces)
        share = (ratio - left).unsqueeze(1)
        index = [i.unsqueeze(1).expand(-1, len(self.weight), -1) for i in (left, right)]
        table = self.weight.unsqueeze(0).expand(len(mask), -1, -1)
        weights = (1 - share) * table.gather(2, index[0]) + share * table.gather(2, index[1])
        return weights * (position < size).unsqueeze(1)


class FSPool(nn.Module):
    """Sort every feature, weighted sum over positions; hard, or NeuralSort with its matrices."""

    def __init__(self, features: int, pieces: int, masked: bool, relaxed: bool) -> None:
        super().__init__()
        self.weights = Weights(features, pieces)
        self.masked, self.relaxed = masked, relaxed

    def forward(self, x: Tensor, mask: Tensor) -> Pooled:
        if not self.masked:
            mask = torch.ones_like(mask)
        x = x.transpose(1, 2)
        if self.relaxed:
            permutation = neural_sort(x, mask)
            ordered = (permutation @ x.unsqueeze(3)).squeeze(3)
        else:
            permutation = None
            padded = x.masked_fill(mask.unsqueeze(1) == 0, -math.inf)
            ordered = padded.sort(dim=2, descending=True).values
            ordered = ordered.masked_fill(ordered == -math.inf, 0)
        return (ordered * self.weights(mask)).sum(2), permutation


class OwnWeights(nn.Module):
    """One weight for each of n positions, (C, n)."""

    def __init__(self, features: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, n) * n**-0.5)


class SortPool(nn.Module):
    """Sort every feature, smallest first, and sum with a weight per position (iDSPN)."""

    def __init__(self, features: int, n: int) -> None:
        super().__init__()
        self.weights = OwnWeights(features, n)

    def forward(self, x: Tensor, mask: Tensor) -> Pooled:
        return (x.transpose(1, 2).sort(dim=2).values * self.weights.weight).sum(2), None


def neural_sort(x: Tensor, mask: Tensor) -> Tensor:
    """Relaxed descending permutation matrices (B, C, N, N) of x (B, C, N), temperature 1."""
    n = x.shape[2]
    present = mask[:, None, None, :]
    distances = (x.unsqueeze(3) - x.unsqueeze(2)).abs() * present
    position = torch.arange(1, n + 1, device=x.device, dtype=x.dtype)
    slope = mask.sum(1, keepdim=True) + 1 - 2 * position
    score = slope[:, None, :, None] * x.unsqueeze(2) - distances.sum(3).unsqueeze(2)
    permutation = score.masked_fill(present == 0, -math.inf).softmax(3)
    return permutation.nan_to_num(0.0)  # rows of empty sets


class SumPool(nn.Module):
    """Sum over all rows."""

    def forward(self, x: Tensor, mask: Tensor) -> Pooled:
        return x.sum(1), None


class MaxPool(nn.Module):
    """Maximum over all rows."""

    def forward(self, x: Tensor, mask: Tensor) -> Pooled:
        return x.max(1).values, None


class Elements(nn.Module):
    """An MLP on every element."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.mlp = mlp(widths)

    def forward(self, x: Tensor, mask: Tensor) -> PointSet:
        return self.mlp(x), mask


class Pairs(nn.Module):
    """An MLP on every concatenated ordered pair of elements."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        whole = mlp([2 * widths[0], *widths[1:]])
        self.pair, self.rest = whole[0], nn.Sequential(*whole[1:])

    def forward(self, x: Tensor, mask: Tensor) -> PointSet:
        b, n, d = x.shape
        first = x.unsqueeze(2).expand(b, n, n, d)
        second = x.unsqueeze(1).expand(b, n, n, d)
        pairs = torch.cat([first, second], dim=3).view(b, n * n, 2 * d)
        both = (mask.unsqueeze(2) * mask.unsqueeze(1)).view(b, n * n)
        return self.rest(self.pair(pairs)), both


class Encoder(nn.Module):
    """Elements or pairs, pooling, head; the mask may be a feature, features divided by rows."""

    def __init__(
        self,
        elements: nn.Module,
        pooling: nn.Module,
        head: Sequence[int] = (),
        mask_channel: bool = False,
        divide: bool = False,
    ) -> None:
        super().__init__()
        self.elements, self.pooling, self.head = elements, pooling, mlp(head)
        self.mask_channel, self.divide = mask_channel, divide

    def forward(self, s: PointSet) -> Pooled:
        x, mask = s
        if self.mask_channel:
            x = torch.cat([x, mask.unsqueeze(2)], dim=2)
        x, mask = self.elements(x, mask)
        if self.divide:
            x = x / x.shape[1]
        pooled, permutation = self.pooling(x, mask)
        return self.head(pooled), permutation


class ImageEncoder(nn.Module):
    """ResNet34 without its end, two convolutions to a vector, Xavier uniform (Thesis, A.4)."""

    def __init__(self, latent: int) -> None:
        from torchvision.models import resnet34

        super().__init__()
        self.trunk = nn.Sequential(*list(resnet34(weights=None).children())[:-2])
        self.head = nn.Sequential(
            nn.Conv2d(512, latent, 3, stride=2, padding=1),
            nn.BatchNorm2d(latent),
            nn.Conv2d(latent, latent, 2),
        )

    def forward(self, images: Tensor) -> Pooled:
        return self.head(self.trunk(images)).flatten(1), None


class MLPDecoder(nn.Module):
    """Vector to all elements at once, all of them present."""

    def __init__(self, latent: int, hidden: Sequence[int], n: int, d: int) -> None:
        super().__init__()
        self.mlp, self.n, self.d = mlp([latent, *hidden, n * d]), n, d

    def forward(self, encoded: Pooled, mask: Tensor, encode: nn.Module) -> list[PointSet]:
        x = self.mlp(encoded[0]).view(-1, self.n, self.d)
        return [(x, torch.ones_like(mask))]


class FSUnpool(nn.Module):
    """Undo the encoder's relaxed sort (Thesis, 5.4.3)."""

    def __init__(
        self, latent: int, hidden: Sequence[int], element: Sequence[int], pieces: int, masked: bool
    ) -> None:
        super().__init__()
        self.vector = mlp([latent, *hidden])
        self.weights = Weights(hidden[-1], pieces)
        self.element = mlp([hidden[-1], *element])
        self.masked = masked

    def forward(self, encoded: Pooled, mask: Tensor, encode: nn.Module) -> list[PointSet]:
        z, permutation = encoded
        weights = self.weights(mask if self.masked else torch.ones_like(mask))
        ordered = self.vector(z).unsqueeze(2) * weights
        x = (permutation.transpose(2, 3) @ ordered.unsqueeze(3)).squeeze(3).transpose(1, 2)
        return [(self.element(x) * mask.unsqueeze(2), mask)]


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared difference, mean over features."""
    return (a - b).square().mean(-1)


def huber(a: Tensor, b: Tensor) -> Tensor:
    """Huber with threshold 1, mean over features."""
    return F.smooth_l1_loss(a, b, reduction="none").mean(-1)


def table(a: Tensor, b: Tensor, cost: Cost) -> Tensor:
    """All pairwise costs, (B, N, M)."""
    rows, columns = torch.broadcast_tensors(a.unsqueeze(2), b.unsqueeze(1))
    return cost(rows, columns)


def direct(a: Tensor, b: Tensor, cost: Cost) -> Tensor:
    """Rows in order, (B,)."""
    return cost(a, b).mean(1)


def chamfer(a: Tensor, b: Tensor, cost: Cost) -> Tensor:
    """Nearest rows, both directions added, (B,)."""
    costs = table(a, b, cost)
    return costs.min(2).values.mean(1) + costs.min(1).values.mean(1)


def hungarian(a: Tensor, b: Tensor, cost: Cost) -> Tensor:
    """Mean cost of the best matching, set by set, (B,)."""
    losses = []
    for costs in table(a, b, cost):
        rows, columns = linear_sum_assignment(costs.detach().cpu().numpy())
        losses.append(costs[rows, columns].mean())
    return torch.stack(losses)


class Task(nn.Module):
    """Encoder, decoder, loss: the batch's mean loss.

    Args:
        distance: `direct`, `chamfer` or `hungarian`. cost: `squared` or `huber`.
        all_steps: judge every inner step, or the last.
        mask_channel: the mask is a feature of the compared rows.
        representation: weight of the Huber loss between both encodings.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        distance: Callable[[Tensor, Tensor, Cost], Tensor],
        cost: Cost,
        all_steps: bool = False,
        mask_channel: bool = False,
        representation: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.distance, self.cost = distance, cost
        self.all_steps, self.mask_channel = all_steps, mask_channel
        self.representation = representation

    def forward(self, given: PointSet | Tensor, target: PointSet) -> Tensor:
        encoded = self.encoder(given)
        sets = self.decoder(encoded, target[1], self.encoder)
        sets = sets if self.all_steps else sets[-1:]
        losses = [self.distance(self.rows(s), self.rows(target), self.cost) for s in sets]
        loss = torch.stack(losses).mean(0)
        if self.representation:
            z, _ = self.decoder.set_encoder(target)
            loss = loss + self.representation * huber(encoded[0], z)
        return loss.mean()

    def rows(self, s: PointSet) -> Tensor:
        """What is compared: elements, or elements and mask."""
        x, mask = s
        return torch.cat([x, mask.unsqueeze(2)], dim=2) if self.mask_channel else x


class Polygons(Dataset):
    """Rotated regular polygons in random vertex order, drawn one at a time (Thesis, 5.6.1)."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> PointSet:
        if index >= self.size:
            raise IndexError(index)
        turn = torch.rand(()) * 2 * math.pi
        direction = turn + torch.arange(self.n) * (2 * math.pi / self.n)
        x = torch.stack([direction.sin(), direction.cos()], dim=1)
        return x[torch.randperm(self.n)], torch.ones(self.n)


class Classifier(nn.Module):
    """Encoder and scores of classes: the batch's mean cross-entropy."""

    def __init__(self, encoder: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.mlp = encoder, mlp(widths)

    def forward(self, given: PointSet, label: Tensor) -> Tensor:
        return F.cross_entropy(self.mlp(self.encoder(given)[0]), label)


class Digits(Dataset):
    """Images (B, 28, 28) as padded sets of bright pixels in random order, one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, n: int = 342) -> None:
        self.images, self.labels, self.n = images, labels, n

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        bright = (self.images[index] / 255 > 0.1307).nonzero()
        points = bright[torch.randperm(len(bright))] / 27
        rest = self.n - len(points)
        return F.pad(points, (0, 0, 0, rest)), F.pad(torch.ones(len(points)), (0, rest)), \
            self.labels[index]  # fmt: skip


def loader(data: Dataset, batch_size: int) -> DataLoader:
    """Shuffled batches without the last incomplete one."""
    return DataLoader(data, batch_size, shuffle=True, drop_last=True)


def step(
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    given: PointSet | Tensor,
    target: PointSet | Tensor,
) -> Tensor:
    """One step; returns the loss."""
    optimizer.zero_grad()
    loss = task(given, target)
    loss.backward()
    optimizer.step()
    return loss.detach()
