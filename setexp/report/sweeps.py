"""Sweeps: columns of a table config that stand for evenly spaced values of one setting.

Where a document draws a curve instead of printing numbers, a column has the field

- `sweep`: the dotted key that is varied from 0 to 1, the label saying where: "l={}, q=0";

and the table has `points`, their number, which a command may change: `table.points=101`. The runs
of a row and a sweep differ in that key alone and are trained as one job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from setexp.errors import ConfigError


@dataclass(frozen=True)
class Sweep:
    """One swept column: the values by the label of the column that each became.

    Args:
        label: as in the config, "l={}, q=0". key: what is varied, "dataset.side".
    """

    label: str
    key: str
    values: dict[str, float]

    @property
    def symbol(self) -> str:
        """What is varied, as the label calls it: "l"."""
        return self.label.partition("={}")[0].rpartition(" ")[2]

    @property
    def title(self) -> str:
        """The label without a value: "l, q=0"."""
        return self.label.replace("={}", "")


def unroll(
    label: str, columns: Mapping[str, Any], points: int | None
) -> tuple[dict[str, Any], tuple[Sweep, ...]]:
    """Columns with a column for each value of each sweep, and the sweeps.

    Args:
        label: of the table, for messages.

    Raises:
        ConfigError: sweeps without points, points without sweeps, or a label without "{}".
    """
    swept = [name for name, fields in columns.items() if (fields or {}).get("sweep")]
    if not swept and points is None:
        return dict(columns), ()
    if not swept or points is None or points < 2:
        raise ConfigError(f"{label}: points={points}; columns with a sweep need at least 2")
    plain: dict[str, Any] = {}
    sweeps = []
    for name, fields in columns.items():
        if name not in swept:
            plain[name] = fields
            continue
        key = fields["sweep"]
        if "={}" not in name:
            raise ConfigError(f'{label}, columns.{name}: write "={{}}" for the value of {key}')
        values = {}
        for k in range(points):
            value = round(k / (points - 1), 6)
            values[name.format(f"{value:g}")] = value
        sweeps.append(Sweep(name, key, values))
        rest = {k: v for k, v in fields.items() if k != "sweep"}
        plain |= {c: rest | {"set": {**rest.get("set", {}), key: v}} for c, v in values.items()}
    return plain, tuple(sweeps)
