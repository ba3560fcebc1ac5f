"""The config's closed sections, and what a run is called. `command_line`, `run` and `train.py` are
Hydra's other users."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from setexp.errors import ConfigError, listed
from setexp.report.records import axis_text
from setexp.training.settings import (
    OPERATIONAL,
    CrossValidation,
    Evaluation,
    Pretrained,
    Tracking,
    Trainer,
)

if TYPE_CHECKING:
    from setexp.report.tables import Run

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

# Overrides that change where or how a run happens, but not what it computes, rounding aside.
_OPERATIONAL = re.compile(
    r"^[+~]*(experiment|scale|seeds|table(\.points)?|rows|columns|run|mode|checkpoint|device|threads"
    r"|restart|(figures|paths|tracking)(\..*)?|hydra[/.].*|"
    + "|".join(rf"{section}\.({'|'.join(keys)})" for section, keys in OPERATIONAL.items())
    + r")(@.*)?$"
)
# Of these, what says where data and runs are.
_PLACE = re.compile(r"paths\.\w+|dataset\.(root|source)")


@dataclass
class Paths:
    """Where data is looked for and cached, and where runs write."""

    data: str = "data"
    outputs: str = "outputs"


@dataclass
class Config:
    """The root: closed sections are typed here; open ones are checked against constructors."""

    name: str = MISSING
    dataset: Any = None
    encoder: Any = None
    decoder: Any = None
    loss: Any = None
    task: Any = None
    latent: int | None = None
    hidden: int | None = None
    pretrained: Pretrained = field(default_factory=Pretrained)
    evaluation: Evaluation = field(default_factory=Evaluation)
    trainer: Trainer = field(default_factory=Trainer)
    crossval: CrossValidation = field(default_factory=CrossValidation)
    tracking: Tracking = field(default_factory=Tracking)
    paths: Paths = field(default_factory=Paths)
    figures: dict[str, Any] = field(default_factory=dict)
    table: Any = None
    rows: str | None = None
    columns: str | None = None
    run: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    scale: str = "paper"
    mode: str = "train"
    checkpoint: str | None = None
    device: str = "auto"
    threads: int | None = None
    restart: bool = False


def unknown_keys(nodes: Mapping[str, Any]) -> list[str]:
    """Keys of closed sections that only a "+" can have put there, a sentence each."""
    schemas: dict[str, Any] = {f.name: f.default_factory for f in fields(Config)}
    schemas = {name: schema for name, schema in schemas.items() if is_dataclass(schema)}
    found = []
    for section, schema in {"": Config, **schemas}.items():
        known, node = [f.name for f in fields(schema)], nodes[section] if section else nodes
        found += [_unknown(section, key, known) for key in node.keys() - {*known}]
    return sorted(found)


def unread_widths(config: DictConfig, overrides: list[str]) -> list[str]:
    """Widths of whole models that a command sets and no part reads, a sentence each."""
    text = OmegaConf.to_yaml(config)
    return [
        f"{key}={value}: no part of this experiment reads it; leave it out, or set the part's own"
        for key, value in axes(overrides).items()
        if key in ("hidden", "latent") and f"${{{key}}}" not in text
    ]


def register() -> None:
    """Make the schema and the table sweep known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("table_sweep", _table_sweep, replace=True)
    OmegaConf.register_new_resolver("add", lambda *numbers: sum(numbers), replace=True)
    OmegaConf.register_new_resolver("mul", lambda *numbers: math.prod(numbers), replace=True)
    OmegaConf.register_new_resolver("decimals", lambda x, n: f"{x:.{n}f}", replace=True)
    OmegaConf.register_new_resolver("last", lambda items: items[-1], replace=True)
    OmegaConf.register_new_resolver("pick", lambda key, values: values[key], replace=True)
    OmegaConf.register_new_resolver("divide", lambda a, b: a // b, replace=True)
    OmegaConf.register_new_resolver("divide_up", lambda a, b: -(-a // b), replace=True)


def _table_sweep(*, _root_: DictConfig) -> dict[str, str]:
    """Hydra's sweep over the chosen table: one job per distinct run, or per sweep."""
    if not _root_.get("table"):
        return {}
    return {"run": ",".join(jobs(_root_))}


def jobs(config: DictConfig) -> dict[str, list[Run]]:
    """Jobs that fill the chosen part of the chosen table, and the runs of each."""
    from setexp.report.part import part
    from setexp.report.tables import parse_table

    found = part(parse_table(plain(config.table)), config.rows, config.columns).jobs
    if not found:
        chosen = f"rows={config.rows}, columns={config.columns}"
        raise ConfigError(f"{chosen}: nothing to run, all numbers there are quoted")
    return found


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


def compose_run(overrides: list[str]) -> DictConfig:
    """Compose a config from overrides, inside or outside of a Hydra application.

    Raises:
        ConfigError: Hydra or OmegaConf refuse; their text on one line.
    """
    try:
        if GlobalHydra.instance().is_initialized():
            return compose("config", overrides)
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose("config", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        unknown = re.match(r"Could not override '([\w.]+)'.\s*To append to your config", str(error))
        if unknown and not unknown[1].startswith("hydra."):
            raise ConfigError(_unknown_key(unknown[1], overrides)) from None
        raise ConfigError(one_line(error)) from None
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # Hydra's, of a group without a choice
        unnamed = ", ".join(o for o in overrides if re.search(r"^\w+=(null$|\[|\{|$)", o))
        raise ConfigError(f"{unnamed}: {error}; choose a part by its name") from None


def one_line(error: Exception) -> str:
    """Hydra's or OmegaConf's paragraphs as one line: key, value, reason."""
    text = re.split(r"Config search path|See https|To append", str(error))[0]
    text = re.sub(r"^Error (merging|parsing) override '?([^'\n]*)'?", r"\2", text)
    missing = re.search(r"Could not find '(.+)/(.+)'\s+Available options in .*:", text)
    if missing:
        options = text[missing.end() :].split()
        near = ", or ".join(difflib.get_close_matches(missing[2], options, n=2))
        hint = f"perhaps {near}; there are" if near else "choose one of"
        return f"{missing[1]}={missing[2]}: unknown; {hint} {', '.join(options)}"
    if error.__cause__ is not None:
        text += f": {str(error.__cause__).splitlines()[0]}"
    key = getattr(error, "full_key", None)
    if key:
        text = f"{key}: {text.splitlines()[0]}"
    return " ".join(text.split())


def _unknown_key(key: str, overrides: list[str]) -> str:
    section = key.rpartition(".")[0]
    rest = compose_run([o for o in overrides if not o.startswith(f"{key}=")])
    node = OmegaConf.select(rest, section) if section else rest
    if not OmegaConf.is_dict(node):
        return f"{key}: unknown key; there is no section {section}"
    said = next(o for o in overrides if o.startswith(f"{key}="))
    name = key.rpartition(".")[2]
    if name in node:  # but not what the value, a mapping, has in it
        node = OmegaConf.select(rest, key)
        unknown = f"{said}: unknown key; {key} has {', '.join(map(str, node))}"
    else:
        unknown = _unknown(section, name, [str(known) for known in node])
    # a mapping of any names, which is no part and no typed section
    free = OmegaConf.get_type(node) is dict and "_target_" not in node
    return f"{unknown}; +{said} adds it" if free else unknown


def _unknown(section: str, name: str, known: list[str]) -> str:
    near = ", or ".join(difflib.get_close_matches(name, known, n=2))
    hint = f"perhaps {near}; " if near else ""
    path = f"{section}.{name}" if section else name
    return f"{path}: unknown key; {hint}{section or 'the config'} has {', '.join(known)}"


def plain(node: Any) -> Any:
    """A config node as plain Python, interpolations resolved.

    Raises:
        ConfigError: an interpolation names a key that the chosen parts do not have.
    """
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        known = _unknown_entry(error) or _unfitting_parts(error)
        raise ConfigError(known or f"{one_line(error)}; these parts do not fit together") from None


def _unfitting_parts(error: OmegaConfBaseException) -> str | None:
    """Which part reads a key that the chosen other part lacks, and choices that have it."""
    missing = re.search(r"Interpolation key '(\w+)\.(\w+)' not found", str(error))
    if missing is None or error.parent_node is None:
        return None
    root, (section, key) = error.parent_node._get_root(), missing.groups()
    reader = str(error.full_key).partition(".")[0]
    chosen = [
        root[part].get("_target_", part) if root.get(part) else "none" for part in (reader, section)
    ]
    names = [str(target).rpartition(".")[2] for target in chosen]
    have = sorted(p.stem for p in (CONFIGS / section).glob("*.yaml") if key in OmegaConf.load(p))
    other = f"; {section}={listed(have)} have it" if have else ""
    return (
        f"{error.full_key}: the {reader}, {names[0]}, reads {section}.{key}, which the {section}, "
        f"{names[1]}, does not have{other}"
    )


def _unknown_entry(error: OmegaConfBaseException) -> str | None:
    """Which value of a part is no entry of the part's own table that another value is read from."""
    missing = re.search(r"Interpolation key '([^']+)' not found", str(error))
    part = error.parent_node
    if missing is None or not isinstance(part, DictConfig):
        return None
    table, name = part, ""
    for name in missing[1].split("."):
        if not isinstance(table, DictConfig) or name not in table:
            break
        table = table[name]
    keys = [str(key) for key in part]
    said = [k for k in keys if not OmegaConf.is_interpolation(part, k) and part[k] == name]
    if not said or table is part or not isinstance(table, DictConfig):
        return None
    section = str(error.full_key).rpartition(".")[0]
    return f"{section}.{said[0]}={name}: choose one of {', '.join(map(str, table))}"
