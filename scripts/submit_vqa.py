"""Answer a split of VQA v2 with a finished run, for its server to judge (Thesis, Table 3.1).

    python scripts/submit_vqa.py outputs/vqa_counting_trainval/default/paper-real/seed-0 --to FILE

The file is a list of {"question_id", "answer"}, one for each question of the split.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# The project need not be installed: this file lies one folder below it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from setexp.errors import ConfigError, one_line


def submission(folder: Path, split: str, root: Path | None, device: str) -> list[dict[str, Any]]:
    """The answers of a run's last weights to all questions of a split.

    Args:
        folder: of one seed's run. root: of the data; None for where the run found it.

    Raises:
        ConfigError: it is no such run, or not finished, or its vocabulary is not the data's.
    """
    import torch
    from omegaconf import OmegaConf

    from setexp.build import build
    from setexp.processes import device_of
    from setexp.report.records import read_record
    from setexp.training import checkpoint
    from setexp.training.precision import set_float32
    from setexp.training.settings import Precision

    try:
        nodes: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder} holds no run (no config.yaml); name a seed's folder") from None
    if not nodes["name"].startswith("vqa_"):
        raise ConfigError(f"{folder} is a run of {nodes['name']}; name one of an experiment vqa_*")
    result = folder / "result.json"
    if not result.exists() or read_record(result).status != "done":
        raise ConfigError(
            f"{folder}: its run is not finished; the run's command takes it to its end"
        )
    where = device_of(device)
    set_float32(Precision(nodes["trainer"]["precision"]))
    changes = {} if root is None else {"root": str(root)}
    dataset = build({**nodes["dataset"], **changes}, "dataset").to(where)
    answers = dataset.answers
    state = checkpoint.load(folder / "checkpoint.pt", where)
    checkpoint.check_vocabulary(folder / "checkpoint.pt", state, dataset)
    task = build(nodes["task"], "task").to(where).eval()
    task.load_state_dict(state["model"])
    generator, size = torch.Generator(where), nodes["trainer"]["eval_batch_size"]
    passes = dataset.batches(split, size, generator, shuffle=False, drop_last=False)
    found = []
    with torch.no_grad():
        for batch in passes:
            stats = task(batch).stats
            rows = zip(stats["question_id"].tolist(), stats["answer"].tolist(), strict=True)
            found += [{"question_id": key, "answer": answers[place]} for key, place in rows]
    return found


def check_place(path: Path) -> None:
    """Refuse a place where no file can be written, before a whole split is answered for it.

    Raises:
        ConfigError: it is a folder, or in none that can be written.
    """

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        fault = "it is a folder" if path.is_dir() else None
    except OSError as error:
        fault = error.strerror
    if fault:
        raise ConfigError(f"--to {path}: cannot be written: {fault}; name another file")


@one_line
def main() -> int:
    """Write the file; 0 = done, 2 = the run, the data or an argument is at fault."""
    from setexp.files import write_text

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of one seed's run")
    parser.add_argument(
        "--split",
        choices=("test", "test_dev", "val"),
        default="test",
        help="whose questions; default: test",
    )
    parser.add_argument("--to", type=Path, required=True, help="the file to write")
    parser.add_argument("--root", type=Path, help="the data folder; default: the run's")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda; default: cpu")
    options = parser.parse_args()
    check_place(options.to)
    found = submission(options.folder, options.split, options.root, options.device)
    write_text(options.to, json.dumps(found) + "\n")
    print(f"{options.to}: {len(found)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
