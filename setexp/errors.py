"""Errors that are a user's to mend: shown as one line, without a traceback, exit code 2."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


class ConfigError(ValueError):
    """A wrong setting, missing data or an unusable folder; the message names key, value, remedy."""


class ClaimedError(ConfigError):
    """A run's folder belongs to another process."""


class NonFiniteError(RuntimeError):
    """A loss or a cost became NaN or infinite; the message names what and where."""


def one_line(main: Callable[P, int]) -> Callable[P, int]:
    """A script's `main` that ends a user's mistake with one line and 2, Ctrl-C with one and 130."""

    @wraps(main)
    def ended(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (ConfigError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; start it again to go on", file=sys.stderr)
            return 130

    return ended


def refuse(mistakes: Collection[str]) -> None:
    """Refuse what has mistakes, all of them together.

    Raises:
        ConfigError: there are some.
    """
    if mistakes:
        raise ConfigError("\nerror: ".join(mistakes))


def one_of(key: str, value: object, choices: Collection[str]) -> None:
    """Refuse a value that is no choice.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in choices:
        raise ConfigError(f"{key}={value}: choose one of {', '.join(choices)}")


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a line of text, the first ones of many."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def shortened(error: Exception, most: int = 200) -> str:
    """An error's text on one line, cut between words."""
    return textwrap.shorten(str(error), most, placeholder=" ...")
