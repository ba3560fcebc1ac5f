"""Errors that are a user's to mend: shown as one line, without a traceback, exit code 2."""


class ConfigError(ValueError):
    """A wrong setting, missing data or an unusable folder; the message names key, value, remedy."""


class NonFiniteError(RuntimeError):
    """A loss or a cost became NaN or infinite; the message names what and where."""
