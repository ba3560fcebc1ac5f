"""The equations written down plainly: what a first implementation would look like.

It is the other column of `bench.py` and the oracle of `tests/test_reference.py`. Nothing here is
clever: the relaxed sort holds its permutation matrices, a relation network concatenates all pairs,
the inner loop of DSPN is `autograd.grad(create_graph=True)`, losses build the whole table of
pairwise costs with its gradient, matching loops over sets, polygons are drawn one by one and
collated.

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
    """Position weights (C, 21), interpolated linearly at j / (n - 1) (Thesis, Eq. 5.6-5.8)."""

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


class LearnedSet(nn.Module):
    """One learned set with its mask for all samples."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.rand(n, d))
        self.mask = nn.Parameter(torch.full((n, 1), 0.5))

    def forward(self, z: Tensor) -> PointSet:
        mask = self.mask.squeeze(1).clamp(0, 1)
        return self.x.expand(len(z), -1, -1), mask.expand(len(z), -1)


class DSPN(nn.Module):
    """Gradient descent on a set (Thesis, Algorithm 6.1); the objective is a mean over the batch."""

    def __init__(
        self, n: int, d: int, steps: int, step_size: float, set_encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.set_encoder = set_encoder
        self.initial = LearnedSet(n, d)
        self.steps, self.step_size = steps, step_size

    def forward(self, encoded: Pooled, mask: Tensor, encode: nn.Module) -> list[PointSet]:
        encode = self.set_encoder if self.set_encoder is not None else encode
        z = encoded[0]
        x, mask = self.initial(z)
        sets = [(x, mask)]
        for _ in range(self.steps):
            distance = F.smooth_l1_loss(encode((x, mask))[0], z)
            slope_x, slope_mask = torch.autograd.grad(distance, (x, mask), create_graph=True)
            x = x - self.step_size * slope_x
            mask = (mask - self.step_size * slope_mask).clamp(0, 1)
            sets.append((x, mask))
        return sets


class LearnedRows(nn.Module):
    """One learned set for all samples."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.randn(n, d) * 0.1)

    def forward(self, z: Tensor) -> Tensor:
        return self.x.expand(len(z), -1, -1)


class NoiseRows(nn.Module):
    """Noise, fresh for every sample and pass."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__()
        self.shape = (n, d)

    def forward(self, z: Tensor) -> Tensor:
        return torch.randn(len(z), *self.shape, device=z.device) * 0.1


def project_simplex(x: Tensor) -> Tensor:
    """Nearest point of the unit simplex for each row, (..., F)."""
    ordered = x.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device)
    levels = (ordered.cumsum(-1) - 1) / count
    support = (ordered > levels).sum(-1, keepdim=True)
    return (x - levels.gather(-1, support - 1)).clamp(min=0)


class IDSPN(nn.Module):
    """Descent without a graph, differentiated at the last set alone (iDSPN, Eq. 9 and 10).

    Args:
        set_encoder: what is inverted; sees `known` features behind the rows, if there are any.
        initial: rows to start from. steps: their number. regulariser: pull towards the start.
        clip: largest norm of a set's slope. simplex: rows stay on the simplex.
    """

    def __init__(
        self,
        set_encoder: nn.Module,
        initial: nn.Module,
        steps: int,
        regulariser: float = 0.0,
        clip: float | None = None,
        simplex: bool = False,
    ) -> None:
        super().__init__()
        self.set_encoder, self.initial, self.steps = set_encoder, initial, steps
        self.regulariser, self.clip, self.simplex = regulariser, clip, simplex

    def project(self, x: Tensor) -> Tensor:
        return project_simplex(x) if self.simplex else x

    def forward(
        self, encoded: Pooled, mask: Tensor, encode: nn.Module, known: Tensor | None = None
    ) -> list[PointSet]:
        z = encoded[0]
        start = self.initial(z)
        x, velocity = self.project(start).detach(), None
        for step in range(self.steps):
            x.requires_grad_()
            rows = x if known is None else torch.cat([x, known], dim=2)
            objective = 0.5 * (self.set_encoder((rows, mask))[0] - z).square().mean(1).sum()
            pull = (x - start).square().mean((1, 2)).sum()
            objective = objective + 0.5 * self.regulariser * pull
            last = step + 1 == self.steps
            (slope,) = torch.autograd.grad(objective, x, create_graph=last)
            if last:
                direction = self.project(x.detach() - slope) - x.detach()
            clipped = slope.detach()
            if self.clip is not None:
                norm = clipped.norm(dim=(1, 2), keepdim=True)
                clipped = clipped * (self.clip / (norm + 1e-6)).clamp(max=1)
            velocity = clipped if velocity is None else 0.9 * velocity + clipped
            x = self.project(x.detach() - clipped - 0.9 * velocity)
        return [(x + direction - direction.detach(), mask)]


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


class Numbering(nn.Module):
    """Encoder and decoder of class-specific numbering: the batch's mean loss (iDSPN, F.1)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, classes: Tensor, target: PointSet) -> Tensor:
        rows, mask = target
        k = classes.shape[2]
        encoded = self.encoder((classes, mask))
        numbers = self.decoder(encoded, mask, self.encoder, classes)[-1][0]
        losses = []
        for found, true, one in zip(numbers, rows[:, :, k:], classes, strict=True):
            costs = (found.unsqueeze(1) - true.unsqueeze(0)).norm(dim=2)
            apart = 1000 * (one.argmax(1).unsqueeze(1) != one.argmax(1).unsqueeze(0))
            matched = linear_sum_assignment((costs + apart).detach().cpu().numpy())
            losses.append(costs[matched].mean())
        return torch.stack(losses).mean()


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


class PairCost(nn.Module):
    """F of all pairs: an MLP on their concatenated features, minus its transpose."""

    def __init__(self, features: int, hidden: int, axes: int) -> None:
        super().__init__()
        self.pair = nn.Linear(2 * features, hidden)
        self.score = nn.Linear(hidden, axes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        first, second = x.unsqueeze(2).expand(-1, n, n, -1), x.unsqueeze(1).expand(-1, n, n, -1)
        f = self.score(self.pair(torch.cat([first, second], -1)).relu()).movedim(-1, 1)
        return f - f.mT


class Tiles(nn.Module):
    """A convolution, ReLU and pooling of every tile."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.shape = (channels, side, side)
        self.convolution = nn.Conv2d(channels, width, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        tiles = x.flatten(0, 1).unflatten(1, self.shape)
        return F.max_pool2d(self.convolution(tiles).relu(), 2).flatten(1).unflatten(0, x.shape[:2])


def sinkhorn(logits: Tensor, rounds: int) -> Tensor:
    """Softmax, then rows and columns divided by their sums, every matrix kept."""
    p = logits.softmax(-1)
    for _ in range(rounds):
        p = p / p.sum(-1, keepdim=True).clamp(min=1e-12)
        p = p / p.sum(-2, keepdim=True).clamp(min=1e-12)
    return p


class Permutation(nn.Module):
    """Permutation-optimisation from a uniform assignment on a lattice: x (B, N, D) in order."""

    def __init__(
        self, elements: nn.Module, cost: PairCost, shape: Sequence[int], steps: int, rounds: int
    ) -> None:
        super().__init__()
        self.elements, self.cost = elements, cost
        self.shape, self.steps, self.rounds = shape, steps, rounds
        self.step_size = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        cost = self.cost(self.elements(x))
        cost = cost / cost.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-10)
        logits = x.new_zeros(len(x), x.shape[1], x.shape[1])
        for _ in range(self.steps):
            lattice = sinkhorn(logits, self.rounds).unflatten(-1, self.shape)
            gradient = torch.zeros_like(logits)
            for axis in range(len(self.shape)):
                until = lattice.cumsum(axis + 2)
                after = lattice.sum(axis + 2, keepdim=True) - until
                before = until - lattice
                gradient = gradient + 2 * cost[:, axis] @ (after - before).flatten(2)
            logits = logits - self.step_size.abs() * gradient
        return sinkhorn(logits, self.rounds).mT @ x


class Permuting(nn.Module):
    """The mean squared error of the elements in order."""

    def __init__(self, encoder: Permutation) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, given: Tensor, target: Tensor) -> Tensor:
        return (self.encoder(given) - target).square().mean()


class Unsorted(Dataset):
    """Sets of n random numbers with the same in order, drawn one at a time."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size = n, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(self.n, 1)
        return x, x.sort(0).values


class Puzzles(Dataset):
    """Images (B, C, S, S) of bytes cut into shuffled tiles, with those in order, one at a time."""

    def __init__(self, images: Tensor, per_side: int, mean: float, std: float) -> None:
        self.images, self.per_side, self.mean, self.std = images, per_side, mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index].float()
        side = -(-image.shape[-1] // self.per_side)
        size = [side * self.per_side] * 2
        if image.shape[-1] != size[0]:
            image = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
        image = (image.round() / 255 - self.mean) / self.std
        columns = image.split(side, -1)
        tiles = torch.stack([t.flatten() for c in columns for t in c.split(side, -2)])
        return tiles[torch.randperm(len(tiles))], tiles


class Piecewise(nn.Module):
    """Monotone function of [0, 1] with 16 pieces (Thesis, Eq. 3.1)."""

    def __init__(self, pieces: int = 16) -> None:
        super().__init__()
        self.pieces = pieces
        self.weight = nn.Parameter(torch.ones(pieces))

    def forward(self, x: Tensor) -> Tensor:
        slope = self.weight.abs() / self.weight.abs().sum()
        height = F.pad(slope.cumsum(0), (1, 0))
        left = (x * self.pieces).long().clamp(max=self.pieces - 1)
        return height[left] + (x * self.pieces - left) * slope[left]


def box_iou(boxes: Tensor, eps: float = 0.0) -> Tensor:
    """IoU of all pairs of boxes (B, N, 4), (B, N, N)."""
    a, b = boxes.unsqueeze(2), boxes.unsqueeze(1)
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = sides.clamp(min=0).prod(3)
    areas = [(box[..., 2:] - box[..., :2]).prod(3) for box in (a, b)]
    return intersection / (areas[0] + areas[1] - intersection + eps)


class Counting(nn.Module):
    """Counting module on whole matrices (Thesis, Eq. 3.2-3.12), proposals in any order."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.f = n, nn.ModuleList(Piecewise() for _ in range(8))

    def forward(self, boxes: Tensor, a: Tensor) -> Tensor:
        f1, f2, f3, f4, f5, f6, f7, f8 = self.f
        A, D = a.unsqueeze(2) * a.unsqueeze(1), 1 - box_iou(boxes, 1e-12)
        X = f4(A) * f5(D)
        rows = f3(1 - (X.unsqueeze(2) - X.unsqueeze(1)).abs()).prod(3)
        similar = f3(1 - (a.unsqueeze(2) - a.unsqueeze(1)).abs()) * rows
        s = 1 / similar.sum(2)
        C = f1(A) * f2(D) * s.unsqueeze(2) * s.unsqueeze(1)
        count = (C.sum((1, 2)) + (s * f1(a * a)).sum(1) + 1e-20).sqrt()
        sure = (f6(a) - 0.5).abs().mean(1) + (f7(D) - 0.5).abs().mean((1, 2))
        classes = torch.arange(self.n + 1, device=a.device)
        one_hot = (1 - (count.clamp(max=self.n).unsqueeze(1) - classes).abs()).clamp(min=0)
        return f8(sure).unsqueeze(1) * one_hot


class Counter(nn.Module):
    """Counting module and one linear map: the batch's mean cross-entropy."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.count, self.linear = Counting(n), nn.Linear(n + 1, n + 1)
        nn.init.eye_(self.linear.weight)

    def forward(self, given: PointSet, label: Tensor) -> Tensor:
        return F.cross_entropy(self.linear(self.count(*given)), label)


class Squares(Dataset):
    """Squares, their weights and the number of true ones, one sample at a time (Thesis, 3.5.1)."""

    def __init__(self, n: int, side: float, noise: float, size: int) -> None:
        self.n, self.side, self.noise, self.size = n, side, noise, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        corner = torch.rand(self.n, 2) * (1 - self.side)
        boxes = torch.cat([corner, corner + self.side], dim=1)
        count = int(torch.randint(self.n + 1, ()))
        overlap = box_iou(boxes.unsqueeze(0))[0, :, :count]
        score = overlap.max(1).values if count else torch.zeros(self.n)
        weight = (1 - self.noise) * score + self.noise * torch.rand(self.n)
        return boxes, weight, torch.tensor(count)


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
