"""Accuracy of an answer by how many of ten people gave it (Thesis, Eq. 3.13-3.14)."""

from __future__ import annotations

from torch import Tensor

PEOPLE = 10  # who answered each question
KINDS = ("yes/no", "number", "other")  # of questions, by their numbers


def agreement(votes: Tensor) -> Tensor:
    """What the official average over all nine of ten answers comes to: min(0.3 votes, 1)."""
    return (0.3 * votes).clamp(max=1)
