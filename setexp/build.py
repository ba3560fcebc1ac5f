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
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from setexp.errors import ConfigError


def check(node: Any, path: str) -> list[str]:
    """All mistakes of a node and the nodes within it, one sentence each."""
    if isinstance(node, list):
        return [m for i, item in enumerate(node) for m in check(item, f"{path}[{i}]")]
    if not isinstance(node, dict):
        return []
    below = [m for key, value in node.items() for m in check(value, f"{path}.{key}")]
    if "_target_" not in node:
        return below
    try:
        signature = _signature(_locate(node["_target_"], path))
    except ConfigError as error:
        return [str(error), *below]
    # "???" is what the config leaves to an experiment
    given = {key: value for key, value in node.items() if key != "_target_" and value != "???"}
    unknown = [
        f"{path}.{key}: unknown key; {node['_target_'].split('.')[-1]} takes {', '.join(signature)}"
        for key in given
        if key not in signature
    ]
    missing = [
        f"{path}.{key}: missing; {node['_target_'].split('.')[-1]} needs it"
        for key, (_, required) in signature.items()
        if required and key not in given
    ]
    ill = []
    for key in given.keys() & signature.keys():
        try:
            _convert(given[key], signature[key][0])
        except ConfigError as error:
            ill.append(f"{path}.{key}={given[key]!r}: {error}")
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
    built = {k: build(v, f"{path}.{k}") for k, v in node.items() if k != "_target_"}
    if "_target_" not in node:
        return built
    target = _locate(node["_target_"], path)
    signature = _signature(target)
    arguments = {k: _convert(v, signature[k][0]) for k, v in built.items()}
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except (ValueError, RuntimeError, ArithmeticError) as error:  # of PyTorch: sizes that cannot be
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def _locate(name: str, path: str) -> Any:
    module, _, attribute = str(name).rpartition(".")
    if not module.startswith("setexp."):
        raise ConfigError(f"{path}._target_={name}: only classes of setexp may be named here")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}._target_={name}: {error}") from None


def _signature(target: Any) -> dict[str, tuple[Any, bool]]:
    """Arguments of a constructor: their type, and whether they must be given."""
    hints = typing.get_type_hints(target.__init__)
    parameters = list(inspect.signature(target.__init__).parameters.values())[1:]
    return {
        p.name: (hints.get(p.name, Any), p.default is p.empty)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }


def _convert(value: Any, hint: Any) -> Any:
    """A value as its type asks: enums from names, numbers checked; objects are left alone."""
    expected = _schema_type(hint)
    if expected is None or (value is not None and _is_built(value)):
        return value
    try:
        config = OmegaConf.merge(_holder(expected), {"value": value})
        return OmegaConf.to_container(config)["value"]  # type: ignore[index, call-overload]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{str(error).splitlines()[0]}") from None


@functools.cache
def _holder(expected: Any) -> Any:
    """A config whose one value has a type."""
    return OmegaConf.structured(dataclasses.make_dataclass("Holder", [("value", expected)]))


def _schema_type(hint: Any) -> Any:
    """The part of a type that OmegaConf can check; None for objects, which it cannot."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [_schema_type(a) for a in arguments if a is not type(None)]
        return None if None in inner or len(inner) != 1 else inner[0] | None
    if origin in (list, collections.abc.Sequence):
        inner_type = _schema_type(arguments[0])
        return None if inner_type is None else list[inner_type]  # type: ignore[valid-type]
    if hint in (int, float, bool, str) or (inspect.isclass(hint) and issubclass(hint, enum.Enum)):
        return hint
    return None


def _is_built(value: Any) -> bool:
    return not isinstance(value, int | float | str | bool | list | dict | enum.Enum)
