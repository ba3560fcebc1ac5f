"""Overrides of a command: what they change about an experiment, which names its run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from setexp.errors import ConfigError
from setexp.explain import one_line
from setexp.report.records import axis_text
from setexp.training.settings import OPERATIONAL

# Overrides that change where or how a run happens, but not what it computes, rounding aside.
_OPERATIONAL = re.compile(
    r"^[+~]*(experiment|scale|seeds|table(\.points)?|rows|columns|run|mode|checkpoint|device|threads"
    r"|processes|restart|(figures|paths|tracking)(\..*)?|hydra[/.].*|"
    + "|".join(rf"{section}\.({'|'.join(keys)})" for section, keys in OPERATIONAL.items())
    + r")(@.*)?$"
)
# Of these, what says where data and runs are.
_PLACE = re.compile(r"paths\.\w+|dataset\.(root|source)")


def axes(overrides: list[str]) -> dict[str, Any]:
    """What a command changes about an experiment: {dotted key: value}, sorted by key.

    Raises:
        ConfigError: an override that Hydra cannot read.
    """
    return {key: value for key, (_, value) in _changes(overrides).items()}


def arguments(overrides: list[str]) -> list[str]:
    """The same as a command line has it."""
    return [
        f"~{key}" if sign == "~" else f"{sign}{key}={axis_text(value)}"
        for key, (sign, value) in _changes(overrides).items()
    ]


def places(overrides: list[str]) -> list[str]:
    """What a command says about where data and runs are, as a command line has it."""
    found = _parsed(overrides, lambda key: _PLACE.fullmatch(key))
    return [f"{key}={axis_text(value)}" for key, (_, value) in found.items()]


def _changes(overrides: list[str]) -> dict[str, tuple[str, Any]]:
    return _parsed(overrides, lambda key: not _OPERATIONAL.match(key))


def _parsed(overrides: list[str], wanted: Callable[[str], object]) -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {}
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError(f"{' '.join(overrides)}: {one_line(error)}") from None
    for override in parsed:
        key = override.key_or_group if override.package is None else override.get_key_element()
        if not wanted(key):
            continue
        if override.is_delete():
            found[key] = "~", None
            continue
        sign = "++" if override.is_force_add() else "+" if override.is_add() else ""
        value = OmegaConf.to_container(OmegaConf.create({"v": override.value()}))["v"]  # type: ignore[index, call-overload]
        found[key] = sign, value
    return dict(sorted(found.items()))
