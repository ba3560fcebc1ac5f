"""Hand-made run folders for the tests of `setexp.report`."""

import json
from pathlib import Path

from setexp.report.records import slug


def write_run(
    outputs: Path,
    experiment: str,
    axes: dict,
    seed: int,
    metrics: dict | None,
    *,
    scale: str = "paper",
    source: str = "synthetic",
    dirty: bool = False,
    finished: str = "2026-01-01T00:00:00+00:00",
    paused: bool = False,
    data: str | None = None,
) -> Path:
    """A run's folder with a record; metrics None: it diverged."""
    folder = outputs / experiment / slug(axes) / f"{scale}-{source}" / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    status = "diverged" if metrics is None else "paused" if paused else "done"
    record = {
        "experiment": experiment,
        "axes": axes,
        "scale": scale,
        "source": source,
        "data": data,
        "seed": seed,
        "status": status,
        "metrics": metrics,
        "epochs": 10.0,
        "steps": 10240,
        "parameters": 1234,
        "provenance": {
            "command": f"python train.py experiment={experiment}",
            "commit": "0123456789abcdef",
            "dirty": dirty,
            "device": "Some GPU",
            "machine": "Linux, 2 cores",
            "seconds": 12.5,
            "finished": finished,
        },
    }
    (folder / "result.json").write_text(json.dumps(record))
    (folder / "status.json").write_text(json.dumps({"status": status}))
    return folder
