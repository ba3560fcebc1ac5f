"""A found question as a program in the official words."""

from __future__ import annotations

from collections.abc import Sequence

from setexp.datasets.clevr.questions.families import CHOICES, Family
from setexp.datasets.clevr.questions.program import ATTRIBUTES, RELATIONS, VALUES, Node
from setexp.datasets.clevr.questions.view import PHRASES

_PHRASES = PHRASES.tolist()


def program(family: Family, codes: Sequence[int]) -> list[Node]:
    """Nodes of a question, inputs first, as the official files have them.

    Args:
        family: of the question.
        codes: of each choice, 324 * relation + phrase.
    """
    nodes: list[Node] = []
    stack: list[int] = []

    def add(function: str, *inputs: int, words: Sequence[str] = ()) -> int:
        nodes.append({"inputs": list(inputs), "function": function, "value_inputs": list(words)})
        return len(nodes) - 1

    remaining = iter(codes)
    for step in family.steps:
        kind, _, what = step.partition(" ")
        if kind in CHOICES:
            relation, phrase = divmod(next(remaining), len(_PHRASES))
            if kind in ("one", "some"):
                top = add("scene")
            elif kind == "both":
                second, first = stack.pop(), stack.pop()
                top = add("intersect", first, second)
            else:
                top = stack.pop()
            if kind in ("to", "beside"):
                top = add("relate", top, words=[RELATIONS[relation]])
            for attribute, value in zip(ATTRIBUTES, _PHRASES[phrase], strict=True):
                if value:
                    words = [VALUES[attribute][value - 1]]
                    top = add(f"filter_{attribute}", top, words=words)
            stack.append(add("unique", top) if step.endswith("one") else top)
        elif kind in ("same", "query"):
            stack.append(add(f"{kind}_{what}", stack.pop()))
        elif kind in ("count", "exist"):
            stack.append(add(kind, stack.pop()))
        else:
            second, first = stack.pop(), stack.pop()
            if kind == "or":
                stack.append(add("union", first, second))
                continue
            before = f"query_{what}" if kind == "equal" else "count"
            first, second = add(before, first), add(before, second)
            stack.append(add(f"equal_{what}" if kind == "equal" else kind, first, second))
    return nodes
