"""Neural networks for sets: five documents' tables as config files."""

__version__ = "0.1.0"
