"""The counting module as a first implementation would have it, on whole matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from reference.sets import PointSet


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
        if index >= self.size:
            raise IndexError(index)
        corner = torch.rand(self.n, 2) * (1 - self.side)
        boxes = torch.cat([corner, corner + self.side], dim=1)
        count = int(torch.randint(self.n + 1, ()))
        overlap = box_iou(boxes.unsqueeze(0))[0, :, :count]
        score = overlap.max(1).values if count else torch.zeros(self.n)
        weight = (1 - self.noise) * score + self.noise * torch.rand(self.n)
        return boxes, weight, torch.tensor(count)
