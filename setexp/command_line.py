"""What is done to a command line before Hydra reads it: completed, quoted, refused in one line."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from setexp.config import CONFIGS, compose_run, jobs, plain
from setexp.errors import ConfigError
from setexp.explain import one_line
from setexp.rules import broken_rules

# Values of a key within a part that a sweep composes ahead, each in a tenth of a second.
_TRIED = 10


def with_table_experiment(arguments: list[str]) -> list[str]:
    """A table's command line with its first experiment, so that Hydra knows the keys it overrides.

    Each run of the table then chooses its own experiment; see `setexp.run`.
    """
    names = [a.partition("=")[2] for a in arguments if a.startswith("table=")]
    if not names or any(a.startswith("experiment=") for a in arguments):
        return arguments
    folders = [get_args_parser().parse_known_args(arguments)[0].config_dir, CONFIGS]
    paths = [Path(folder) / "table" / f"{names[0]}.yaml" for folder in folders if folder]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return arguments  # Hydra lists the choices
    table = plain(OmegaConf.load(path))
    parts = [part for key in ("rows", "columns") for part in (table.get(key) or {}).values()]
    first = next((part["experiment"] for part in parts if part and "experiment" in part), None)
    if first is None:
        return arguments
    place = arguments.index(f"table={names[0]}") + 1  # options may follow, and end the overrides
    return [*arguments[:place], f"experiment={first}", *arguments[place:]]


def quote_paths(arguments: list[str]) -> list[str]:
    """Arguments as Hydra can read them: run folders and labels of tables hold "=", "," or "*",
    where its grammar splits or fails."""
    path = re.compile(
        r"([\w.]+)=(?=.*/)([^'\"\[{(]*=[^'\"\[{(]*)"
        r"|(?:rows|columns|checkpoint|paths\.\w+)=(?!['\"$]|null$).+"
        r"|(?:\w+\.)*root=~?/.*"
    )
    return [_quoted(a) if path.fullmatch(a) else a for a in arguments]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    value = os.path.expanduser(value)  # a shell leaves "~" there
    return f"{key}=" + "'" + value.replace("'", r"\'") + "'"


def refuse_bad_overrides(arguments: list[str]) -> None:
    """Exit with code 2 and one line where Hydra would print paragraphs and exit with code 1."""
    parser = get_args_parser()
    parser.allow_abbrev = False  # --experiment is no --experimental-rerun
    options, unread = parser.parse_known_args(arguments)
    if options.multirun and options.cfg:
        print("error: -m, --cfg: --cfg shows the config of one run; leave -m out", file=sys.stderr)
        raise SystemExit(2)
    if unread:
        reason = "options come before all overrides, or after"
        if unread[0].startswith("-"):
            reason = "unknown option; --help lists them, and settings are written KEY=VALUE"
        print(f"error: {unread[0]}: {reason}", file=sys.stderr)
        raise SystemExit(2)
    if options.help or options.hydra_help or options.info or os.environ.get("HYDRA_FULL_ERROR"):
        return
    try:
        _check_words(options.overrides, options.multirun, bool(options.cfg))
        parsed = _parsed(options.overrides)
        values = [_values(o, options.multirun) for o in parsed]
        if options.multirun:
            _check_what_several_experiments_share(parsed)
        if options.config_dir:
            values.append([f"hydra.searchpath=[file://{Path(options.config_dir).resolve()}]"])
        first = [each[0] for each in values]
        config = compose_run(first)
        if config.table:
            jobs(config)
        elif options.multirun and (mistakes := broken_rules(plain(config), parts=False)):
            raise ConfigError(mistakes[0])
        tables = [o for o in options.overrides if re.match(r"table=.*,", o)]
        if tables:
            raise ConfigError(f"{tables[0]}: one table at a time")
        for at, each in enumerate(values):
            for other in each[1:]:
                compose_run([*first[:at], other, *first[at + 1 :]])
        if options.multirun:
            _make_sweeps_folder(config.paths.outputs)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _check_words(overrides: list[str], multirun: bool, shown: bool) -> None:
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "table" and "/" in value:
            from setexp.report.tables import config_name

            named = config_name(value)
            raise ConfigError(f"{override}: that is a table's id; its config is table={named}")
        if re.fullmatch(r"table=\w+", override) and (same := _printed_again(value)):
            raise ConfigError(f"{override}: printed again as table={same}; fill that")
        if re.fullmatch(r"seeds=\d+(,\d+)*", override):
            jobs_each = ", or seeds=" + ",".join(f"[{seed}]" for seed in value.split(","))
            raise ConfigError(
                f"{override}: a list; write seeds=[{value}]"
                + (f"{jobs_each} for a job each" if multirun and "," in value else "")
            )
        if key == "hydra/launcher" and not (multirun or shown):
            raise ConfigError(f"{override}: a launcher needs -m; without it this process trains")
        if override == "hydra/launcher=slurm" and not shown and not shutil.which("sbatch"):
            raise ConfigError(
                f"{override}: there is no sbatch here; use a cluster's login node, or leave it out"
            )


def _printed_again(table: str) -> str | None:
    """The config of the table that has the numbers of one that has none."""
    if (CONFIGS / "table" / f"{table}.yaml").exists():
        return None
    from setexp.report.tables import config_name, printed_again

    same = printed_again(table)
    return None if same is None else config_name(same)


def _check_what_several_experiments_share(overrides: list[Override]) -> None:
    """Hydra looks keys up in a config without what is swept over, so without an experiment."""
    swept = [o for o in overrides if o.is_sweep_override()]
    if not any(o.key_or_group == "experiment" for o in swept):
        return
    shared = [str(o.input_line) for o in overrides if o not in swept]
    try:
        compose_run(shared)
    except ConfigError as error:
        key = str(error).partition(":")[0]
        raise ConfigError(
            f"{key}: cannot be set for several experiments at once, whose parts have it; give one "
            "command for each, or a table"
        ) from None


def _parsed(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        strange = "LexerNoViableAlt" in str(error)  # a character that only quotes may hold
        remedy = "'KEY=\"VALUE\"', with both quotes" if strange else "KEY=VALUE"
        raise ConfigError(f"{one_line(error)}; write {remedy}") from None


def _values(override: Override, multirun: bool) -> list[str]:
    """An override for each value that it sweeps over; of many within a part, the first."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    if not multirun:
        raise ConfigError(f"{text}: several values need -m; a list is written KEY=[1,2]")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):  # glob(...) asks what there is
        override.config_loader = GlobalHydra.instance().config_loader()
        found = [f"{text.split('=')[0]}={value}" for value in override.sweep_string_iterator()]
    if not found:
        raise ConfigError(f"{text}: matches nothing")
    return found[:1] if "." in override.key_or_group and len(found) > _TRIED else found


def _make_sweeps_folder(outputs: str) -> None:
    """Make the folder in which Hydra notes a multirun, which it does before the first run."""
    folder = Path(outputs) / "sweeps"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"paths.outputs={outputs}: cannot write {folder}: {error.strerror}; name another folder"
        ) from None
