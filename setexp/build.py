"""From plain config nodes to objects: every node is checked against its constructor first.

A node is a mapping with `_target_`, the dotted name of a class of this project; its other keys are
the constructor's arguments. Values live in YAML, types in Python: keys and types are compared with
the signature before anything is built, and all mistakes are reported together.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Collection
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from setexp.errors import ConfigError


def check(node: Any, path: str, commanded: Collection[str] | None = None) -> list[str]:
    """All mistakes of a node and the nodes within it, one sentence each.

    Args:
        commanded: keys that the command itself sets; of others that are unknown, the sentence says
            how to be rid of them. None where there is no command.
    """
    if isinstance(node, list):
        items = [(item, f"{path}[{i}]") for i, item in enumerate(node)]
        return [m for item, place in items for m in check(item, place, commanded)]
    if not isinstance(node, dict):
        return []
    below = [m for k, value in node.items() for m in check(value, _below(path, k), commanded)]
    if "_target_" not in node:
        return below
    try:
        signature = _signature(_locate(node["_target_"], path))
    except ConfigError as error:
        return [str(error), *below]
    name = node["_target_"].split(".")[-1]
    # "???" is what the config leaves to an experiment
    given = {key: value for key, value in node.items() if key != "_target_" and value != "???"}
    unknown, ill = [], []
    for key, value in given.items():
        place = _below(path, key)
        if key not in signature:
            takes = ", ".join(signature)
            rid = f"; the experiment sets it, leave it out with '~{place}'"
            own = commanded is None or place in commanded
            unknown.append(f"{place}: unknown key; {name} takes {takes}{'' if own else rid}")
            continue
        try:
            _convert(value, signature[key][0])
        except ConfigError as error:
            ill.append(f"{place}={'null' if value is None else repr(value)}: {error}")
    missing = [
        f"{_below(path, key)}: missing; {name} needs it"
        for key, (_, required) in signature.items()
        if required and key not in given
    ]
    return unknown + missing + sorted(ill) + below


def build(node: Any, path: str = "") -> Any:
    """The object a checked node describes; plain values and containers come back as they are.

    Raises:
        ConfigError: the constructor refuses its arguments.
    """
    if isinstance(node, list):
        return [build(item, f"{path}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    built = {k: build(v, _below(path, k)) for k, v in node.items() if k != "_target_"}
    if "_target_" not in node:
        return built
    signature = _signature(target := _locate(node["_target_"], path))
    arguments = {k: _convert(v, signature[k][0]) for k, v in built.items()}
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except (ValueError, RuntimeError, ArithmeticError) as error:  # of PyTorch: sizes that cannot be
        said = " ".join(str(error).split())
        joint = "." if said.partition("=")[0] in signature else ": "  # "steps=-1: at least 0"
        raise ConfigError(f"{path}{joint}{said}") from error


def _below(path: str, key: str) -> str:
    """Where a command sets a node's argument: parts of a task are sections of their own."""
    own = path == "task" and key in ("encoder", "decoder", "loss")
    return key if own else f"{path}.{key}"


def _locate(name: str, path: str) -> Any:
    module, _, attribute = str(name).rpartition(".")
    if not module.startswith("setexp."):
        raise ConfigError(f"{path}._target_={name}: only classes of setexp may be named here")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}._target_={name}: {error}") from None
    if not inspect.isclass(found) or not found.__module__.startswith("setexp."):
        raise ConfigError(f"{path}._target_={name}: only classes of setexp may be named here")
    return found


def _signature(target: Any) -> dict[str, tuple[Any, bool]]:
    """Arguments of a constructor: their type, and whether they must be given."""
    if issubclass(target, tuple):  # a NamedTuple has no constructor but its fields
        hints = typing.get_type_hints(target)
    else:
        hints = typing.get_type_hints(target.__init__)
    parameters = inspect.signature(target).parameters.values()
    return {
        p.name: (hints.get(p.name, Any), p.default is p.empty)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }


def _convert(value: Any, hint: Any) -> Any:
    """A value as its type asks: enums from names, numbers checked; objects are left alone."""
    null = value is None and type(None) in _members(hint)
    if _is_part(hint) and not null and isinstance(value, int | float | str | list | None):
        raise ConfigError("a part is wanted here, a mapping with _target_")
    expected = _schema_type(hint)
    if expected is None or type(value) is expected or (value is not None and _is_built(value)):
        return value
    try:
        config = OmegaConf.merge(_holder(expected), {"value": value})
        return OmegaConf.to_container(config)["value"]  # type: ignore[index, call-overload]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{str(error).splitlines()[0]}") from None


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of another type, itself alone."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def _is_part(hint: Any) -> bool:
    """Whether a type says that another node is built first: modules, and classes of this project.

    One that may be null is a part as well.
    """
    return all(
        inspect.isclass(one)
        and not issubclass(one, enum.Enum)
        and one.__module__.startswith(("setexp.", "torch.nn."))
        for one in _members(hint)
        if one is not type(None)
    )


@functools.cache
def _holder(expected: Any) -> Any:
    """A config whose one value has a type."""
    return OmegaConf.structured(dataclasses.make_dataclass("Holder", [("value", expected)]))


def _schema_type(hint: Any) -> Any:
    """The part of a type that OmegaConf can check; None for objects, which it cannot."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if len(members := _members(hint)) > 1:
        inner = [_schema_type(a) for a in members if a is not type(None)]
        return None if None in inner or len(inner) != 1 else inner[0] | None
    if origin in (list, collections.abc.Sequence):
        inner_type = _schema_type(arguments[0])
        return None if inner_type is None else list[inner_type]  # type: ignore[valid-type]
    if hint in (int, float, bool, str) or (inspect.isclass(hint) and issubclass(hint, enum.Enum)):
        return hint
    return None


def _is_built(value: Any) -> bool:
    return not isinstance(value, int | float | str | bool | list | dict | enum.Enum)
