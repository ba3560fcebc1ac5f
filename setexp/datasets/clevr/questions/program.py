"""Programs of CLEVR questions, executed on scene descriptions (Johnson et al., 2017).

The executor reads official scenes and official programs and shares no code with the generator, so
that it can judge what the generator says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from setexp.datasets.clevr.vocabulary import COLORS, MATERIALS, MAX_OBJECTS, SHAPES, SIZES
from setexp.errors import ConfigError

# In the order in which the filters of one noun phrase come.
VALUES = {"size": SIZES, "color": COLORS, "material": MATERIALS, "shape": SHAPES}
ATTRIBUTES = tuple(VALUES)
RELATIONS = ("left", "right", "behind", "front")
NUMBERS = tuple(map(str, range(MAX_OBJECTS + 1)))
ANSWERS = ("no", "yes", *NUMBERS, *SIZES, *COLORS, *MATERIALS, *SHAPES)

Node = dict[str, Any]


def execute(program: Sequence[Node], scene: dict[str, Any]) -> str:
    """The answer of a program, its last node's value, as the official files word it.

    Args:
        program: nodes {function, inputs, value_inputs}, inputs before what reads them.
        scene: an entry of an official scene file.

    Raises:
        ConfigError: an unknown function, or `unique` of a set that has not exactly one object.
    """
    answer = evaluate(program, scene)[-1]
    return {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else str(answer)


def evaluate(program: Sequence[Node], scene: dict[str, Any]) -> list[Any]:
    """The values of all nodes; sets and objects are indices into the scene's objects."""
    values: list[Any] = []
    for node in program:
        name, inputs = node["function"], [values[i] for i in node["inputs"]]
        values.append(_evaluate(name, inputs, node["value_inputs"], scene))
    return values


def _evaluate(name: str, inputs: list[Any], words: list[str], scene: dict[str, Any]) -> Any:
    objects = scene["objects"]
    kind, _, attribute = name.partition("_")
    if kind == "filter":
        return {i for i in inputs[0] if objects[i][attribute] == words[0]}
    if kind == "query":
        return objects[inputs[0]][attribute]
    if kind == "same":
        (i,) = inputs
        same = {j for j, o in enumerate(objects) if o[attribute] == objects[i][attribute]}
        return same - {i}
    match name:
        case "scene":
            return set(range(len(objects)))
        case "unique":
            if len(inputs[0]) != 1:
                raise ConfigError(f"unique of {len(inputs[0])} objects; a phrase must name one")
            return next(iter(inputs[0]))
        case "relate":
            return set(scene["relationships"][words[0]][inputs[0]])
        case "union":
            return inputs[0] | inputs[1]
        case "intersect":
            return inputs[0] & inputs[1]
        case "count":
            return len(inputs[0])
        case "exist":
            return bool(inputs[0])
        case "less_than":
            return inputs[0] < inputs[1]
        case "greater_than":
            return inputs[0] > inputs[1]
    if kind == "equal":
        return inputs[0] == inputs[1]
    raise ConfigError(f"program function {name!r}: CLEVR has none of that name")
