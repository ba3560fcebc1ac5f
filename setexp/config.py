"""The config's closed sections, and what a run is called. With `run` and `train.py`, Hydra's only
users."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from setexp.errors import ConfigError
from setexp.training.settings import Tracking, Trainer

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

# Overrides that change where or how a run happens, but not what it computes.
_OPERATIONAL = re.compile(
    r"^[+~]*(experiment|scale|seeds|table|run|mode|checkpoint|device|threads|restart|figures"
    r"|dataset\.(source|root)|paths\..*|tracking\..*|hydra[/.].*"
    r"|trainer\.(log_every|checkpoint_seconds|stack))(@.*)?$"
)


@dataclass
class Paths:
    """Where data is looked for and cached, and where runs write."""

    data: str = "data"
    outputs: str = "outputs"


@dataclass
class EvaluationNodes:
    """Nodes of `setexp.training.evaluate.Evaluation`; see there."""

    losses: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    at: list[int] = field(default_factory=list)
    during: str | None = None
    final: dict[str, str] = field(default_factory=lambda: {"test": ""})
    drop_last: bool = False


@dataclass
class Config:
    """The root: closed sections are typed here; open ones are checked against constructors."""

    name: str = MISSING
    dataset: Any = None
    encoder: Any = None
    decoder: Any = None
    loss: Any = None
    task: Any = None
    latent: int = MISSING
    hidden: int = MISSING
    evaluation: EvaluationNodes = field(default_factory=EvaluationNodes)
    trainer: Trainer = field(default_factory=Trainer)
    tracking: Tracking = field(default_factory=Tracking)
    paths: Paths = field(default_factory=Paths)
    figures: dict[str, Any] = field(default_factory=dict)
    table: Any = None
    run: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    scale: str = "paper"
    mode: str = "train"
    checkpoint: str | None = None
    device: str = "auto"
    threads: int | None = None
    restart: bool = False


def register() -> None:
    """Make the schema and the table sweep known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("table_sweep", _table_sweep, replace=True)
    OmegaConf.register_new_resolver("add", lambda *numbers: sum(numbers), replace=True)


def _table_sweep(*, _root_: DictConfig) -> dict[str, str]:
    """Hydra's sweep over the chosen table: one job per distinct run."""
    table = _root_.get("table")
    if not table:
        return {}
    from setexp.report.tables import expand

    spec = OmegaConf.to_container(table)
    return {"run": ",".join(run.name for run in expand(spec))}


def axes(overrides: list[str]) -> dict[str, Any]:
    """What a command changes about an experiment: {dotted key: value}, sorted by key."""
    found = {}
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group if override.package is None else override.get_key_element()
        if not _OPERATIONAL.match(key):
            value = None if override.is_delete() else override.value()
            found[key] = OmegaConf.to_container(OmegaConf.create({"v": value}))["v"]  # type: ignore[index, call-overload]
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
        text = " ".join(str(error).split())
        raise ConfigError(
            re.sub(r"(full_key|reference_type|object_type)[:=]", r"; \1: ", text)
        ) from None


def refuse_bad_overrides(arguments: list[str]) -> None:
    """Exit with code 2 and one line where Hydra would print paragraphs and exit with code 1."""
    if any(a in ("--help", "-h", "--hydra-help", "--version", "--info", "-i") for a in arguments):
        return
    overrides = [a for a in arguments if re.match(r"^~|^[+]{0,2}[\w/@.]+=", a)]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        single = []
        for override in parsed:
            first = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
            text = str(override.input_line)
            single.append(text if first is None else f"{text.split('=')[0]}={first}")
        compose_run([o for o in single if not o.startswith(("hydra.", "hydra/"))])
    except (ConfigError, HydraException) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def plain(node: Any) -> Any:
    """A config node as plain Python, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True)
