"""Errors of Hydra and OmegaConf as one line: key, value, reason, and what was perhaps meant."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from setexp.errors import listed


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


def unknown_key(section: str, name: str, known: list[str]) -> str:
    """A key that a section does not have, and what it may have been meant for."""
    near = ", or ".join(difflib.get_close_matches(name, known, n=2))
    hint = f"perhaps {near}; " if near else ""
    path = f"{section}.{name}" if section else name
    return f"{path}: unknown key; {hint}{section or 'the config'} has {', '.join(known)}"


def unfitting_parts(error: OmegaConfBaseException, configs: Path) -> str | None:
    """Which part reads a key that the chosen other part lacks; None where the error is another.

    Args:
        configs: the folder whose choices may have the key.
    """
    missing = re.search(r"Interpolation key '(\w+)\.(\w+)' not found", str(error))
    if missing is None or error.parent_node is None:
        return None
    root, (section, key) = error.parent_node._get_root(), missing.groups()
    reader = str(error.full_key).partition(".")[0]
    chosen = [
        root[part].get("_target_", part) if root.get(part) else "none" for part in (reader, section)
    ]
    names = [str(target).rpartition(".")[2] for target in chosen]
    have = sorted(p.stem for p in (configs / section).glob("*.yaml") if key in OmegaConf.load(p))
    other = f"; {section}={listed(have)} have it" if have else ""
    return (
        f"{error.full_key}: the {reader}, {names[0]}, reads {section}.{key}, which the {section}, "
        f"{names[1]}, does not have{other}"
    )


def unknown_entry(error: OmegaConfBaseException) -> str | None:
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
