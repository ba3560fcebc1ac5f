"""Accuracy on kinds of questions, and on pairs whose answers differ (Thesis, 3.5.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from setexp.ops.votes import KINDS

_PAIRED = ("number", "count", "all")


class QuestionAccuracy:
    """Mean accuracy of all answered questions of a split, and of some kinds.

    A pair counts as right if both accuracies are exactly 1, and is of a kind if both questions are.
    Names are accuracy_yes_no, _number, _other, _count, _all, and pair_number, _count, _all; a kind
    that no question or pair is of has none.

    Arguments: per question, (Q,): accuracy, kind (-1 where nobody answered), counting (0 or 1),
    question_id; and partner (Q, K), the question_ids of complementary questions, or -1.
    """

    def __call__(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        kind, answered = stats["kind"], stats["kind"] >= 0
        of = {name.replace("/", "_"): kind == place for place, name in enumerate(KINDS)}
        of |= {"count": answered & (stats["counting"] == 1), "all": answered}
        accuracy = stats["accuracy"].double()
        found = {f"accuracy_{name}": accuracy[rows] for name, rows in of.items()}
        first, second = pairs(stats["question_id"], stats["partner"])
        right = (accuracy[first] == 1) & (accuracy[second] == 1)
        found |= {
            f"pair_{name}": right[of[name][first] & of[name][second]].double() for name in _PAIRED
        }
        return {name: float(values.mean()) for name, values in found.items() if len(values)}


def pairs(question_id: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Places of both questions of each pair, once: (Q,) and (Q, K) to (P,) and (P,)."""
    ordered, place = question_id.sort()
    near = torch.searchsorted(ordered, partner).clamp(max=len(ordered) - 1)
    there = (ordered[near] == partner) & (question_id.unsqueeze(-1) < partner)
    first, column = there.nonzero(as_tuple=True)
    return first, place[near[first, column]]
