"""What determines a run's numbers: the part of a config that two runs of one folder share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from setexp.training.settings import OPERATIONAL, Use

# Sections that determine a run's numbers, but for what is operational; the rest is where and how.
_SCIENCE = ("dataset", "encoder", "decoder", "loss", "task", "evaluation", "trainer")
# Settings that came later: with these values a run is what it was before.
_AS_BEFORE: dict[str, dict[str, Any]] = {
    "trainer": {
        "drop_last": True,
        "slice": None,
        "lr_max": None,
        "lr_part": None,
        "lr_part_factor": 1.0,
        "lr_warmup_epochs": 0,
        "milestones": [],
        "average_from": None,
    },
    "dataset": {"constant": True, "attributes": True, "pad_multiple": 1},
    "pretrained": {"overrides": []},
    "evaluation": {"curves": [], "double": False, "summaries": {}},
}


def science_of(nodes: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """What of a resolved config, and which data, determine a run's numbers; plain JSON values."""
    sections = list(_SCIENCE)
    sections += ["pretrained"] if nodes["pretrained"]["use"] is not Use.none else []
    sections += ["crossval"] if nodes["crossval"]["grid"] else []
    found = {section: _told(section, jsonable(nodes[section])) for section in sections}
    return found | {"data": fingerprint}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the science of two runs differs, "trainer.lr: 0.1 -> 0.2" each."""
    one, other = ({k: _told(k, v) for k, v in science.items()} for science in (before, now))
    return list(_differences(one, other, ""))


def jsonable(value: Any) -> Any:
    """Nested plain values, enums by their names."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [jsonable(v) for v in value]
    return getattr(value, "name", value)


def _told(section: str, node: Any) -> Any:
    """A section without operational settings, and without later ones at the value that changes
    nothing."""
    if not isinstance(node, dict):
        return node
    skipped, before = OPERATIONAL.get(section, ()), _AS_BEFORE.get(section, {})
    kept = {k: v for k, v in node.items() if k not in skipped}
    return {k: v for k, v in kept.items() if k not in before or v != before[k]}


def _differences(a: Any, b: Any, path: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    elif a != b:
        yield f"{path}: {a} -> {b}"
