"""The config: its closed sections, what its interpolations may call, and how it is composed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from setexp.errors import ConfigError
from setexp.explain import one_line, unfitting_parts, unknown_entry, unknown_key
from setexp.overrides import axes
from setexp.training.settings import (
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
    processes: int = 1
    restart: bool = False


def unknown_keys(nodes: Mapping[str, Any]) -> list[str]:
    """Keys of closed sections that only a "+" can have put there, a sentence each."""
    schemas: dict[str, Any] = {f.name: f.default_factory for f in fields(Config)}
    schemas = {name: schema for name, schema in schemas.items() if is_dataclass(schema)}
    found = []
    for section, schema in {"": Config, **schemas}.items():
        known, node = [f.name for f in fields(schema)], nodes[section] if section else nodes
        found += [unknown_key(section, key, known) for key in node.keys() - {*known}]
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
            raise ConfigError(_why_unknown(unknown[1], overrides)) from None
        raise ConfigError(one_line(error)) from None
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # Hydra's, of a group without a choice
        unnamed = ", ".join(o for o in overrides if re.search(r"^\w+=(null$|\[|\{|$)", o))
        raise ConfigError(f"{unnamed}: {error}; choose a part by its name") from None


def _why_unknown(key: str, overrides: list[str]) -> str:
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
        unknown = unknown_key(section, name, [str(known) for known in node])
    # a mapping of any names, which is no part and no typed section
    free = OmegaConf.get_type(node) is dict and "_target_" not in node
    return f"{unknown}; +{said} adds it" if free else unknown


def plain(node: Any) -> Any:
    """A config node as plain Python, interpolations resolved.

    Raises:
        ConfigError: an interpolation names a key that the chosen parts do not have.
    """
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        known = unknown_entry(error) or unfitting_parts(error, CONFIGS)
        raise ConfigError(known or f"{one_line(error)}; these parts do not fit together") from None
